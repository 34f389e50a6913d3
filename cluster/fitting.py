"""Whether a job fits into its chips' memories; if not, what takes the room and the smallest changes that would fit.

Nothing is loaded and nothing runs: every change is planned (`workloads.decode.plan_rank`) as the run itself would be.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from attrs import evolve

from cluster.memory import Memory, tier_capacity_bytes
from configs.dtypes import DTYPES
from configs.errors import CapacityError, ConfigError
from configs.spec.chip import ChipSpec
from configs.units import format_size
from workloads.decode import DecodeJob, check_job, plan_rank
from workloads.layout import Layout, split_evenly

T = TypeVar("T")

MOST_DEGREES = 64  # tried of each axis
MORE_TIMES = (2, 4, 8, 16)
MOST_KINDS = 8  # lines of the table
_LAYER = re.compile(r"^layers\.\d+\.")
_EXPERT = re.compile(r"\.\d+\.")


class Held(NamedTuple):
    """What a chip holds in a memory tier of one sort of tensor, over all layers."""

    chip: int
    tier: str
    capacity_bytes: int
    role: str
    tensor: str
    size_bytes: int


def fullest_chip(chips: Sequence[ChipSpec], job: DecodeJob) -> Mapping[str, Any]:
    """Return the accounts of the fullest chip; raise CapacityError if some chip's shards do not fit.

    chips: those of the whole system, by rank; a change may use them all.
    """
    memories = {ranks[0]: _memory(chips[ranks[0]], job, ranks[0]) for ranks in _sorts(chips, job)}
    full = [rank for rank, memory in memories.items() if any(share > 1 for share in _shares(memory).values())]
    if full:
        rank = max(full, key=lambda rank: (max(_shares(memories[rank]).values()), -rank))
        raise CapacityError((_refusal(chips, job, rank, memories[rank]),))
    rank = max(memories, key=lambda rank: (_shares(memories[rank]).get(len(chips[rank].memory) - 1, 0.0), -rank))
    chip, memory = chips[rank], memories[rank]
    roles = memory.by_role()
    tiers = [
        {"name": chip.memory[tier].name, "used_bytes": memory.used_bytes(tier),
         "capacity_bytes": tier_capacity_bytes(chip, tier)}
        for tier in _shares(memory)
    ]  # fmt: skip
    return {
        "chip": rank,
        "weights_bytes": roles.get("weights", 0),
        "kv_bytes": roles.get("kv", 0),
        "capacity_bytes": tier_capacity_bytes(chip, len(chip.memory) - 1),
        "tiers": tiers,
    }


def _sorts(chips: Sequence[ChipSpec], job: DecodeJob) -> list[list[int]]:
    """Return the ranks of every sort of ranks that hold the same."""
    found: dict[object, list[int]] = {}
    n_experts = getattr(job.shape, "n_experts", 0) + job.layout.redundant_experts
    held = [len(share) for share in split_evenly(n_experts, job.layout.ep)]
    for rank in job.layout.ranks:
        place, chip = job.layout.place(rank), chips[rank]
        n_rows = len(job.rows(job.layout.replica(place)))
        found.setdefault((evolve(place, dp=0, ep=0), held[place.ep], n_rows, chip.name), []).append(rank)
    return list(found.values())


def held_by_chips(chips: Sequence[ChipSpec], job: DecodeJob) -> list[Held]:
    """Return what every chip in use holds, by tier, role and sort of tensor; chip by chip, the largest first."""
    rows = []
    for ranks in _sorts(chips, job):
        memory = _memory(chips[ranks[0]], job, ranks[0])
        sizes: dict[tuple[int, str, str], int] = defaultdict(int)
        for placed in memory.placed:
            sizes[placed.tier, placed.role, _sort_of(placed.name)] += placed.size_bytes
        held = [
            Held(0, memory.chip.memory[tier].name, tier_capacity_bytes(memory.chip, tier), role, name, size_bytes)
            for (tier, role, name), size_bytes in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
        ]
        rows += [row._replace(chip=rank) for rank in ranks for row in held]
    return sorted(rows, key=lambda row: row.chip)


def _sort_of(name: str) -> str:
    """Return a tensor's name without the numbers of its layer and expert.

    >>> _sort_of("layers.3.experts.17.up")
    'experts.up'
    """
    return _EXPERT.sub(".", _LAYER.sub("", name))


def _memory(chip: ChipSpec, job: DecodeJob, rank: int) -> Memory:
    """Return what a rank will hold."""
    memory = Memory(chip, f"chip {rank}")
    for shard in plan_rank(job, rank):
        memory.reserve(shard.name, shard.size_bytes, job.tiers.of(shard.role), shard.role)
    return memory


def _shares(memory: Memory) -> dict[int, float]:
    """Return which fraction of each tier in use is full, by tier."""
    tiers = sorted({p.tier for p in memory.placed})
    return {tier: memory.used_bytes(tier) / tier_capacity_bytes(memory.chip, tier) for tier in tiers}


def fits(chips: Sequence[ChipSpec], job: DecodeJob) -> bool:
    """Return whether the job is possible and fits into the memories of the chips."""
    try:
        check_job(job)
    except ConfigError:
        return False
    # Lazily: the first that is too full decides.
    memories = (_memory(chips[ranks[0]], job, ranks[0]) for ranks in _sorts(chips, job))
    return all(share <= 1 for memory in memories for share in _shares(memory).values())


def _refusal(chips: Sequence[ChipSpec], job: DecodeJob, rank: int, memory: Memory) -> str:
    """Say what takes the room of the fullest chip, and what would fit."""
    shares = _shares(memory)
    tier = max(shares, key=lambda tier: shares[tier])
    home, capacity = memory.chip.memory[tier].name, tier_capacity_bytes(memory.chip, tier)
    used = memory.used_bytes(tier)
    lines = [
        f"chip {rank} ({memory.chip.name}): {format_size(used)} are needed, {home} holds {format_size(capacity)}",
        *_table(memory, tier),
    ]
    changes = list(smallest_changes(chips, job))
    lines.append("what would fit, one of:" if changes else f"no single change on {len(chips)} chips would fit")
    if not changes:
        lines += _first(_on_more_chips(chips, job))
    return "\n  ".join([*lines, *(f"  --set {change}" for change in changes)])


def _table(memory: Memory, tier: int) -> Iterator[str]:
    """Yield a line per sort of tensor, the largest first."""
    sizes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for placed in memory.placed:
        if placed.tier == tier:
            sizes[_sort_of(placed.name), placed.role].append(placed.size_bytes)
    rows = sorted(sizes.items(), key=lambda item: (-sum(item[1]), item[0]))
    for (name, role), parts in rows[:MOST_KINDS]:
        yield f"  {name:<18} {role:<8} {len(parts):>5} × {format_size(max(parts)):>9} = {format_size(sum(parts)):>9}"
    rest = sum(sum(parts) for _, parts in rows[MOST_KINDS:])
    if rest:
        yield f"  {'all others':<18} {'':<8} {'':>5}   {'':>9} = {format_size(rest):>9}"


def smallest_changes(chips: Sequence[ChipSpec], job: DecodeJob) -> Iterator[str]:
    """Yield, of every sort of change by itself, the smallest that would fit, as `key=value`.

    Number formats are those that the chip has a rate for, the widest first.
    """
    yield from _degrees(chips, job)
    rated = [name for name, dtype in DTYPES.items() if set(dtype.rates) & set(chips[0].peak_flops)]
    for key in ("weights", "kv"):
        now = DTYPES[getattr(job.dtype, key)].bits
        narrower = sorted((name for name in rated if DTYPES[name].bits < now), key=lambda name: -DTYPES[name].bits)
        fitting = (name for name in narrower if fits(chips, evolve(job, dtype=evolve(job.dtype, **{key: name}))))
        yield from (f"dtype.{key}={name}" for name in _first(fitting))
    n_rows, most = len(job.prompt_lengths), max(job.prompt_lengths)
    batch = _largest(n_rows - 1, lambda n: fits(chips, _with_lengths(job, job.prompt_lengths[:n])))
    if batch:
        yield f"workload.batch={batch}"
    new_tokens = _largest(job.new_tokens - 1, lambda n: fits(chips, evolve(job, new_tokens=n)))
    if new_tokens:
        yield f"workload.new_tokens={new_tokens}"
    else:
        shorter = _largest(most - 1, lambda n: fits(chips, _with_lengths(job, [min(n, p) for p in job.prompt_lengths])))
        if shorter:
            yield f"workload.prompt_tokens={shorter}"


def _degrees(chips: Sequence[ChipSpec], job: DecodeJob) -> Iterator[str]:
    """Yield the smallest multiple of each degree that fits; of two together where none does alone."""
    layout, found, n_chips = job.layout, False, len(chips)
    for axis in ("tp", "pp", "ep", "cp"):
        now = getattr(layout, axis)
        degrees = range(2 * now, n_chips * now // layout.n_ranks + 1, now)[:MOST_DEGREES]
        fitting = (n for n in degrees if fits(chips, evolve(job, layout=_with_degree(layout, axis, n))))
        for degree in _first(fitting):
            found = True
            yield f"parallel.{axis}={degree}"
    if not found:
        shapes = ((tp, pp) for tp in range(1, n_chips + 1) for pp in range(1, n_chips // tp + 1))
        larger = [
            (layout.n_ranks * tp * pp, tp, pp)
            for tp, pp in shapes
            if tp * pp * layout.n_ranks <= n_chips and tp > 1 < pp
        ]
        both = (
            (tp * layout.tp, pp * layout.pp)
            for _, tp, pp in sorted(larger)[:MOST_DEGREES]
            if fits(chips, evolve(job, layout=evolve(layout, tp=tp * layout.tp, pp=pp * layout.pp, chips=())))
        )
        yield from (f"parallel.tp={tp} --set parallel.pp={pp}" for tp, pp in _first(both))


def _on_more_chips(chips: Sequence[ChipSpec], job: DecodeJob) -> Iterator[str]:
    """Yield what would fit on twice as many chips of the same sorts, four times as many, and so on."""
    for times in MORE_TIMES:
        for axis in ("tp", "pp", "ep"):
            degree = len(chips) * times * getattr(job.layout, axis) // job.layout.n_ranks
            if fits((*chips,) * times, evolve(job, layout=_with_degree(job.layout, axis, degree))):
                yield f"on {times * len(chips)} such chips: --set parallel.{axis}={degree}"


def _with_degree(layout: Layout, axis: str, degree: int) -> Layout:
    changes: dict[str, Any] = {axis: degree, "chips": ()}
    return evolve(layout, **changes)


def _with_lengths(job: DecodeJob, lengths: Sequence[int]) -> DecodeJob:
    return evolve(job, prompt_lengths=tuple(lengths), prompt_ids=None)


def _first(found: Iterator[T]) -> Iterator[T]:
    """Yield only the first item, if there is one."""
    return islice(found, 1)


def _largest(most: int, good: Callable[[int], bool]) -> int:
    """Return the largest n from 1 to `most` that is good, where all below a good one are; 0 for none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if good(middle) else (low, middle - 1)
    return low
