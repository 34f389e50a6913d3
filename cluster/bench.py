"""Time and check one collective over a range of sizes, in the terms of nccl-tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cluster.backends.base import Setting
from cluster.prediction import first_call, predict_ps
from cluster.session import BackendName, Cluster, launch
from collectives import ALGORITHMS, OPERATIONS, Detail, GroupView, build, cut, msccl, read_files, select
from configs.errors import ConfigError
from configs.problems import unknown
from configs.rules import is_algorithm_file
from configs.spec import Numerics, SystemSpec
from configs.units import format_size
from topology import Topology, build_topology
from workloads.array import Array, ShapeArray
from workloads.chip import Chip

FP32 = np.dtype(np.float32)
MOST_RANKS = 2048
COPIES = 3  # input, result, and what is under way
DEFAULT_SIZES_BYTES = tuple(4**k * 1024 for k in range(9))


@frozen
class Row:
    """One measurement; sizes and bandwidths mean what nccl-tests mean, `wrong` counts elements (None without data)."""

    op: str
    algorithm: str
    n_ranks: int
    size_bytes: int
    time_s: float
    algbw_bytes_per_s: float
    busbw_bytes_per_s: float
    wrong: int | None


def bench(
    system: SystemSpec,
    op: str,
    *,
    algorithm: str = "auto",
    n_ranks: int | None = None,
    sizes_bytes: Sequence[int] = DEFAULT_SIZES_BYTES,
    numerics: Numerics = "real",
    backend: BackendName = "local",
    chips_per_actor: int = 1,
) -> Iterator[Row]:
    """Yield a row per size (and per algorithm, for `all`) of an operation among the first `n_ranks` chips.

    Sizes are rounded down to whole float32 elements that divide among the ranks where the operation needs it.
    Raises ConfigError for an unknown operation or algorithm, or one that does not fit the system.
    """
    topology = build_topology(system)
    n = topology.n_chips if n_ranks is None else n_ranks
    names = _algorithms(op, algorithm, topology, n, numerics)
    _check_memory(sizes_bytes, n, numerics)
    if numerics == "shapes":
        yield from _predicted(system, topology, op, names, n, sizes_bytes)
        return
    for name in names:
        with launch(system, backend=backend, n_chips=n, numerics=numerics, collectives={op: name},
                    chips_per_actor=chips_per_actor) as cluster:  # fmt: skip
            for size_bytes in sizes_bytes:
                yield measure(cluster, op, name, size_bytes)


def _predicted(
    system: SystemSpec, topology: Topology, op: str, names: Sequence[str], n: int, sizes_bytes: Sequence[int]
) -> Iterator[Row]:
    """Yield the rows of a bench without data: one call on an idle machine each, wherever the chips would live."""
    for name in names:
        setting = Setting(system, n, "shapes", {op: name}, read_files({op: name}))
        for size_bytes in sizes_bytes:
            n_elements = _elements(op, n, size_bytes)
            call = first_call(setting, _program, (op, n_elements))
            time_ps = predict_ps(system, topology, call, files=setting.files)
            yield _row(op, name, n, n_elements, time_ps * 1e-12, None)


def export(system: SystemSpec, op: str, algorithm: str, n_ranks: int | None, path: Path) -> None:
    """Write an algorithm's schedule among the first `n_ranks` chips as MSCCL XML.

    Raises ConfigError for more than one algorithm, or one that does not fit, or a file that cannot be written.
    """
    topology = build_topology(system)
    n = topology.n_chips if n_ranks is None else n_ranks
    if algorithm == "all":
        raise ConfigError(("--export: one algorithm can be written; accepted: --algorithm with its name",))
    [name] = _algorithms(op, algorithm, topology, n, "real")
    msccl.write(build(op, name, GroupView(topology, tuple(range(n))), 0, read_files({op: name})), path)


def _algorithms(op: str, algorithm: str, topology: Topology, n: int, numerics: Numerics) -> list[str]:
    """Return the algorithms to run; raise ConfigError with all that is wrong."""
    problems = []
    if op not in OPERATIONS:
        raise ConfigError((f"--op: {unknown(op, 'an operation', OPERATIONS)}",))
    names = list(ALGORITHMS[op])
    if algorithm not in (*names, "auto", "all") and not is_algorithm_file(algorithm):
        problems.append(f"--algorithm: {unknown(algorithm, f'an algorithm of {op}', [*names, 'auto', 'all'])}")
    if topology.n_chips < 2:
        problems.append("--ranks: this system has one chip; accepted: a system of at least 2")
    elif not 2 <= n <= topology.n_chips:
        problems.append(f"--ranks: {n}; accepted: 2 to {topology.n_chips}, the chips of this system")
    elif n > MOST_RANKS and (numerics == "real" or algorithm == "all"):
        problems.append(f"--ranks: {n}; accepted: 2 to {MOST_RANKS}, or --numerics shapes and one algorithm")
    if problems:
        raise ConfigError(tuple(problems))
    group = GroupView(topology, tuple(range(n)))
    chosen = names if algorithm == "all" else [select(op, algorithm)]
    files = read_files({op: algorithm})
    fitting: list[str] = []
    reasons: list[str] = []
    for name in chosen:
        try:
            schedule = build(op, name, group, DETAILS.get(op, 0), files)
            if n > MOST_RANKS and schedule.uniform(topology.dims) is None:
                reasons.append(f"--ranks: {n}; accepted for {op} {name} on this system: 2 to {MOST_RANKS}")
                continue
            fitting.append(name)
        except ConfigError as error:
            reasons += error.problems
    if not fitting:
        raise ConfigError(tuple(reasons))
    return fitting


def _check_memory(sizes_bytes: Sequence[int], n: int, numerics: Numerics) -> None:
    """Refuse sizes whose data do not fit this machine: input, result and messages of every rank."""
    need_bytes = COPIES * n * max(sizes_bytes, default=0)
    have_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if numerics == "real" and need_bytes > have_bytes:
        need, have = format_size(need_bytes), format_size(have_bytes)
        limit = f"need about {need}, this machine has {have}; accepted: smaller sizes, or --numerics shapes"
        raise ConfigError((f"--sizes: {format_size(max(sizes_bytes))} on {n} ranks {limit}",))


def measure(cluster: Cluster, op: str, algorithm: str, size_bytes: int) -> Row:
    """Run one collective and return its row."""
    n = cluster.n_chips
    n_elements = _elements(op, n, size_bytes)
    result = cluster.run(_program, op, n_elements)
    wrong = None if any(w is None for w in result.values) else sum(result.values)
    return _row(op, algorithm, n, n_elements, result.time_s, wrong)


def _row(op: str, algorithm: str, n: int, n_elements: int, time_s: float, wrong: int | None) -> Row:
    size_bytes = n_elements * FP32.itemsize
    if time_s <= 0:
        raise ConfigError((f"--sizes: {size_bytes} B take less than a picosecond on these links; accepted: larger",))
    algbw = size_bytes / time_s
    return Row(op, algorithm, n, size_bytes, time_s, algbw, algbw * OPERATIONS[op].busbw_factor(n), wrong)


def _elements(op: str, n: int, size_bytes: int) -> int:
    """Return the elements of the buffer that the size speaks of: a multiple of the ranks where parts must be equal."""
    n_elements = size_bytes // FP32.itemsize
    if op == "barrier":
        return 0
    parted = OPERATIONS[op].parts != "one" and op != "permute"
    if parted:
        n_elements -= n_elements % n
    if n_elements < 1:
        smallest = FP32.itemsize * (n if parted else 1)
        raise ConfigError((f"--sizes: {size_bytes} B; accepted: at least {smallest} B for {op} among {n} ranks",))
    return n_elements


async def _program(chip: Chip, op: str, n_elements: int) -> int | None:
    """Run the operation on known values; return how many elements of the result differ from the reference."""
    make, reference = CASES[op]
    count = n_elements // chip.n_chips if op in {"all_gather", "gather"} else n_elements
    x: Array = make(chip.rank, chip.n_chips, count) if chip.real else ShapeArray((count,), FP32)
    more = ARGUMENTS[op](chip.n_chips, n_elements) if op in ARGUMENTS else ()
    y = await (chip.barrier() if op == "barrier" else getattr(chip, op)(x, *more))
    if not chip.real:
        return None
    want = reference(chip.rank, chip.n_chips, n_elements)
    if y is None or want is None:
        return 0 if y is want else n_elements
    return int(np.count_nonzero(y != want))


Values = NDArray[np.float32]


def _pattern(rank: int, n_elements: int, begin: int = 0) -> Values:
    """Return small whole numbers that tell ranks and places (from `begin`) apart; their sums are exact in float32."""
    period = (((begin + np.arange(251)) * 7 + rank * 13) % 251).astype(np.float32)
    return np.resize(period, n_elements)


@lru_cache(maxsize=1)  # the same for all ranks
def _pattern_sum(n: int, n_elements: int) -> Values:
    total = np.zeros(n_elements, np.float32)
    for rank in range(n):
        total += _pattern(rank, n_elements)
    return total


@lru_cache(maxsize=1)
def _all_patterns(n: int, n_elements: int) -> Values:
    return np.concatenate([_pattern(rank, n_elements) for rank in range(n)])


def _own_rows(rank: int, n: int, n_elements: int) -> Values:
    sizes = cut(n_elements, n)
    begin = sum(sizes[:rank])
    return _pattern_sum(n, n_elements)[begin : begin + sizes[rank]]


def _received(rank: int, n: int, n_elements: int) -> Values:
    m = n_elements // n
    return np.concatenate([_pattern(src, m, rank * m) for src in range(n)])


def _input(rank: int, _n: int, n_elements: int) -> Values:
    return _pattern(rank, n_elements)


def _uneven_rows(n: int, n_elements: int) -> tuple[tuple[int, ...], ...]:
    """Return the rows of an all_to_all_v: half more or less than even, and as many to as from each rank."""
    m = n_elements // n
    swing = [0 if n % 2 and k == 0 else m // 2 * (-1) ** k for k in range(n)]
    return tuple(tuple(m + swing[(i + j) % n] for j in range(n)) for i in range(n))


def _received_uneven(rank: int, n: int, n_elements: int) -> Values:
    rows = _uneven_rows(n, n_elements)
    return np.concatenate([_pattern(src, rows[src][rank], sum(rows[src][:rank])) for src in range(n)])


def _all_parts(_rank: int, n: int, n_elements: int) -> Values:
    return np.concatenate([_pattern(r, n_elements // n) for r in range(n)])


def _at_root(reference: Reference) -> Reference:
    return lambda rank, n, n_elements: reference(rank, n, n_elements) if rank == 0 else None


Reference = Callable[[int, int, int], Values | None]
CASES: dict[str, tuple[Callable[[int, int, int], Values], Reference]] = {
    "all_gather": (_input, _all_parts),
    "reduce_scatter": (_input, _own_rows),
    "all_reduce": (_input, lambda _r, n, e: _pattern_sum(n, e)),
    "all_to_all": (_input, _received),
    "all_to_all_v": (_input, _received_uneven),
    "broadcast": (_input, lambda _r, _n, e: _pattern(0, e)),
    "reduce": (_input, _at_root(lambda _r, n, e: _pattern_sum(n, e))),
    "gather": (_input, _at_root(_all_parts)),
    "scatter": (_input, lambda r, n, e: _pattern(0, e // n, r * (e // n))),
    "permute": (_input, lambda r, n, e: _pattern((r - 1) % n, e)),
    "barrier": (_input, lambda _r, _n, _e: None),
}
"""Per operation: a rank's input, and what it must end with (computed without any collective)."""
ARGUMENTS: dict[str, Callable[[int, int], tuple[Any, ...]]] = {
    "permute": lambda n, _e: (tuple((rank, (rank + 1) % n) for rank in range(n)),),
    "all_to_all_v": lambda n, e: (_uneven_rows(n, e),),
}
"""What some operations take besides their input."""
DETAILS: dict[str, Detail] = {"permute": ()}
"""With what an operation's algorithms are tried out, where that is no root."""
