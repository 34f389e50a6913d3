"""Time and check collectives over a range of sizes, in the terms of nccl-tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from attrs import field, frozen

from cluster.backends.base import Setting
from cluster.bench_cases import NUMBER_FORMATS, Case
from cluster.prediction import first_call, predict_ps, predict_quickly_ps, predict_together_ps
from cluster.records import Collective
from cluster.selection import Chooser, tried_for
from cluster.session import BackendName, Cluster, SystemSource, launch, system_of
from collectives import NO_FILES, OFFERED, OPERATIONS, REDUCTIONS, GroupView, Schedule, build, msccl, read_files
from configs.algorithm_names import AUTO, algorithm_problem
from configs.errors import ConfigError
from configs.problems import unknown
from configs.spec.experiment import Contention, Numerics
from configs.spec.system import SystemSpec
from configs.units import format_size
from topology import Topology, build_topology
from topology.graph import axis_names
from workloads.array import Array, ShapeArray
from workloads.chip import Chip

ALL = "all"
MOST_RANKS = 2048
COPIES = 3  # input, result, and what is under way
DEFAULT_SIZES_BYTES = tuple(4**k * 1024 for k in range(9))
Groups = tuple[tuple[int, ...], ...]


@frozen
class Row:
    """One measurement; sizes and bandwidths mean what nccl-tests mean, `wrong` counts elements (None without data).

    n_ranks: of a group; n_groups do the same at the same time, and `time_s` is when the last one is done.
    chosen: `auto` takes this algorithm for the size (None if that was not asked).
    """

    op: str
    algorithm: str
    n_ranks: int
    size_bytes: int
    time_s: float
    algbw_bytes_per_s: float
    busbw_bytes_per_s: float
    wrong: int | None
    dtype: str = "fp32"
    reduction: str | None = None
    n_groups: int = 1
    chosen: bool | None = None


@frozen
class Bench:
    """What is to be measured, once it is known to be possible.

    groups: chips that take part, group by group; all groups begin at the same time.
    names: the algorithms that fit; AUTO alone is chosen for every size anew.
    """

    system: SystemSpec
    topology: Topology = field(repr=False)
    op: str
    names: tuple[str, ...]
    groups: Groups
    numerics: Numerics
    contention: Contention
    dtype: str
    reduction: str
    compare: bool
    files: Mapping[str, Schedule] = field(repr=False)

    def case(self, size_bytes: int) -> Case:
        """Return the case of a size: rounded down to whole elements, and equal parts where the operation has parts."""
        return Case(self.op, len(self.groups[0]), self._elements(size_bytes), self.dtype, self.reduction)

    def calls(self, case: Case) -> list[Collective]:
        """Return the calls of all groups; their algorithm is open."""
        setting = Setting(self.system, self.topology.n_chips, "shapes", self.contention)
        first = first_call(setting, self.groups[0][0], program, (self.groups, case))
        return [first._replace(ranks=ranks) for ranks in self.groups]

    def row(self, case: Case, algorithm: str, time_s: float, wrong: int | None, *, chosen: bool | None) -> Row:
        """Return the row of a measurement."""
        size_bytes = case.n_elements * case.format.itemsize
        if time_s <= 0 and size_bytes:  # a barrier over links without latency takes no time
            few = "take less than a picosecond on these links; accepted: larger"
            raise ConfigError((f"--sizes: {size_bytes} B {few}",))
        algbw, operation = size_bytes / time_s if size_bytes else 0.0, OPERATIONS[case.op]
        reduction = case.reduction if operation.reduces else None
        return Row(
            case.op, algorithm, case.n, size_bytes, time_s, algbw, algbw * operation.busbw_factor(case.n), wrong,
            case.dtype, reduction, len(self.groups), chosen,
        )  # fmt: skip

    def _elements(self, size_bytes: int) -> int:
        n, itemsize = len(self.groups[0]), NUMBER_FORMATS[self.dtype].itemsize
        n_elements = size_bytes // itemsize
        if self.op == "barrier":
            return 0
        parted = OPERATIONS[self.op].parts != "one" and self.op != "permute"
        if parted:
            n_elements -= n_elements % n
        if n_elements < 1:
            smallest = itemsize * (n if parted else 1)
            raise ConfigError(
                (f"--sizes: {size_bytes} B; accepted: at least {smallest} B for {self.op} among {n} ranks",)
            )
        return n_elements


def bench(
    system: SystemSource,
    op: str,
    *,
    algorithm: str = AUTO,
    n_ranks: int | None = None,
    ranks: Sequence[int] | None = None,
    axis: str | None = None,
    sizes_bytes: Sequence[int] = DEFAULT_SIZES_BYTES,
    dtype: str = "fp32",
    reduction: str = "sum",
    numerics: Numerics = "real",
    contention: Contention = "fluid",
    backend: BackendName = "local",
    address: str | None = None,
    chips_per_actor: int | None = None,
    overrides: Sequence[str] = (),
    on_misfit: Callable[[str], None] = lambda _reason: None,
) -> Iterator[Row]:
    """Yield a row per size (and per algorithm, for `all`) of an operation.

    On a system by name, path, mapping or spec; among all chips, the first `n_ranks`, these `ranks`, or all lines along
    an `axis` at once (blocks along several, as `x,y`). Sizes are rounded down to whole elements that divide among the
    ranks where the operation needs it; a barrier has one row, of no size. `on_misfit` is told why an algorithm of
    `all` is left out. Raises ConfigError for what is unknown or does not fit.

    >>> [row] = bench("dgx-h100", "all_gather", algorithm="ring", sizes_bytes=[8 << 20], numerics="shapes")
    >>> row.n_ranks, row.algorithm
    (8, 'ring')
    """
    system = system_of(system, overrides)
    topology = build_topology(system)
    groups = _groups(topology, n_ranks, ranks, axis)
    _check_words(op, algorithm, dtype, reduction)
    names, files = _fitting(op, algorithm, topology, groups, numerics, on_misfit)
    _check_memory(sizes_bytes, sum(map(len, groups)), numerics)
    asked = Bench(system, topology, op, names, groups, numerics, contention, dtype, reduction, algorithm == ALL, files)
    plan = list(_plan(asked, sizes_bytes))
    if numerics == "shapes":
        yield from (_predicted(asked, name, case, chosen) for name, case, chosen in plan)
        return
    for name, items in groupby(plan, key=lambda item: item[0]):
        with launch(
            system, backend=backend, n_chips=max(map(max, groups)) + 1, numerics=numerics, contention=contention,
            collectives={op: name}, address=address, chips_per_actor=chips_per_actor,
        ) as cluster:  # fmt: skip
            for _, case, chosen in items:
                time_s, wrong = measure(cluster, groups, case)
                yield asked.row(case, name, time_s, wrong, chosen=chosen)


def _plan(asked: Bench, sizes_bytes: Sequence[int]) -> Iterator[tuple[str, Case, bool | None]]:
    """Yield (algorithm, case, whether it is the chosen one): algorithm by algorithm, sizes within."""
    cases = [asked.case(size) for size in (sizes_bytes if asked.op != "barrier" else (0,))]
    if asked.names != (AUTO,) and not asked.compare:
        yield from ((name, case, None) for name in asked.names for case in cases)
        return
    choose = Chooser(asked.system, asked.contention)
    chosen = [choose(asked.calls(case)[0]) for case in cases]
    if asked.names == (AUTO,):
        for name in dict.fromkeys(chosen):
            _refuse_long(asked.op, name, asked.topology, asked.groups)
        yield from ((name, case, True) for name, case in zip(chosen, cases, strict=True))
        return
    for name in asked.names:
        yield from ((name, case, name == best) for best, case in zip(chosen, cases, strict=True))


def _predicted(asked: Bench, name: str, case: Case, chosen: bool | None) -> Row:
    """Return a row without data: the calls on an idle machine, wherever the chips would live."""
    first, *others = [call._replace(algorithm=name) for call in asked.calls(case)]
    if others:
        time_ps = predict_together_ps(
            asked.system, asked.topology, [first, *others], asked.contention, asked.files
        )  # fmt: skip
    elif len(first.ranks) > MOST_RANKS:
        quickly_ps = predict_quickly_ps(asked.system, asked.topology, first, asked.contention)
        if quickly_ps is None:
            size, n = format_size(case.n_elements * case.format.itemsize), len(first.ranks)
            raise ConfigError(
                (f"--sizes: {size} does not fall into equal chunks among {n} ranks; accepted: one that does",)
            )
        time_ps = quickly_ps
    else:
        time_ps = predict_ps(asked.system, asked.topology, first, asked.contention, asked.files)
    return asked.row(case, name, time_ps * 1e-12, None, chosen=chosen)


def measure(cluster: Cluster, groups: Groups, case: Case) -> tuple[float, int | None]:
    """Run one collective; return its simulated time, and how many elements are wrong."""
    result = cluster.run(program, groups, case)
    counts = [count for count in result.values if count is not None]
    return result.time_s, sum(counts) if counts else None


async def program(chip: Chip, groups: Groups, case: Case) -> int | None:
    """Run the operation on known values; return how many elements of the result differ from what must come out."""
    ranks = next((ranks for ranks in groups if chip.rank in ranks), None)
    if ranks is None:
        return None
    group, place = chip.group("bench", ranks), ranks.index(chip.rank)
    if case.op == "barrier":
        await chip.barrier(group=group)
        return 0 if chip.real else None
    x: Array = case.input(place) if chip.real else ShapeArray((case.n_input,), case.format)
    y = await getattr(chip, case.op)(x, *case.arguments, group=group, **case.more)
    if not chip.real:
        return None
    want = case.expected(place)
    if y is None or want is None:
        return 0 if y is want else case.n_elements
    return int(np.count_nonzero(y != want))


def export(system: SystemSpec, op: str, algorithm: str, n_ranks: int | None, path: Path) -> None:
    """Write an algorithm's schedule among the first `n_ranks` chips as MSCCL XML.

    Raises ConfigError for `all` and `auto`, one that does not fit, or a file that cannot be written.
    """
    if algorithm in {ALL, AUTO}:
        raise ConfigError(("--export: one algorithm can be written; accepted: --algorithm with its name",))
    topology = build_topology(system)
    groups = _groups(topology, n_ranks, None, None)
    _check_words(op, algorithm, "fp32", "sum")
    _, files = _fitting(op, algorithm, topology, groups, "real", lambda _reason: None)
    msccl.write(build(op, algorithm, GroupView(topology, groups[0]), 0, files), path)


def _groups(topology: Topology, n_ranks: int | None, ranks: Sequence[int] | None, axis: str | None) -> Groups:
    """Return the groups that are asked for."""
    n_chips = topology.n_chips
    if sum(given is not None for given in (n_ranks, ranks, axis)) > 1:
        raise ConfigError(("--ranks, --axis: both given; accepted: one of them",))
    if n_chips < 2:
        raise ConfigError(("--ranks: this system has one chip; accepted: a system of at least 2",))
    if axis is not None:
        no_axes = [name for name in axis_names(axis) if name not in topology.axes]
        if no_axes:
            raise ConfigError((f"--axis: {unknown(no_axes[0], 'an axis of this system', topology.axes)}",))
        lines = tuple(dict.fromkeys(topology.axis_ranks(rank, axis) for rank in range(n_chips)))
        lengths = sorted({len(line) for line in lines})
        if lengths[0] < 2 or len(lengths) > 1:
            given = " and ".join(map(str, lengths))
            raise ConfigError(
                (f"--axis: {axis} has lines of {given} chips; accepted: lines of one length, at least 2",)
            )
        return lines
    if ranks is not None:
        strange = [rank for rank in ranks if not 0 <= rank < n_chips]
        if strange or len(set(ranks)) != len(ranks) or len(ranks) < 2:
            given = ",".join(map(str, ranks))
            raise ConfigError((f"--ranks: {given}; accepted: at least 2 different chips of 0 to {n_chips - 1}",))
        return (tuple(ranks),)
    n = n_chips if n_ranks is None else n_ranks
    if not 2 <= n <= n_chips:
        raise ConfigError((f"--ranks: {n}; accepted: 2 to {n_chips}, the chips of this system",))
    return (tuple(range(n)),)


def _check_words(op: str, algorithm: str, dtype: str, reduction: str) -> None:
    """Raise ConfigError with every word that is not known."""
    if op not in OPERATIONS:
        raise ConfigError((f"--op: {unknown(op, 'an operation', OPERATIONS)}",))
    problems = []
    problem = algorithm_problem(algorithm, op, OFFERED[op], also=(AUTO, ALL))
    if problem is not None:
        problems.append(f"--algorithm: {problem}")
    if dtype not in NUMBER_FORMATS:
        problems.append(f"--dtype: {unknown(dtype, 'a number format', NUMBER_FORMATS)}")
    if reduction not in REDUCTIONS:
        problems.append(f"--reduction: {unknown(reduction, 'a reduction', REDUCTIONS)}")
    elif reduction != "sum" and not OPERATIONS[op].reduces:
        problems.append(f"--reduction: {op} reduces nothing; accepted: --op all_reduce, reduce_scatter or reduce")
    if problems:
        raise ConfigError(tuple(problems))


def _fitting(
    op: str, algorithm: str, topology: Topology, groups: Groups, numerics: Numerics, on_misfit: Callable[[str], None]
) -> tuple[tuple[str, ...], Mapping[str, Schedule]]:
    """Return the algorithms that fit all groups, and the files among them; raise ConfigError if there is none."""
    n_chips, n = sum(map(len, groups)), len(groups[0])
    if n_chips > MOST_RANKS and numerics == "real":
        raise ConfigError((f"--ranks: {n_chips}; accepted: 2 to {MOST_RANKS}, or --numerics shapes",))
    files = read_files({op: algorithm})
    if algorithm == AUTO:
        return (AUTO,), files
    fitting: list[str] = []
    reasons: list[str] = []
    for name in tried_for(op, n) if algorithm == ALL else [algorithm]:
        try:
            for ranks in groups:
                build(op, name, GroupView(topology, ranks), Case(op, n, n).detail, files)
            _refuse_long(op, name, topology, groups, files)
        except ConfigError as error:
            reasons += error.problems
            continue
        fitting.append(name)
    if not fitting:
        raise ConfigError(tuple(reasons))
    for reason in dict.fromkeys(reasons):  # the same for any number of pieces
        on_misfit(reason)
    return tuple(fitting), files


def _refuse_long(
    op: str, name: str, topology: Topology, groups: Groups, files: Mapping[str, Schedule] = NO_FILES
) -> None:
    """Raise ConfigError for many chips that do not all do the same: that would take long."""
    n_chips, n = sum(map(len, groups)), len(groups[0])
    if n_chips <= MOST_RANKS:
        return
    schedule = build(op, name, GroupView(topology, groups[0]), Case(op, n, n).detail, files)
    if len(groups) > 1 or schedule.uniform(topology.dims) is None:
        raise ConfigError((f"--ranks: {n_chips}; accepted for {op} {name} on this system: 2 to {MOST_RANKS}",))


def _check_memory(sizes_bytes: Sequence[int], n: int, numerics: Numerics) -> None:
    """Refuse sizes whose data do not fit this machine: input, result and messages of every rank."""
    need_bytes = COPIES * n * max(sizes_bytes, default=0)
    have_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if numerics == "real" and need_bytes > have_bytes:
        need, have = format_size(need_bytes), format_size(have_bytes)
        limit = f"need about {need}, this machine has {have}; accepted: smaller sizes, or --numerics shapes"
        raise ConfigError((f"--sizes: {format_size(max(sizes_bytes))} on {n} ranks {limit}",))
