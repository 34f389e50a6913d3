"""Run an experiment: from its spec to tokens, times and accounts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from attrs import asdict, evolve, frozen
from numpy.typing import NDArray

from cluster.beyond import notes_beyond
from cluster.checkpoints import OnRestart, Restart
from cluster.collector import Collector, OnToken
from cluster.comparison import LogitError, against_fp32
from cluster.energy import Cost, Energy, Span, cost_of, energy_of
from cluster.fitting import fullest_chip
from cluster.placing import place
from cluster.serving import host_ps, served
from cluster.session import BackendName, RunResult, launch
from cluster.uncertainty import band_of
from configs.dtypes import DTYPES
from configs.errors import ConfigError
from configs.plain import fingerprint, to_plain
from configs.rules import check_experiment
from configs.spec.chip import ChipSpec
from configs.spec.experiment import ExperimentSpec
from configs.spec.software import SoftwareSpec
from topology import build_topology, chips_of, ideal, refuse_cut_off
from topology.kinds.ocs import Ocs
from workloads.decode import DecodeJob, check_job, decode
from workloads.folder_tokenizer import open_tokenizer
from workloads.layout import Layout
from workloads.roles import DecodeRoles
from workloads.tokenizer import Tokenizer
from workloads.weights import locate_weights

if TYPE_CHECKING:
    from cluster.timeline import Timeline

SCHEMA = "chipmesh.run.v1"
LINKS_SCHEMA = "chipmesh.links.v1"
TRACE_SCHEMA = "chipmesh.trace.v1"


@frozen(eq=False)
class Times:
    """What a user of the machine sees.

    ttft_s: until the first token of the slowest row.  tpot_s: mean time of each further token (None if there is none).
    tokens_per_s: the rate of all rows together after their first token (of the whole run if tpot_s is None).
    """

    ttft_s: float
    tpot_s: float | None
    total_s: float
    tokens_per_s: float
    tokens_per_s_per_user: float


@frozen(eq=False)
class ExperimentResult:
    """What a run gives; `to_json` is the document of `chipmesh run --json`."""

    spec: ExperimentSpec
    n_chips: int
    prompt_ids: tuple[tuple[int, ...], ...] | None
    output_ids: tuple[tuple[int, ...], ...] | None
    text: tuple[str, ...] | None
    times: Times
    timeline: Timeline
    memory: Mapping[str, Any]
    energy: Energy
    cost: Cost
    job: DecodeJob
    notes: tuple[str, ...]
    setup_s: float
    run_s: float
    logits: NDArray[np.float32] | None = None
    error: LogitError | None = None
    chips: tuple[int, ...] = ()
    """The chip of every rank of the layout."""
    restarts: tuple[Restart, ...] = ()
    """What was lost on the way, and from where the run went on."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON document (design section 7)."""
        return {
            "schema": SCHEMA,
            "fingerprint": fingerprint(self.spec),
            "spec": to_plain(self.spec),
            "system": {"name": self.spec.system.name, "n_chips": self.n_chips,
                       "n_chips_used": self.spec.parallel.n_ranks, "chips": self.chips},
            "tokens": {"prompt_ids": self.prompt_ids, "output_ids": self.output_ids, "text": self.text},
            "time": asdict(self.times),
            "uncertainty": None if (band := band_of(self.spec.system, self.spec.software)) is None else band.to_json(),
            "energy": _without_notes(self.energy),
            "cost": _without_notes(self.cost),
            "breakdown": self.timeline.breakdown._asdict(),
            "operations": [asdict(operation) for operation in self.timeline.operations],
            "memory": dict(self.memory),
            "links": [link._asdict() for link in self.timeline.busiest_links(10)],
            "timeline_sha256": self.timeline.sha256(),
            "error_against_fp32": None if self.error is None else asdict(self.error),
            "notes": self.notes,
            "restarts": [asdict(restart) for restart in self.restarts],
            "wall": {"setup_s": self.setup_s, "run_s": self.run_s},
        }  # fmt: skip

    def about(self) -> dict[str, Any]:
        """Return what a file that is made of the result says of its origin; the same for the same spec."""
        spec = self.spec
        return {
            "schema": TRACE_SCHEMA,
            "system": spec.system.name,
            "model": spec.model.name,
            "fingerprint": fingerprint(spec),
            "timeline_sha256": self.timeline.sha256(),
            "time": "simulated, in microseconds",
        }

    def links_json(self) -> dict[str, Any]:
        """Return the utilisation of every link that the run has used, the busiest first."""
        links = self.timeline.busiest_links(len(self.timeline.links))
        return {"schema": LINKS_SCHEMA, "links": [link._asdict() for link in links]}


def _without_notes(account: Energy | Cost) -> dict[str, Any]:
    return asdict(account, filter=lambda attribute, _value: attribute.name != "notes")


def cut(ids: tuple[int, ...], stop_ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return ids up to the first stop token, included.

    >>> cut((5, 2, 7, 2), (7, 2)), cut((5, 6), (7,))
    ((5, 2), (5, 6))
    """
    return next((ids[: i + 1] for i, token in enumerate(ids) if token in stop_ids), ids)


def _text(tokenizer: Tokenizer, ids: tuple[int, ...], stop_ids: tuple[int, ...]) -> str:
    """Return the text of cut ids, without their stop token."""
    return tokenizer.decode(ids[:-1] if ids[-1] in stop_ids else ids)


def run_experiment(
    spec: ExperimentSpec,
    *,
    backend: BackendName = "local",
    address: str | None = None,
    chips_per_actor: int | None = None,
    keep_logits: bool = False,
    compare_fp32: bool = False,
    on_token: OnToken = lambda _row, _step, _text: None,
    on_status: Callable[[str], None] = lambda _text: None,
    on_restart: OnRestart = lambda _restart: None,
) -> ExperimentResult:
    """Run an experiment and return its result; `compare_fp32` decodes once more, in fp32 on one chip.

    Raises ConfigError, before anything runs, for what cannot work; RunError if the run fails.
    """
    began = time.perf_counter()
    topology = build_topology(spec.system)
    check_experiment(spec, topology.n_chips)
    chips = chips_of(spec.system, topology)
    if compare_fp32 and spec.numerics == "shapes":
        raise ConfigError(("--compare-fp32: numerics is 'shapes', which computes no values; accepted: numerics=real",))
    job, tokenizer = prepare(spec, keep_logits=keep_logits or compare_fp32)
    memory = fullest_chip(chips, job)
    placed = place(spec.placement, topology, job, lambda trial: _trial_s(spec, trial))
    if placed is not job:
        job, memory = placed, fullest_chip(chips, placed)
    used = np.array(job.layout.ranks)
    refuse_cut_off(topology, np.full_like(used, used[0]), used)
    on_status(f"starting {job.layout.n_ranks} chips ({backend})")
    with launch(
        served(spec.system, spec.software, job.layout.n_ranks), backend=backend, n_chips=max(job.layout.ranks) + 1,
        numerics=spec.numerics,
        contention=spec.contention, collectives=spec.collectives, address=address, chips_per_actor=chips_per_actor,
        on_failure=spec.on_failure, checkpoint_every=spec.checkpoint_every,
        groups=_tensor_groups(job.layout), chip_bytes=_host_bytes(spec, memory), on_status=on_status,
    ) as cluster:  # fmt: skip
        on_status("loading the shards" if spec.numerics == "real" else "running without data")
        collector = Collector(job, tokenizer, on_token, began, stop_ids=spec.workload.stop_ids)
        result = cluster.run(decode, job, on_emit=collector, on_restart=on_restart, roles=DecodeRoles(job))
        run_s = time.perf_counter() - began - collector.ready_s
    real = spec.numerics == "real"
    output_ids = collector.output_ids() if real else None
    logits = collector.all_logits() if job.keep_logits else None
    error = None
    if compare_fp32 and output_ids is not None and logits is not None:
        on_status("decoding again in fp32")
        error = against_fp32(job, output_ids, logits)
    stop_ids = spec.workload.stop_ids
    shown = tuple(cut(ids, stop_ids) for ids in output_ids) if output_ids else None
    times, in_use = _times(job, result), [chips[rank] for rank in job.layout.ranks]
    energy = energy_of(result.timeline, chips, _spans(job, result))
    beyond = notes_beyond(spec.system.name, spec.system.communication, topology, result.timeline.records)
    cost = cost_of(spec.cost, energy, in_use, times.tokens_per_s)
    return ExperimentResult(
        spec, topology.n_chips, job.prompt_ids, shown,
        tuple(_text(tokenizer, ids, stop_ids) for ids in shown) if tokenizer and shown else None,
        times, result.timeline, memory, energy, cost, job,
        (*_notes(spec, in_use), *beyond, *job.shape.remarks(job.layout), *energy.notes, *cost.notes),
        collector.ready_s, run_s,
        logits if keep_logits else None, error, job.layout.ranks, result.restarts,
    )  # fmt: skip


def _tensor_groups(layout: Layout) -> list[tuple[int, ...]]:
    """Return the chips of every tensor-parallel group, which talk most, in the order of the pipeline."""
    return [tuple(layout.ranks[i : i + layout.tp]) for i in range(0, layout.n_ranks, layout.tp)]


def _host_bytes(spec: ExperimentSpec, memory: Mapping[str, Any]) -> int:
    """Return what the fullest chip's shards take in this process or an actor: fp32, whatever the modelled format."""
    if spec.numerics == "shapes":
        return 0
    parts = ((memory["weights_bytes"], spec.dtype.weights), (memory["kv_bytes"], spec.dtype.kv))
    return sum(int(size_bytes * 32 / DTYPES[dtype].bits) for size_bytes, dtype in parts)


def _trial_s(spec: ExperimentSpec, job: DecodeJob) -> float:
    """Return the simulated time of a job, played without data."""
    with launch(
        served(spec.system, spec.software, job.layout.n_ranks), n_chips=max(job.layout.ranks) + 1, numerics="shapes",
        contention=spec.contention, collectives=spec.collectives,
    ) as cluster:  # fmt: skip
        return cluster.run(decode, job).time_s


def prepare(spec: ExperimentSpec, *, keep_logits: bool = False) -> tuple[DecodeJob, Tokenizer | None]:
    """Return the job that the chips are told and the model's tokenizer, if it has one and text is in play."""
    workload, problems = spec.workload, []
    if keep_logits and spec.numerics == "shapes":
        problems.append("--save-logits: numerics is 'shapes', which computes no values; accepted: numerics=real")
    if spec.numerics == "real" and spec.model.weights is None:
        problems.append(
            f"model {spec.model.name}: the catalogue has its shape and no weights; accepted: numerics=shapes, "
            "or a model given by the path of its weights"
        )
    if workload.prompt is not None and spec.model.weights is None:
        problems.append(
            f"workload.prompt: model {spec.model.name} has no tokenizer here; accepted: prompt_tokens or prompt_ids"
        )
    vocab = spec.model.shape.vocab
    problems += [
        f"workload.stop_ids[{i}]: {token} is not a token id; accepted: 0 to {vocab - 1}"
        for i, token in enumerate(workload.stop_ids)
        if token >= vocab
    ]
    if problems:
        raise ConfigError(tuple(problems))
    tokenizer = _tokenizer(spec)
    ids = workload.prompt_ids
    if workload.prompt is not None:
        assert tokenizer is not None
        ids = (tokenizer.encode(workload.prompt, chat=workload.chat),) * workload.batch
    lengths = tuple(map(len, ids)) if ids else (workload.prompt_tokens or 0,) * workload.batch
    p = spec.parallel
    layout = Layout(p.tp, p.pp, p.dp, p.ep, spec.experts.redundant, p.cp, p.sequence, p.tp_grid, p.tp_attention)
    job = DecodeJob(spec.model, layout, spec.dtype, lengths, workload.new_tokens, ids, keep_logits, spec.n_parts,
                    spec.seed, spec.experts.skew, _stops(spec), workload.sampling, spec.tiers,
                    *host_ps(spec.software, layout.n_replicas))  # fmt: skip
    check_job(job)
    if ids is None and spec.numerics == "real":  # after the check: the length may be absurd
        draw = np.random.default_rng(spec.seed).integers(0, spec.model.shape.vocab, job.prompt_lengths[0])
        job = evolve(job, prompt_ids=(tuple(draw.tolist()),) * workload.batch)
    return job, tokenizer


def _stops(spec: ExperimentSpec) -> tuple[tuple[int, int], ...]:
    """Return after how many tokens a cube of the superpod fails, and for how long all chips then stop."""
    return spec.system.topology.stops() if isinstance(spec.system.topology, Ocs) else ()


def _tokenizer(spec: ExperimentSpec) -> Tokenizer | None:
    """Return the tokenizer of the model's file if there is text to read or to show; only a prompt must have one."""
    if spec.model.weights is None or (spec.workload.prompt is None and spec.numerics == "shapes"):
        return None
    path = locate_weights(spec.model.weights)
    try:
        return open_tokenizer(path)
    except ConfigError:
        if spec.workload.prompt is not None:
            raise
        return None


def _times(job: DecodeJob, result: RunResult) -> Times:
    """Work out TTFT, TPOT and rates from the moments at which the replicas' last stages had their tokens."""
    last, layout, moments_ps = job.new_tokens - 1, job.layout, _moments_ps(job, result)
    first_s: list[float] = []
    steps_s: list[float] = []
    for replica in range(layout.n_replicas):
        begin_s, end_s = moments_ps[replica, 0] * 1e-12, moments_ps[replica, last] * 1e-12
        for _ in job.rows(replica):
            first_s.append(begin_s)
            steps_s.append((end_s - begin_s) / max(last, 1))
    total_s, n_rows = result.time_s, len(first_s)
    if last == 0:
        return Times(max(first_s), None, total_s, n_rows / total_s, 1 / total_s)
    tpot_s = sum(steps_s) / n_rows
    return Times(max(first_s), tpot_s, total_s, sum(1 / s for s in steps_s), 1 / tpot_s)


def idealised(spec: ExperimentSpec) -> ExperimentSpec:
    """Return an experiment without overheads of libraries, kernels and serving software."""
    return evolve(spec, system=ideal(spec.system), software=SoftwareSpec())


def _moments_ps(job: DecodeJob, result: RunResult) -> dict[tuple[int, int], int]:
    """Return when a replica's last stage had its tokens, by (replica, step)."""
    timeline, layout = result.timeline, job.layout
    return {
        (layout.replica(layout.place(event.chip)), index): event.end_ps
        for event, index in zip(timeline.marks, timeline.mark_index, strict=True)
        if event.operation == "tokens"
    }


def _spans(job: DecodeJob, result: RunResult) -> list[Span]:
    """Return from when to when every replica generates the tokens of `tokens_per_s`."""
    layout, last, moments_ps = job.layout, job.new_tokens - 1, _moments_ps(job, result)
    ranks: dict[int, list[int]] = {}
    for rank in layout.ranks:
        ranks.setdefault(layout.replica(layout.place(rank)), []).append(rank)
    return [
        Span(tuple(own), moments_ps[replica, 0] if last else 0,
             moments_ps[replica, last] if last else result.timeline.total_ps, max(last, 1) * len(job.rows(replica)))
        for replica, own in sorted(ranks.items()) if job.rows(replica)
    ]  # fmt: skip


def _notes(spec: ExperimentSpec, chips: Sequence[ChipSpec]) -> tuple[str, ...]:
    """Say what the figures leave out."""
    notes = []
    for chip in {chip.name: chip for chip in chips}.values():
        notes += [
            f"{chip.name}: the bandwidth of {tier.name} is unknown; traffic to it is not charged; "
            f"give it with --set system.chip.memory[{i}].bandwidth=…GB/s"
            for i, tier in enumerate(chip.memory)
            if tier.bandwidth_bytes_per_s is None
        ]
        if chip.kernel_launch_ps == 0 and not chip.kernels.kinds:
            notes.append(f"{chip.name}: no launch time per kernel is known; none is charged")
    if spec.workload.stop_ids:
        notes.append(
            "stop_ids cut ids and text; every row runs on to new_tokens, and times and rates count all of them"
        )
    if spec.system.communication == type(spec.system.communication)():
        notes.append(f"{spec.system.name}: communication is ideal; the library's overheads are not charged")
    if _stops(spec):
        notes.append(f"{spec.system.name}: rewiring is charged for failed cubes; bringing back their state is not")
    return tuple(notes)
