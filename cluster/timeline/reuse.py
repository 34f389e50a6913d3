"""Play a collective once for each pattern of entries, and look its further calls up.

How a collective goes depends on its schedule, on when its members enter relative to each other, and on the other
transfers that share links with its own, directly or through others. Times are relative and rates depend on nothing
else; so as long as no other transfer uses the links of a call while it uses them, the call goes as another one did that
was entered in the same pattern, to the picosecond. Calls are therefore looked up first, and what was assumed is checked
afterwards: where something else did use a link between the first and the last byte that a call put on it, that
collective is played in full, with everything else, once more. Up to the first such moment both ways are the same, so a
run without one is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from cluster.records import Collective, Record, Start, Trace
from cluster.timeline.alone import Ints, Kind, Pattern, by_itself, link_use
from cluster.timeline.build import Built, build
from cluster.timeline.engine import Played, busy_ps, check_clock, link_loads, play
from cluster.timeline.expand import Template
from cluster.timeline.intervals import Intervals
from cluster.timeline.kernel import Calls
from cluster.timeline.tasks import TaskGraph
from collectives import NO_FILES, Schedule
from configs.spec.experiment import Contention
from configs.spec.system import SystemSpec
from topology import Topology
from topology.arrays import ragged

MOST_PATTERNS = 64
"""Of a kind of call: one that is entered in more ways repeats itself too little to be worth looking up."""
MOST_TRIES = 3
"""With ever fewer calls looked up; then everything is played in full."""


class _NotAlikeError(Exception):
    """The calls of a kind are too different to be looked up."""

    def __init__(self, kind: int) -> None:
        super().__init__(kind)
        self.kind = kind


@frozen(eq=False)
class PlayedRun:
    """A run: its graph, its times, and when its looked-up calls kept chips busy with communication."""

    built: Built
    played: Played
    busy: Intervals

    @property
    def link_bytes(self) -> NDArray[np.float64]:
        """The bytes that every link carried."""
        return self.built.wiring.spread(self.played.link_bytes)


def play_run(
    system: SystemSpec,
    topology: Topology,
    contention: Contention,
    records: Sequence[Record],
    traces: Sequence[Trace],
    files: Mapping[str, Schedule] = NO_FILES,
    tries: int = MOST_TRIES,
) -> PlayedRun:
    """Return when everything of a run happens; without `tries` everything is played in full.

    Raises ProgramError where the chips' programs do not fit together.
    """
    capacity = topology.link_bandwidth_bytes_per_s * system.communication.link_efficiency
    share = contention == "fluid"
    fold = repeated(records, traces)
    templates: dict[Collective, Template] = {}
    memo = _Memo()
    for _ in range(tries):
        built = build(system, topology, records, traces, files, fold, templates)
        if not built.folded:
            break
        run = _Run.of(topology, built, capacity, memo, share=share)
        played, wrong = run.play()
        if played and not wrong.any():
            return played
        for folded, calls in zip(built.folded, np.split(wrong, run.last_calls), strict=True):
            fold[folded.record][folded.calls[calls]] = False
    else:
        built = build(system, topology, records, traces, files, templates=templates)
    return PlayedRun(built, play(built.graph, capacity, share=share), Intervals.join([]))


def repeated(records: Sequence[Record], traces: Sequence[Trace]) -> dict[Collective, NDArray[np.bool_]]:
    """Return the collectives that are called more than once, with all their calls."""
    counts = np.bincount(np.concatenate([np.zeros(0, np.int32), *(t.numbers for t in traces)]), minlength=len(records))
    entries: Counter[Collective] = Counter()
    for record, count in zip(records, counts.tolist(), strict=True):
        operation = record.operation if isinstance(record, Start) else record
        if isinstance(operation, Collective):
            entries[operation] += count
    calls = {collective: n // len(collective.ranks) for collective, n in entries.items()}
    return {collective: np.ones(n, np.bool_) for collective, n in calls.items() if n > 1}


@define(eq=False)
class _Memo:
    """What one try leaves to the next: each collective by itself with its links, and the patterns by a kind's key."""

    alone: dict[Collective, tuple[Kind, Ints]] = field(factory=dict)
    known: dict[tuple[bytes, ...], list[Pattern]] = field(factory=dict)


@define(eq=False)
class _Run:
    """The calls of a run that are looked up, and what is known of them."""

    built: Built
    capacity: NDArray[np.float64]
    share: bool
    kinds: list[Kind]
    known: list[list[Pattern]]
    """The patterns of each kind, for the next time."""
    kind_of: list[int]
    links: list[Ints]
    """Of each collective of the run: its kind, and the links that it uses, in the kind's numbering."""
    patterns: list[Pattern] = field(init=False)
    pattern_kind: list[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.patterns = [p for patterns in self.known for p in patterns]
        self.pattern_kind = [kind for kind, patterns in enumerate(self.known) for _ in patterns]

    @classmethod
    def of(cls, topology: Topology, built: Built, capacity: NDArray[np.float64], memo: _Memo, *, share: bool) -> _Run:
        """Return the run, with the patterns that are known already (and take up those that become known)."""
        kinds: list[Kind] = []
        numbers: dict[tuple[bytes, ...], int] = {}
        kind_of, links = [], []
        for folded in built.folded:
            if folded.record not in memo.alone:
                memo.alone[folded.record] = by_itself(topology, built.wiring, folded, capacity)
            kind, used = memo.alone[folded.record]
            number = numbers.setdefault(kind.key, len(kinds))
            if number == len(kinds):
                kinds.append(kind)
            kind_of.append(number)
            links.append(used)
        return cls(built, capacity, share, kinds, [memo.known.setdefault(key, []) for key in numbers], kind_of, links)

    def play(self) -> tuple[PlayedRun | None, NDArray[np.bool_]]:
        """Return the run and, for every call, whether it cannot be looked up: then the run is wrong, or there is none.

        Either it met other transfers on its links, or there are too many patterns of its kind.
        """
        graph, calls = self._joined()
        self._check_clock(graph)

        def learn(call: int, end_ps: Ints) -> Calls:
            self._learn(calls, call, end_ps)
            return self._known(calls)

        try:
            played = play(graph, self.capacity, share=self.share, calls=self._known(calls), learn=learn)
        except _NotAlikeError as error:
            return None, calls.kind == error.kind
        busy, links, call = self._spread(calls, played)
        wrong = np.zeros(len(calls.kind), np.bool_)
        if self.share:
            meets = Intervals.join([links, link_use(graph, played)]).overlapping()
            wrong[call[meets[: len(call)]]] = True
        loads = played.link_bytes.copy()
        for folded, kind, used in zip(self.built.folded, self.kind_of, self.links, strict=True):
            loads[used] += len(folded.entry) * link_loads(self.kinds[kind].graph, len(used))
        first_join = calls.first_join
        times = Played(played.start_ps[:first_join], played.end_ps[:first_join], loads)
        return PlayedRun(self.built, times, busy), wrong

    @property
    def last_calls(self) -> Ints:
        """Where the calls of each collective but the last end."""
        return np.cumsum([len(f.entry) for f in self.built.folded])[:-1]

    def _joined(self) -> tuple[TaskGraph, Calls]:
        """Return the graph with a task for every call, after its entries, and one for each exit; and the calls."""
        graph, folded = self.built.graph, self.built.folded
        sizes = np.concatenate([np.full(len(f.entry), len(f.record.ranks)) for f in folded])
        entry = np.concatenate([f.entry.reshape(-1) for f in folded])
        leave = np.concatenate([f.leave.reshape(-1) for f in folded])
        join = graph.n_tasks + np.repeat(np.arange(len(sizes)), sizes)
        leaving = graph.n_tasks + len(sizes) + np.arange(len(leave))
        more = len(sizes) + len(leave)
        longer = TaskGraph(
            np.concatenate([graph.delay_ps, np.zeros(more, np.int64)]),
            np.concatenate([graph.size_bytes, np.zeros(more)]),
            np.concatenate([graph.route, np.full(more, -1, np.int32)]),
            np.concatenate([graph.edge_from, entry, join, leaving]),
            np.concatenate([graph.edge_to, join, leaving, leave]),
            graph.route_start, graph.route_links, graph.route_weights,
        )  # fmt: skip
        kind = np.repeat(np.array(self.kind_of, np.int64), [len(f.entry) for f in folded])
        first = np.full(len(self.kinds), -1, np.int64)
        chosen, none = np.full(len(sizes), -1, np.int64), np.zeros(0, np.int64)
        member = np.concatenate([[0], np.cumsum(sizes)])
        return longer, Calls(graph.n_tasks, kind, member, entry, leaving, chosen, first, none, none, none, none)

    def _check_clock(self, graph: TaskGraph) -> None:
        """Refuse a run that could pass the end of the clock, the looked-up calls included."""
        longest = busy_ps(graph, link_loads(graph, len(self.capacity)), self.capacity)
        for folded, number in zip(self.built.folded, self.kind_of, strict=True):
            kind = self.kinds[number]
            loads = link_loads(kind.graph, len(kind.capacity))
            longest += len(folded.entry) * busy_ps(kind.graph, loads, kind.capacity)
        check_clock(longest)

    def _learn(self, calls: Calls, call: int, end_ps: Ints) -> None:
        """Play a call whose pattern is new."""
        number = int(calls.kind[call])
        entered = end_ps[calls.entry[calls.member[call] : calls.member[call + 1]]]
        pattern = self.kinds[number].go(entered.max() - entered, share=self.share)
        if pattern is None or self.pattern_kind.count(number) == MOST_PATTERNS:
            raise _NotAlikeError(number)
        self.known[number].append(pattern)
        self.patterns.append(pattern)
        self.pattern_kind.append(number)

    def _known(self, calls: Calls) -> Calls:
        """Return the calls with the patterns that are known by now."""
        first = np.full(len(self.kinds), -1, np.int64)
        after = np.full(len(self.patterns), -1, np.int64)
        for i, kind in enumerate(self.pattern_kind):
            after[i], first[kind] = first[kind], i
        at = np.cumsum([0, *(len(p.enters) for p in self.patterns)], dtype=np.int64)[:-1]
        return calls._replace(
            first_pattern=first,
            next_pattern=after,
            pattern_at=at,
            enters=np.concatenate([np.zeros(0, np.int64), *(p.enters for p in self.patterns)]),
            leaves=np.concatenate([np.zeros(0, np.int64), *(p.leaves for p in self.patterns)]),
        )

    def _spread(self, calls: Calls, played: Played) -> tuple[Intervals, Intervals, Ints]:
        """Return when the calls kept chips busy, when they used links, and which call each use of a link was."""
        folded = self.built.folded
        whose = np.repeat(np.arange(len(folded)), [len(f.entry) for f in folded])
        spans_ps = np.array([p.enters.max() for p in self.patterns])
        first_ps = played.start_ps[calls.first_join :][: len(whose)] - spans_ps[calls.chosen]
        chips, _ = _spread(
            [p.busy for p in self.patterns], calls.chosen, [f.record.ranks for f in folded], whose, first_ps
        )
        links, call = _spread([p.links for p in self.patterns], calls.chosen, self.links, whose, first_ps)
        return chips, links, call


def _spread(
    patterns: Sequence[Intervals], chosen: Ints, names: Sequence[Sequence[int] | Ints], whose: Ints, first_ps: Ints
) -> tuple[Intervals, Ints]:
    """Return the intervals of every call's pattern, with its own names and times, and the call of each."""
    every, lengths = Intervals.join(patterns), np.array([len(p.owner) for p in patterns])
    n = lengths[chosen]
    call = np.repeat(np.arange(len(chosen)), n)
    at = ragged((np.cumsum(lengths) - lengths)[chosen], n)
    first_name = np.cumsum([0, *map(len, names)])[whose]
    name = np.concatenate([np.asarray(some, np.int64) for some in names])[first_name[call] + every.owner[at]]
    return Intervals(name, every.start[at] + first_ps[call], every.end[at] + first_ps[call]), call
