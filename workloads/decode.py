"""Decoding as an SPMD program: prefill, then one token per row and step, over TP, PP and DP.

Every replica (dp and ep) takes an even share of the batch's rows. Rows are right-padded in the prefill and stand at
their own positions afterwards. Exactly `new_tokens` are generated: simulated time may not depend on values.

With `micro_batches` above 1 a replica's rows are so many parts that take turns on every chip, so that one communicates
while another computes. Over pipeline stages each part goes its own way: a stage works on one while the others are on
their way or in other stages; with as many parts as stages, the slowest stage never waits. The collectives of a stage
block. Without stages the parts take turns at every collective, in the prefill alone: in a decode step every further
part would read all the weights once more, which costs more than it hides. Replicas that share experts have equally many
parts, as many as the one with the fewest rows can have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
from attrs import evolve, field, frozen

from configs.errors import ConfigError
from configs.spec.dtype import DtypeSpec, TiersSpec
from configs.spec.model import ModelSpec
from configs.spec.workload import SamplingSpec
from workloads.array import Array, ShapeArray, concatenate
from workloads.chip import Chip, Tensor
from workloads.layout import Layout, Place, split_evenly
from workloads.models.blocks.site import Peers
from workloads.models.family import ModelShape, Stage
from workloads.rounding import INT32
from workloads.sampling import Draw
from workloads.shards import ShardSpec, place_shards, rows_of
from workloads.turns import COMMUNICATION, MESSAGES, meet, shared, take_turns
from workloads.weights import open_weights

GREEDY = SamplingSpec()
FARTHEST = TiersSpec()


@frozen
class DecodeJob:
    """What every rank is told; `prompt_ids` may be None in shapes mode, where only lengths count.

    stops: (tokens generated, picoseconds): all chips stop for so long after so many tokens, to be rewired.
    step_ps, row_ps: the first stage waits for the host so long before every step, and for every row of it.
    first_step: without values: where the run begins; the steps before it have filled the cache and took no time.
    """

    model: ModelSpec
    layout: Layout
    dtype: DtypeSpec
    prompt_lengths: tuple[int, ...]
    new_tokens: int
    prompt_ids: tuple[tuple[int, ...], ...] | None = None
    keep_logits: bool = False
    micro_batches: int = 1
    seed: int = 0
    skew: float | None = None
    stops: tuple[tuple[int, int], ...] = ()
    sampling: SamplingSpec = GREEDY
    tiers: TiersSpec = FARTHEST
    step_ps: int = 0
    row_ps: int = 0
    first_step: int = 0

    @property
    def shape(self) -> ModelShape:
        """The model's shape."""
        return cast("ModelShape", self.model.shape)

    @property
    def max_length(self) -> int:
        """Tokens that every row's KV cache has room for."""
        return max(self.prompt_lengths) + self.new_tokens

    def rows(self, replica: int) -> range:
        """Return the rows of the batch that a replica decodes."""
        return split_evenly(len(self.prompt_lengths), self.layout.n_replicas)[replica]

    def peers(self, place: Place, part: int = 0, n_parts: int = 1, first_step: int = 0) -> Peers:
        """Return what a rank knows of its expert-parallel group, for one part of everybody's rows."""
        every = (self.rows(self.layout.replica(evolve(place, ep=index))) for index in range(self.layout.ep))
        rows = (own[share.start : share.stop] for own in every for share in [split_evenly(len(own), n_parts)[part]])
        lengths = tuple(tuple(self.prompt_lengths[row] for row in own) for own in rows)
        return Peers(lengths, self.seed, self.skew, first_step, part)

    def n_parts(self, place: Place) -> int:
        """Return how many parts of a replica's rows take turns: 1 where there is nothing to wait for."""
        fewest = min(map(len, self.peers(place).lengths))
        waits = self.layout.width * self.layout.pp * self.layout.ep > 1
        return max(1, min(self.micro_batches, fewest)) if waits else 1


def check_job(job: DecodeJob) -> None:
    """Raise ConfigError with everything that forbids the job."""
    problems = [*job.shape.problems(job.layout), *_prompt_problems(job)]
    if job.layout.dp > len(job.prompt_lengths):
        problems.append(
            f"parallel.dp: {job.layout.dp} is above the batch of {len(job.prompt_lengths)}; every replica needs a row"
        )
    if job.micro_batches > 1 and job.layout.ep > 1 and job.layout.sequence:
        why = "are not possible with parallel.ep above 1 and parallel.sequence"  # the parts' turns could differ
        problems.append(f"micro_batches: {job.micro_batches} {why}; accepted: 1, or sequence false")
    if job.micro_batches > 1 and job.layout.tp_attention == "batch":
        why = "are not possible with parallel.tp_attention batch"  # a part's rows would be the wrong ones
        problems.append(f"micro_batches: {job.micro_batches} {why}; accepted: 1, or tp_attention heads")
    if not 0 <= job.first_step < max(job.new_tokens, 1):
        problems.append(f"first step {job.first_step}; accepted: one of the {job.new_tokens} steps")
    if job.new_tokens < 1:
        problems.append(f"workload.new_tokens: {job.new_tokens} must be at least 1")
    problems += [
        f"system.topology.failures: after token {token}; accepted: before the last of {job.new_tokens} new tokens"
        for token, _ in job.stops
        if not 0 < token < job.new_tokens
    ]
    if job.prompt_lengths and job.max_length > job.shape.max_context:
        problems.append(
            f"workload: a prompt of {max(job.prompt_lengths)} tokens and {job.new_tokens} new tokens exceed "
            f"the context of {job.model.name}, {job.shape.max_context} tokens"
        )
    if problems:
        raise ConfigError(tuple(problems))


def _prompt_problems(job: DecodeJob) -> list[str]:
    if not job.prompt_lengths:
        return ["workload: there is no prompt"]
    problems = [
        f"workload: prompt {i} is empty; a prompt has at least one token"
        for i, length in enumerate(job.prompt_lengths)
        if length < 1
    ]
    for i, ids in enumerate(job.prompt_ids or ()):
        strange = [token for token in ids if not 0 <= token < job.shape.vocab]
        if strange:
            problems.append(
                f"workload.prompt_ids[{i}]: {strange[0]} is not a token id; accepted: 0 to {job.shape.vocab - 1}"
            )
    return problems


def plan_rank(job: DecodeJob, rank: int) -> tuple[ShardSpec, ...]:
    """Return the shards that `rank` will place."""
    place = job.layout.place(rank)
    return job.shape.shards(place, job.layout, job.dtype, len(job.rows(job.layout.replica(place))), job.max_length)


def plan_memory(job: DecodeJob) -> tuple[tuple[ShardSpec, ...], ...]:
    """Return every rank's shards (name, shape, dtype, size_bytes) without loading anything."""
    return tuple(plan_rank(job, rank) for rank in job.layout.ranks)


async def decode(chip: Chip, job: DecodeJob) -> None:
    """Decode; emits ready, then per step `tokens` [rows of the replica] and, if asked for, `logits`.

    `tokens` come from the first rank of each replica's last stage, `logits` [rows, own vocabulary] from all
    ranks of the last stages. Ranks beyond the layout do nothing.
    """
    if chip.rank not in job.layout.ranks:
        return
    source = open_weights(job.model) if chip.real else None
    shards = plan_rank(job, chip.rank)
    memory = place_shards(chip, shards, source, job.tiers)
    place = job.layout.place(chip.rank)
    chip.emit("ready")
    caches = {shard.name: memory[shard.name].values for shard in shards if shard.role == "kv"}
    rows = job.rows(job.layout.replica(place))
    ids = ShapeArray((len(rows),), INT32) if job.first_step else None
    step, state = chip.resume(job.first_step, {"ids": ids, "caches": {}})
    for name, values in state["caches"].items():
        if values is not None:
            caches[name][...] = values
    ids = state["ids"]
    if job.n_parts(place) > 1 and (step == 0 or (job.layout.pp > 1 and step > job.first_step)):
        step, ids = await _generate_in_parts(chip, job, shards, memory, step, state)
    stage = job.shape.stage(chip, job.layout, job.dtype, memory, job.peers(place, first_step=step))
    whole = _Rank(chip, job, place, stage, rows, _Output(chip))
    await _generate(whole, range(step, job.new_tokens), caches, ids)


async def _generate(whole: _Rank, steps: range, caches: Mapping[str, Any], ids: Array) -> None:
    """Run the steps, with a checkpoint before each and the job's stops after them."""
    for step in steps:
        whole.chip.checkpoint(step, {"ids": ids, "caches": caches})
        ids = await whole.generate(range(step, step + 1), ids)
        await _stop(whole.chip, whole.job, step + 1)


def _spans(job: DecodeJob, steps: range) -> Iterator[range]:
    """Cut the steps where the job stops."""
    ends = [token for token, _ in job.stops if token in steps and token > steps.start]
    for first, last in pairwise([steps.start, *ends, steps.stop]):
        yield range(first, last)


async def _stop(chip: Chip, job: DecodeJob, step: int) -> None:
    """Wait for all chips of the job and stop with them, if the job stops before this step."""
    for token, duration_ps in job.stops:
        if token == step:
            await chip.barrier(chip.group("job", job.layout.ranks))
            chip.pause("reconfigure", duration_ps)


async def _generate_in_parts(
    chip: Chip, job: DecodeJob, shards: Sequence[ShardSpec], memory: Mapping[str, Tensor], first: int,
    state: Mapping[str, Any],
) -> tuple[int, Array]:  # fmt: skip
    """Generate tokens, the parts of the rows turn by turn, as long as that pays; return how many, and the last ids.

    With a checkpoint before each step: in steps that follow one another, the first stage has not yet received the ids.
    """
    place, layout = job.layout.place(chip.rank), job.layout
    own_rows, n_parts = job.rows(layout.replica(place)), job.n_parts(place)
    staged, output = layout.pp > 1, _Output(chip, n_parts)
    parts = []
    for i, rows in enumerate(split_evenly(len(own_rows), n_parts)):
        view = shared(chip, _name(i), MESSAGES if staged else COMMUNICATION)
        own, peers = rows_of(memory, shards, rows), job.peers(place, i, n_parts, first)
        stage = job.shape.stage(view, layout, job.dtype, own, peers)
        parts.append(_Rank(view, job, place, stage, own_rows[rows.start : rows.stop], output, i))
    caches = {shard.name: memory[shard.name].values for shard in shards if shard.role == "kv"}
    ids, at_hand = state["ids"] or [None] * n_parts, state.get("at hand", True)
    for span in _spans(job, range(first, job.new_tokens if staged else 1)):
        if at_hand:
            chip.checkpoint(span.start, {"ids": ids, "at hand": True, "caches": caches})
        keep = partial(_keep_between, chip, parts, iter(span[1:]), caches)
        programs = [part.generate(span, own, at_hand=at_hand) for part, own in zip(parts, ids, strict=True)]
        ids, at_hand = await take_turns(chip, programs, keep), True
        await _stop(chip, job, span.stop)
    return span.stop, None if staged else concatenate(ids)


def _keep_between(chip: Chip, parts: Sequence[_Rank], steps: Iterator[int], caches: Mapping[str, Any]) -> None:
    """Keep a checkpoint of the next step, which no part has begun; what the last stage handed over is on its way."""
    sent = [(ids, part.first_stage, _name(part.part)) for part in parts for ids in part.handed_over]
    chip.checkpoint(next(steps), {"ids": None, "at hand": False, "caches": caches}, sent)


def _name(part: int) -> str:
    return f"part {part}"


@frozen(eq=False)
class _Output:
    """Hands a step's values to the driver when all parts of the rows have theirs."""

    chip: Chip
    n_parts: int = 1
    _values: dict[tuple[str, int], dict[int, Array]] = field(factory=dict)

    def emit(self, name: str, part: int, value: Array, step: int) -> None:
        """Take the value of one part of the rows."""
        values = self._values.setdefault((name, step), {})
        values[part] = value
        if len(values) == self.n_parts:
            del self._values[name, step]
            self.chip.emit(name, concatenate([values[i] for i in range(self.n_parts)]), index=step)


@frozen(eq=False)
class _Rank:
    """One rank at work on some rows of the batch, the `part`-th of its replica's.

    handed_over: the ids that it has sent to the first stage last, if it is of the last one.
    """

    chip: Chip
    job: DecodeJob
    place: Place
    stage: Stage
    rows: range
    output: _Output
    part: int = 0
    handed_over: list[Array] = field(factory=list)

    async def generate(self, steps: range, ids: Array = None, *, at_hand: bool = True) -> Array:
        """Run the steps, of which 0 is the prefill; return the ids that the last one picks, where they are known.

        Between two steps all parts meet. `at_hand` False: the first stage has yet to receive its ids.
        """
        lengths = tuple(self.job.prompt_lengths[row] for row in self.rows)
        for step in steps:
            if step > steps.start:
                await meet()
            if step > steps.start or not at_hand:
                ids = await self._fed(ids)
            starts, picked = tuple(length + step - 1 for length in lengths), tuple(range(len(lengths)))
            n = len(lengths)
            if step == 0:
                ids, starts, longest = self._prompts(lengths), (0,) * len(lengths), max(lengths, default=0)
                n *= longest
                picked = tuple(row * longest + length - 1 for row, length in enumerate(lengths))
            hidden = await self._forward(ids, starts, n)
            ids = await self._next_ids(hidden, picked, n, step)
        return await self._fed(ids) if steps.stop < self.job.new_tokens else ids

    @property
    def first_stage(self) -> int:
        """The rank that the ids go to."""
        return self.job.layout.on_stage(self.chip.rank, 0)

    async def _fed(self, ids: Array) -> Array:
        """Return the ids of the next step: on the first stage what the last one sends, elsewhere what is given."""
        layout = self.job.layout
        if layout.pp == 1 or self.place.pp > 0:
            return ids
        return await self.chip.recv(layout.on_stage(self.chip.rank, layout.pp - 1))

    async def _forward(self, ids: Array, starts: tuple[int, ...], n: int) -> Array:
        """Pass the n new tokens through the stages; return this stage's hidden states."""
        layout, rank = self.job.layout, self.chip.rank
        wait_ps = self.job.step_ps + self.job.row_ps * len(starts)
        if self.place.pp == 0 and wait_ps:
            self.chip.pause("host", wait_ps)
        if self.place.pp == 0:
            x = await self.stage.embed(ids, starts)
        else:
            x = await self.chip.recv(layout.on_stage(rank, self.place.pp - 1))
        x = await self.stage.layers(x, starts, n)
        if self.place.pp < layout.pp - 1:
            await self.chip.send(x, layout.on_stage(rank, self.place.pp + 1))
        return x

    async def _next_ids(self, hidden: Array, picked: tuple[int, ...], n: int, step: int) -> Array:
        """Pick the next ids on the last stage, which sends them to the first; None elsewhere."""
        layout = self.job.layout
        if self.place.pp < layout.pp - 1:
            return None
        ids = await self._pick(hidden, picked, n, step)
        if layout.pp > 1 and step + 1 < self.job.new_tokens:
            self.handed_over[:] = [ids]
            await self.chip.send(ids, self.first_stage)
        return ids

    async def _pick(self, hidden: Array, picked: tuple[int, ...], n: int, step: int) -> Array:
        """Pick the next id of every row, from the hidden states of rows `picked`; last stage only."""
        logits = await self.stage.logits(hidden, picked, n)
        if self.job.keep_logits:
            self.output.emit("logits", self.part, logits, step)
        ids = await self.stage.pick(logits, Draw(self.job.sampling, tuple(self.rows), step))
        if self.job.layout.index(self.place) == 0:
            self.output.emit("tokens", self.part, ids, step)
        return ids

    def _prompts(self, lengths: tuple[int, ...]) -> Array:
        """Return the rows' prompts, right-padded with id 0, [rows·longest]."""
        if not self.chip.real:
            return ShapeArray((len(lengths) * max(lengths, default=0),), INT32)
        if self.job.prompt_ids is None:
            raise ConfigError(("workload: real numerics need a prompt, not only its length",))
        ids = np.zeros((len(lengths), max(lengths, default=0)), np.int32)
        for i, row in enumerate(self.rows):
            ids[i, : lengths[i]] = self.job.prompt_ids[row]
        return ids.ravel()
