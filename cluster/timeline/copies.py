"""Chips that do what others do, on links of their own: they need not be played, as the others' times are theirs.

Chips that communicate, directly or through others, are an island of a run. Two islands go alike, to the picosecond, if
nobody else uses their links and they are copies of each other: their chips, in the order of their ranks, do the same,
in groups and with peers of their own at the same places; the schedules of their collectives are the same; and so are
the routes of their transfers, link by link in bandwidth and share, with their latency and whether they leave a node.
Replicas of a model are such islands. All of this is looked at, none of it is taken for granted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from cluster.records import Await, Collective, Receive, Record, Send, Start, Trace
from cluster.timeline.expand import ordinals
from collectives import GroupView, Schedule
from collectives import build as build_schedule
from configs.errors import ConfigError
from topology import Topology

Ints = NDArray[np.int64]
MOST_PAIRS = 2**18
"""Of chips in groups, of a run that is looked at: more take long to look at."""


@frozen(eq=False)
class Copies:
    """Of every chip the one that is played for it, and of every link the one whose bytes are its own."""

    chip: Ints
    link: Ints

    def played(self, traces: Sequence[Trace]) -> list[Trace]:
        """Return the traces of the chips that are played."""
        return [trace for trace in traces if self.chip[trace.rank] == trace.rank]

    @cached_property
    def count(self) -> Ints:
        """How many chips go as each one, itself included."""
        return np.bincount(self.chip, minlength=len(self.chip))


@define(eq=False)
class _Island:
    """Chips that communicate with each other alone, in the order of their ranks, with the links that they use."""

    chips: tuple[int, ...]
    calls: list[Collective]
    messages: list[tuple[int, int]]
    schedules: list[Schedule] = field(factory=list)
    links: Ints = field(factory=lambda: np.zeros(0, np.int64))
    form: tuple[Hashable, ...] = ()
    """What its routes are, but for the numbers of their links."""


def find_copies(
    topology: Topology, records: Sequence[Record], traces: Sequence[Trace], files: Mapping[str, Schedule]
) -> Copies:
    """Return which chips of a run need not be played."""
    chip, link = np.arange(topology.n_chips), np.arange(len(topology.link_src))
    found = Copies(chip, link)
    used = {trace.rank: _used(trace, len(records)) for trace in traces}
    island_of = _islands(topology.n_chips, records, used)
    if len(np.unique(island_of[list(used)])) < 2:
        return found
    same = _same_records(island_of, records)
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for number, does in _what_islands_do(island_of, same, traces):
        alike[does].append(number)
    if all(len(numbers) == 1 for numbers in alike.values()):
        return found
    islands = {n: _island(n, island_of, records, same, used) for numbers in alike.values() for n in numbers}
    if sum(len(ranks) ** 2 for island in islands.values() for ranks in {c.ranks for c in island.calls}) > MOST_PAIRS:
        return found
    try:
        for island in islands.values():
            _lay_out(topology, files, island)
    except ConfigError:  # playing says what is wrong
        return found
    users = np.bincount(np.concatenate([np.unique(i.links) for i in islands.values()]), minlength=len(link))
    for numbers in alike.values():
        alone = [islands[n] for n in numbers if (users[islands[n].links] == 1).all()]
        for first, other in ((alone[0], other) for other in alone[1:]):
            if _is_copy(first, other):
                chip[list(other.chips)] = first.chips
                link[other.links] = first.links
    return found


def _operation(record: Record) -> Record:
    return record.operation if isinstance(record, Start | Await) else record


def _used(trace: Trace, n_records: int) -> Ints:
    """Return the records that a chip has left."""
    seen = np.zeros(n_records, np.bool_)
    seen[trace.numbers] = True
    return np.flatnonzero(seen)


def _islands(n_chips: int, records: Sequence[Record], used: Mapping[int, Ints]) -> Ints:
    """Return of every chip the lowest one that it communicates with, directly or through others."""
    lowest = list(range(n_chips))

    def root(chip: int) -> int:
        while lowest[chip] != chip:
            lowest[chip] = chip = lowest[lowest[chip]]
        return chip

    def join(chips: Iterable[int]) -> None:
        for a, b in pairwise(chips):
            low, high = sorted((root(a), root(b)))
            lowest[high] = low

    operations = [_operation(record) for record in records]
    for ranks in {record.ranks for record in operations if isinstance(record, Collective)}:
        join(ranks)
    talks = np.array([isinstance(record, Send | Receive) for record in operations], np.bool_)
    for rank, numbers in used.items():
        for number in numbers[talks[numbers]].tolist():
            record = operations[number]
            join((rank, record.dst if isinstance(record, Send) else record.src))
    return np.array([root(chip) for chip in range(n_chips)])


def _same_records(island_of: Ints, records: Sequence[Record]) -> NDArray[np.int32]:
    """Return of every record a number that it shares with those that are the same in other islands."""
    place = ordinals(island_of)
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(_placed(record, place), len(numbers)) for record in records], np.int32)


def _what_islands_do(
    island_of: Ints, same: NDArray[np.int32], traces: Sequence[Trace]
) -> Iterator[tuple[int, Hashable]]:
    """Yield every island that does anything, with what its chips do in turn."""
    does: dict[int, list[Hashable]] = defaultdict(list)
    for trace in sorted(traces, key=lambda t: t.rank):
        if len(trace.numbers):
            what = (same[trace.numbers].tobytes(), trace.layers.tobytes())
            does[int(island_of[trace.rank])].append(what)
    yield from ((number, tuple(what)) for number, what in does.items())


def _placed(record: Record, place: Ints) -> Hashable:
    """Return a record with places in its island instead of chips."""
    match record:
        case Start(operation=operation) | Await(operation=operation):
            return type(record), record._replace(operation=_placed(operation, place))  # type: ignore[arg-type]
        case Collective(ranks=ranks):
            return record._replace(group="", ranks=tuple(place[list(ranks)].tolist()))
        case Send(dst=dst):
            return Send, record._replace(dst=int(place[dst]))
        case Receive(src=src):
            return Receive, record._replace(src=int(place[src]))
    return record


def _island(
    number: int, island_of: Ints, records: Sequence[Record], same: NDArray[np.int32], used: Mapping[int, Ints]
) -> _Island:
    """Return an island, with its calls and messages in an order that is that of its copies."""
    chips = tuple(np.flatnonzero(island_of == number).tolist())
    calls: dict[Collective, None] = {}
    messages: dict[tuple[int, int], None] = {}
    for chip in chips:
        numbers = used.get(chip, np.zeros(0, np.int64))
        for record in (_operation(records[i]) for i in numbers[np.argsort(same[numbers])].tolist()):
            if isinstance(record, Collective):
                calls[record] = None
            elif isinstance(record, Send):
                messages[chip, record.dst] = None
    return _Island(chips, list(calls), sorted(messages))


def _lay_out(topology: Topology, files: Mapping[str, Schedule], island: _Island) -> None:
    """Add the schedules of an island's calls, and the routes of its transfers."""
    ends = [np.array(island.messages, np.int64).reshape(-1, 2)]
    for call in island.calls:
        schedule = build_schedule(call.op, call.algorithm, GroupView(topology, call.ranks), call.detail, files)
        island.schedules.append(schedule)
        nodes, t = np.array([*call.ranks, *schedule.helpers], np.int64), schedule.transfers
        ends.append(np.stack([nodes[t.src], nodes[t.dst]], axis=1))
    pairs = np.unique(np.concatenate(ends), axis=0)
    src, dst = pairs.T
    routes = topology.routes(src, dst)
    links = routes.links.astype(np.int64)
    bandwidth = topology.link_bandwidth_bytes_per_s[links]
    first = np.unique(links, return_index=True, return_inverse=True)
    renumbered = first[1][first[2]]
    island.links = links
    places = np.searchsorted(np.array(island.chips), pairs)
    columns = (
        places,
        topology.crosses(src, dst),
        routes.start,
        routes.weights,
        routes.latency_ps,
        bandwidth,
        renumbered,
    )
    island.form = tuple(column.tobytes() for column in columns)


def _is_copy(first: _Island, other: _Island) -> bool:
    """Return whether the schedules and the routes of two islands whose chips do the same are the same."""
    if first.form != other.form or len(first.calls) != len(other.calls):
        return False
    return all(_same(a, b) for a, b in zip(first.schedules, other.schedules, strict=True))


def _same(a: Schedule, b: Schedule) -> bool:
    """Return whether two schedules are, without switches that help."""
    if a is b:
        return True
    if a.helpers or b.helpers or (a.op, a.n_ranks, a.n_chunks, a.n_slots) != (b.op, b.n_ranks, b.n_chunks, b.n_slots):
        return False
    columns = ("step", "src", "dst", "chunk_start", "chunk_end", "chunks", "reduce")
    return all(np.array_equal(getattr(a.transfers, name), getattr(b.transfers, name)) for name in columns)
