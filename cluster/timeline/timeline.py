"""When everything happened: the result of the time plane."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from cluster.records import Await, Collective, Compute, Mark, Receive, Record, Send, Start, Trace
from cluster.timeline.accounts import OperationTime, layers_of, operation_times
from cluster.timeline.build import MARK, RECEIVE, Operations, without_starts
from cluster.timeline.copies import Copies, find_copies
from cluster.timeline.engine import Played
from cluster.timeline.intervals import Intervals
from cluster.timeline.reuse import PlayedRun, play_run
from collectives import NO_FILES, Schedule
from configs.spec.experiment import Contention
from configs.spec.system import SystemSpec
from topology import Topology
from topology.arrays import ragged

HASHED_AT_ONCE = 2**18


class Event(NamedTuple):
    """An operation of a chip, and when it ran: in the program's sequence, or started by it and beside it."""

    chip: int
    operation: str
    start_ps: int
    end_ps: int
    engine: Literal["program", "communication"] = "program"


class LinkUse(NamedTuple):
    """A directed link and the fraction of its capacity that was used over the whole run."""

    name: str
    utilisation: float


class Breakdown(NamedTuple):
    """Where the time went, as means over the chips in use; compute + memory + exposed + idle = total.

    compute_s: kernels bound by arithmetic.  memory_s: kernels bound by memory bandwidth.
    communication_s: some transfer from or to the chip, or the chip's own communication overhead, was under way.
    exposed_communication_s: the part of it during which no kernel ran.
    idle_s: neither a kernel nor communication: waiting for other chips, or stopped.
    """

    compute_s: float
    memory_s: float
    communication_s: float
    exposed_communication_s: float
    idle_s: float


@frozen(eq=False)
class Inputs:
    """What a timeline is worked out from: see `time_run`."""

    system: SystemSpec
    topology: Topology
    contention: Contention
    records: Sequence[Record]
    traces: Sequence[Trace]
    files: Mapping[str, Schedule] = NO_FILES


@frozen(eq=False)
class Timeline:
    """All operations of all chips with start and end, chip after chip, each in program order (marks left out).

    What is not `started` follows one another on its chip without a gap; started operations go on beside. `name` and
    `record` are places in `names` and `records`; `layer` is the layer of the model, -1 for none; `link` has the numbers
    of `links` in the topology.
    """

    chip: NDArray[np.int32]
    name: NDArray[np.int32]
    record: NDArray[np.int32]
    layer: NDArray[np.int32]
    started: NDArray[np.bool_]
    start_ps: NDArray[np.int64]
    end_ps: NDArray[np.int64]
    names: tuple[str, ...]
    records: tuple[Record, ...] = field(repr=False)
    marks: tuple[Event, ...]
    mark_index: tuple[int, ...]
    total_ps: int
    breakdown: Breakdown
    links: tuple[LinkUse, ...]
    operations: tuple[OperationTime, ...]
    link: NDArray[np.int64]
    inputs: Inputs = field(repr=False)

    def events(self) -> list[Event]:
        """Return every operation in the order (start, chip, sequence)."""
        order = self._order
        columns = (a[order].tolist() for a in (self.chip, self.name, self.start_ps, self.end_ps, self.started))
        return [
            Event(c, self.names[n], s, e, "communication" if started else "program")
            for c, n, s, e, started in zip(*columns, strict=True)
        ]

    def sha256(self) -> str:
        """Return a digest of every event (chip, operation, start, end) in the order of `events`."""
        order = self._order
        names = sorted({self.names[i] for i in np.unique(self.name)})  # not those of marks, which take no time
        rank_of = np.array([names.index(n) if n in names else -1 for n in self.names], np.int64)
        digest = hashlib.sha256(json.dumps(names).encode())
        for some in np.array_split(order, -(-len(order) // HASHED_AT_ONCE) or 1):
            columns = (self.chip[some], rank_of[self.name[some]], self.start_ps[some], self.end_ps[some])
            digest.update(np.stack(columns, axis=1).astype("<i8").tobytes())
        return digest.hexdigest()

    @property
    def _order(self) -> NDArray[np.int64]:
        """The places of all operations in the order (start, chip, sequence): they are chip after chip already."""
        return np.argsort(self.start_ps, kind="stable")

    def busiest_links(self, n: int) -> tuple[LinkUse, ...]:
        """Return the n most used links, by name where equal."""
        return tuple(sorted(self.links, key=lambda link: (-link.utilisation, link.name))[:n])


def time_run(
    system: SystemSpec,
    topology: Topology,
    contention: Contention,
    records: Sequence[Record],
    traces: Sequence[Trace],
    files: Mapping[str, Schedule] = NO_FILES,
) -> Timeline:
    """Work out when every operation of a run starts and ends; `files` are the schedules read from files, by name.

    Raises ProgramError where the chips' programs do not fit together.
    """
    inputs = Inputs(system, topology, contention, records, traces, files)
    copies = find_copies(topology, records, traces, files)
    shown = copies.played(traces)
    run = play_run(system, topology, contention, records, shown, files)
    played, link_bytes, ops = run.played, run.link_bytes[copies.link], run.built.operations
    capacity = topology.link_bandwidth_bytes_per_s * system.communication.link_efficiency
    used = [t.rank for t in traces if len(t.numbers)]
    end_ps = played.end_ps[ops.last_task] if len(ops.last_task) else np.zeros(0, np.int64)
    start_ps = _starts(ops, played)
    total_ps = int(played.end_ps.max(initial=0))
    layer, (names, name_of) = layers_of(shown), _names(ops.records)
    chip, at, number = _of_all_chips(copies, shown, records, traces)
    timed = (ops.kind != MARK)[at]
    marks = [_mark(ops.records, number[i], chip[i], end_ps[at[i]]) for i in np.flatnonzero(~timed)]
    chip, at, number = chip[timed], at[timed], number[timed]
    return Timeline(
        chip, name_of[number], number, layer[at], ops.started[at], start_ps[at], end_ps[at], names, tuple(ops.records),
        tuple(event for event, _ in marks), tuple(index for _, index in marks), total_ps,
        _breakdown(run, ops.records, start_ps, end_ps, copies.chip[used].tolist()),
        _link_use(topology, link_bytes, capacity, total_ps),
        operation_times(ops, names, name_of, layer, (end_ps - start_ps), copies.count, len(used)),
        np.flatnonzero(link_bytes), inputs,
    )  # fmt: skip


def _of_all_chips(
    copies: Copies, shown: Sequence[Trace], records: Sequence[Record], traces: Sequence[Trace]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Return of every operation of all chips: its chip, the played one that it goes as, and its own record."""
    lengths = np.array([len(t.numbers) for t in traces], np.int64)
    first = np.zeros(len(copies.chip), np.int64)
    first[[t.rank for t in shown]] = np.cumsum([0, *(len(t.numbers) for t in shown)])[:-1]
    chip = np.repeat(np.array([t.rank for t in traces], np.int32), lengths)
    at = ragged(first[copies.chip[[t.rank for t in traces]]], lengths)
    number = np.concatenate([np.zeros(0, np.int32), *(t.numbers for t in traces)])
    return chip, at, without_starts(records)[1][number] if len(number) else number


def _starts(ops: Operations, played: Played) -> NDArray[np.int64]:
    """Return when the operations begin: where the one before leaves the chip; a started one when its lane is free."""
    if not len(ops.chip):
        return np.zeros(0, np.int64)
    before = np.concatenate([[0], played.end_ps[ops.leave_task[:-1]]])
    in_lane = ops.started & (ops.kind != RECEIVE)
    return np.where(in_lane, played.start_ps[ops.entry_task], np.where(ops.follows, before, 0)).astype(np.int64)


def _names(records: Sequence[Record]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Return the operations' names, and the name's place for every record."""
    named = [operation_name(r) for r in records]
    names = tuple(dict.fromkeys(named))
    place = {name: i for i, name in enumerate(names)}
    return names, np.array([place[name] for name in named], np.int32)


def operation_name(record: Record) -> str:
    """Return the name of an operation."""
    match record:
        case Compute(name=name) | Mark(name=name):
            return name
        case Collective(op=op):
            return op
        case Send(tag=tag):
            return f"send {tag}".strip()
        case Receive(tag=tag):
            return f"recv {tag}".strip()
        case Start(operation=operation):
            return operation_name(operation)
        case Await(operation=operation):
            return f"wait {operation_name(operation)}"


def _mark(records: Sequence[Record], number: int, chip: int, end_ps: int) -> tuple[Event, int]:
    record = records[number]
    assert isinstance(record, Mark)
    return Event(int(chip), record.name, int(end_ps), int(end_ps)), record.step


def _breakdown(
    run: PlayedRun, records: Sequence[Record], start_ps: NDArray[np.int64], end_ps: NDArray[np.int64],
    ranks: Sequence[int],
) -> Breakdown:  # fmt: skip
    built, played = run.built, run.played
    ops, n = built.operations, max(ranks, default=-1) + 1
    bound = np.array([r.bound if isinstance(r, Compute) else "" for r in records])
    bound = bound[ops.number] if len(ops.number) else np.zeros(0, "<U7")
    spent = end_ps - start_ps
    compute, memory = (np.bincount(ops.chip[bound == b], spent[bound == b], n) for b in ("compute", "memory"))
    tasks = (Intervals(chips, played.start_ps, played.end_ps) for chips in (built.owner, built.peer))
    busy = Intervals.join([*tasks, run.busy]).merged()
    kernel = np.isin(bound, ("compute", "memory"))
    kernels = Intervals(ops.chip[kernel], start_ps[kernel], end_ps[kernel])
    communication, either = busy.lengths(n), Intervals.join([busy, kernels]).merged().lengths(n)
    exposed = either - compute - memory
    idle = int(played.end_ps.max(initial=0)) - either
    used = np.array(ranks, np.int64)
    means: Mapping[str, float] = {
        name: float(values[used].mean()) * 1e-12 if len(used) else 0.0
        for name, values in zip(Breakdown._fields, (compute, memory, communication, exposed, idle), strict=True)
    }
    return Breakdown(**means)


def _link_use(
    topology: Topology, link_bytes: NDArray[np.float64], capacity: NDArray[np.float64], total_ps: int
) -> tuple[LinkUse, ...]:
    use = link_bytes / (capacity * max(total_ps, 1) * 1e-12)
    return tuple(LinkUse(topology.link_name(int(i)), float(use[i])) for i in np.flatnonzero(link_bytes))
