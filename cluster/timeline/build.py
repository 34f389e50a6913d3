"""Turn the chips' traces into one graph of timed tasks.

A chip's operations follow one another. A kernel is one task; a send is a transfer that the chip waits for; a receive
waits for its message; a collective is an entry and an exit of every member, with its schedule's tasks between them.
A started operation hangs beside the chip's own sequence: behind the moment of its start and the operations of its lane
(its group, or the ordered pair of chips of a message) that the chip has started before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from attrs import define, evolve, field, frozen
from numpy.typing import NDArray

from cluster.records import KINDS, Await, Collective, Compute, Receive, Record, Send, Start, Trace
from cluster.timeline.expand import Template, expand
from cluster.timeline.tasks import TaskGraph
from cluster.timeline.wiring import Wiring, wire
from collectives import NO_FILES, GroupView, Schedule
from collectives import build as build_schedule
from configs.errors import ProgramError
from configs.spec.system import SystemSpec
from topology import Topology

Fold = Mapping[Collective, NDArray[np.bool_]]
"""A collective -> for each of its calls, whether its tasks are left out of the graph."""
NO_FOLD: Fold = MappingProxyType({})
COMPUTE, COLLECTIVE, SEND, RECEIVE, MARK, START, AWAIT = range(len(KINDS))


@frozen(eq=False)
class Operations:
    """All operations of all chips, chip after chip, each in program order; `number` is a place in `records`.

    A started operation has the record of the same operation without its start. What follows it in the program comes
    after its `first_task`, the moment of the start; the operation itself begins with its `entry_task`.
    """

    records: Sequence[Record]
    chip: NDArray[np.int32]
    number: NDArray[np.int32]
    kind: NDArray[np.int8]
    started: NDArray[np.bool_]
    first_task: NDArray[np.int64]
    entry_task: NDArray[np.int64]
    last_task: NDArray[np.int64]

    @property
    def leave_task(self) -> NDArray[np.int64]:
        """The task after which the chip goes on with its next operation."""
        return np.where(self.started, self.first_task, self.last_task)

    @property
    def follows(self) -> NDArray[np.bool_]:
        """Whether an operation comes after another one of the same chip."""
        return np.concatenate([np.zeros(min(1, len(self.chip)), np.bool_), self.chip[1:] == self.chip[:-1]])


@frozen(eq=False)
class Folded:
    """Calls of a collective whose tasks are not in the graph: there are only entries and exits, [call, member].

    `calls` says which of its calls they are; `route` is the route of each of the template's tasks.
    """

    record: Collective
    template: Template
    calls: NDArray[np.int64]
    entry: NDArray[np.int64]
    leave: NDArray[np.int64]
    route: NDArray[np.int32] = field(factory=lambda: np.zeros(0, np.int32))


@frozen(eq=False)
class Built:
    """The task graph, where the operations are in it, and whom each task keeps busy with communication."""

    graph: TaskGraph
    operations: Operations
    owner: NDArray[np.int32]
    peer: NDArray[np.int32]
    folded: tuple[Folded, ...]
    wiring: Wiring


@define(eq=False)
class _Tasks:
    """Tasks and edges collected so far, in pieces."""

    n: int = 0
    delay_ps: list[NDArray[np.int64]] = field(factory=list)
    size_bytes: list[NDArray[np.float64]] = field(factory=list)
    owner: list[NDArray[np.int32]] = field(factory=list)
    peer: list[NDArray[np.int32]] = field(factory=list)
    edges: list[NDArray[np.int64]] = field(factory=list)

    def add(self, template: Template, copies: int) -> NDArray[np.int64]:
        """Add copies of the template's tasks and inner edges; return the number of each copy's first task."""
        n = len(template.delay_ps)
        base = self.n + n * np.arange(copies, dtype=np.int64)
        for pieces, values in (
            (self.delay_ps, template.delay_ps), (self.size_bytes, template.size_bytes),
            (self.owner, template.owner), (self.peer, template.peer),
        ):  # fmt: skip
            pieces.append(np.tile(values, copies))
        self.edges.append((template.edges[None, :, :] + base[:, None, None]).reshape(-1, 2))
        self.n += n * copies
        return base


def build(
    system: SystemSpec,
    topology: Topology,
    records: Sequence[Record],
    traces: Sequence[Trace],
    files: Mapping[str, Schedule] = NO_FILES,
    fold: Fold = NO_FOLD,
    templates: dict[Collective, Template] | None = None,
) -> Built:
    """Return the task graph of a run, without the inner tasks of the calls in `fold`.

    `templates` keeps those of the collectives from one time to the next. Raises ProgramError where the chips' programs
    do not fit together.
    """
    operations = _operations(records, traces)
    tasks = _Tasks()
    _add_operations(tasks, operations, system)
    _join_handles(tasks, operations)
    _join_messages(tasks, operations)
    templates = {} if templates is None else templates
    folded = tuple(_add_collectives(tasks, operations, topology, system, files, fold, templates))
    edges = np.concatenate(tasks.edges)
    owner, peer = np.concatenate(tasks.owner), np.concatenate(tasks.peer)
    wiring, numbers = wire(topology, [(owner, peer), *((f.template.owner, f.template.peer) for f in folded)])
    folded = tuple(evolve(f, route=own) for f, own in zip(folded, numbers[1:], strict=True))
    route, routes = numbers[0], wiring.routes
    delay_ps = np.concatenate(tasks.delay_ps)
    delay_ps[route >= 0] += routes.latency_ps[route[route >= 0]]
    graph = TaskGraph(
        delay_ps, np.concatenate(tasks.size_bytes), route, edges[:, 0], edges[:, 1],
        routes.start, routes.links, routes.weights,
    )  # fmt: skip
    return Built(graph, operations, owner, peer, folded, wiring)


def without_starts(records: Sequence[Record]) -> tuple[tuple[Record, ...], NDArray[np.int32]]:
    """Return the records of started and other operations alike, and the number of every record among them."""
    plain = {record.operation if isinstance(record, Start) else record: 0 for record in records}
    plain = {record: i for i, record in enumerate(plain)}
    numbers = [plain[r.operation if isinstance(r, Start) else r] for r in records]
    return tuple(plain), np.array(numbers, np.int32)


def _operations(records: Sequence[Record], traces: Sequence[Trace]) -> Operations:
    plain, number_of = without_starts(records)
    kind_of = np.array([KINDS.index(type(r)) for r in plain], np.int8)
    noted = np.concatenate([np.zeros(0, np.int32), *(t.numbers for t in traces)])
    chip = np.repeat(np.array([t.rank for t in traces], np.int32), [len(t.numbers) for t in traces])
    number = number_of[noted] if len(noted) else noted
    kind = kind_of[number] if len(number) else np.zeros(0, np.int8)
    started = np.array([isinstance(r, Start) for r in records], np.bool_)[noted] if len(noted) else kind == START
    n_tasks = np.where(kind == COLLECTIVE, 2, 1) + started
    last = np.cumsum(n_tasks) - 1
    first = last - n_tasks + 1
    return Operations(plain, chip, number, kind, started, first, first + started, last)


def _add_operations(tasks: _Tasks, ops: Operations, system: SystemSpec) -> None:
    """Add one task for every operation (two for a collective, one more where it is started), chained chip by chip."""
    n = int(ops.last_task[-1]) + 1 if len(ops.last_task) else 0
    durations = np.array([r.duration_ps if isinstance(r, Compute) else 0 for r in ops.records], np.int64)
    delay_ps, size_bytes = np.zeros(n, np.int64), np.zeros(n)
    delay_ps[ops.first_task] = durations[ops.number] if n else 0
    delay_ps[ops.entry_task[ops.kind == COLLECTIVE]] = system.communication.call_ps
    owner, peer = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    communicates = np.isin(ops.kind, (COLLECTIVE, SEND, RECEIVE))
    owner[ops.entry_task[communicates]] = ops.chip[communicates]
    for i in np.flatnonzero(ops.kind == SEND):
        record, task = ops.records[ops.number[i]], ops.entry_task[i]
        assert isinstance(record, Send)
        delay_ps[task] = system.communication.call_ps
        size_bytes[task], peer[task] = record.size_bytes, record.dst
    follows = np.flatnonzero(ops.follows)
    chain = np.stack([ops.leave_task[follows - 1], ops.first_task[follows]], axis=1)
    inside = np.flatnonzero(ops.entry_task != ops.last_task)
    alone = np.stack([ops.entry_task[inside], ops.last_task[inside]], axis=1)
    begins = np.stack([ops.first_task[ops.started], ops.entry_task[ops.started]], axis=1)
    tasks.n = n
    tasks.delay_ps, tasks.size_bytes = [delay_ps], [size_bytes]
    tasks.owner, tasks.peer, tasks.edges = [owner], [peer], [chain, alone, begins]


def _join_handles(tasks: _Tasks, ops: Operations) -> None:
    """Let a chip that awaits an operation wait for its end."""
    awaits = np.flatnonzero(ops.kind == AWAIT)
    back = np.array([r.back if isinstance(r, Await) else 0 for r in ops.records], np.int64)
    place = np.cumsum(ops.started)[awaits] - 1 - back[ops.number[awaits]]
    started = np.flatnonzero(ops.started)[place]
    tasks.edges.append(_pairs(ops.last_task[started], ops.first_task[awaits]))


def _join_messages(tasks: _Tasks, ops: Operations) -> None:
    """Let every receive wait for its message: the k-th receive of (source, tag) for the k-th send.

    A send also waits for the sends to the same chip that were started before.
    """
    sent: dict[tuple[int, int, str], list[int]] = defaultdict(list)
    received: dict[tuple[int, int, str], list[int]] = defaultdict(list)
    under_way: dict[tuple[int, int], int] = {}
    pairs: list[tuple[int, int]] = []
    for i in np.flatnonzero(np.isin(ops.kind, (SEND, RECEIVE))):
        record, chip, task = ops.records[ops.number[i]], int(ops.chip[i]), int(ops.entry_task[i])
        if isinstance(record, Send):
            sent[chip, record.dst, record.tag].append(task)
            before = under_way.pop((chip, record.dst), None)
            if before is not None:
                pairs.append((before, task))
            if ops.started[i]:
                under_way[chip, record.dst] = task
        elif isinstance(record, Receive):
            received[record.src, chip, record.tag].append(task)
    for key in sorted(sent.keys() | received.keys()):
        src, dst, tag = key
        if len(sent[key]) != len(received[key]):
            raise ProgramError(
                f"chip {src} sends {len(sent[key])} messages {tag!r} to chip {dst}, which receives {len(received[key])}"
            )
        pairs += zip(sent[key], received[key], strict=True)
    tasks.edges.append(np.array(pairs, np.int64).reshape(-1, 2))


def _add_collectives(
    tasks: _Tasks,
    ops: Operations,
    topology: Topology,
    system: SystemSpec,
    files: Mapping[str, Schedule],
    fold: Fold,
    templates: dict[Collective, Template],
) -> Iterable[Folded]:
    """Add the tasks of every collective; the k-th call of a group is the same call on all its members.

    Yields those of `fold` instead.
    """
    for ranks, members in _calls(ops):
        before, after = members[:-1], members[1:]
        beside = ops.started[before]
        tasks.edges.append(_pairs(ops.last_task[before[beside]], ops.entry_task[after[beside]]))
        for number in np.unique(ops.number[members]):
            record = ops.records[number]
            assert isinstance(record, Collective)
            if record not in templates:
                schedule = build_schedule(record.op, record.algorithm, GroupView(topology, ranks), record.detail, files)
                templates[record] = expand(record, schedule, system.communication, topology)
            template = templates[record]
            chosen = members[ops.number[members[:, 0]] == number]
            entry, leave = ops.entry_task[chosen], ops.last_task[chosen]
            folds = fold.get(record, np.zeros(len(chosen), np.bool_))
            if folds.any():
                yield Folded(record, template, np.flatnonzero(folds), entry[folds], leave[folds])
            entry, leave = entry[~folds], leave[~folds]
            base = tasks.add(template, len(entry))
            (place, first), (last, from_place) = template.entries.T, template.exits.T
            tasks.edges.append(_pairs(entry[:, place], base[:, None] + first))
            tasks.edges.append(_pairs(base[:, None] + last, leave[:, from_place]))


def _pairs(before: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return edges from each task of one array to the task at the same place of the other."""
    return np.stack([before.reshape(-1), after.reshape(-1)], axis=1)


def _calls(ops: Operations) -> Iterable[tuple[tuple[int, ...], NDArray[np.int64]]]:
    """Yield every group with its calls: an operation's index for every (call, member)."""
    records = ops.records
    groups = {ranks: g for g, ranks in enumerate(dict.fromkeys(r.ranks for r in records if isinstance(r, Collective)))}
    group_of = np.array([groups[r.ranks] if isinstance(r, Collective) else -1 for r in records], np.int32)
    group = group_of[ops.number] if len(ops.number) else np.zeros(0, np.int32)
    calling = np.flatnonzero(group >= 0)
    calling = calling[np.argsort(group[calling], kind="stable")]  # in each group chip after chip, in program order
    ends = np.cumsum(np.bincount(group[calling], minlength=len(groups)))
    for ranks, where in zip(groups, np.split(calling, ends)[:-1], strict=True):
        order = np.argsort(ranks)
        counts = np.diff(np.searchsorted(ops.chip[where], np.append(np.array(ranks)[order], ops.chip.max() + 1)))
        if (counts != counts[0]).any():
            each = dict(zip(order.tolist(), counts.tolist(), strict=True))
            told = ", ".join(f"chip {rank}: {each[place]}" for place, rank in enumerate(ranks))
            raise ProgramError(f"the members of group {ranks} make different numbers of calls: {told}")
        members = where.reshape(len(ranks), -1)[np.argsort(order)].T
        numbers = ops.number[members]
        odd = np.argwhere(numbers != numbers[:, :1])
        if len(odd):
            call, place = odd[0]
            raise ProgramError(
                f"call {call} of group {ranks}: chip {ranks[0]} calls {records[numbers[call, 0]]}, "
                f"chip {ranks[place]} calls {records[numbers[call, place]]}"
            )
        yield ranks, members
