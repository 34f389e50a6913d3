"""Looking calls up gives what playing all of them gives, to the picosecond, whatever else happens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.records import Await, Collective, Compute, Receive, RecordTable, Send, Start, Trace
from cluster.timeline import reuse
from cluster.timeline.intervals import Intervals
from cluster.timeline.reuse import play_run
from collectives import ALGORITHMS, GroupView
from configs.errors import ConfigError
from configs.spec.communication import CommunicationSpec
from configs.spec.system import SystemSpec
from configs.spec.topology import RoutingSpec
from tests.cluster.machines import CHIP, US, mesh, ring
from tests.strategies import topologies

FLOAT = np.dtype(np.float32)
CALLS = [
    (op, algorithm)
    for op in ("all_reduce", "all_gather", "all_to_all", "broadcast", "reduce", "scatter", "barrier")
    for algorithm in ALGORITHMS[op]
    if algorithm != "synthesised"
]


def fits(topology, op, algorithm, ranks):
    """Return whether the algorithm fits the group."""
    try:
        ALGORITHMS[op][algorithm](GroupView(topology, ranks), 0)
    except ConfigError:
        return False
    return True


@st.composite
def programs(draw):
    """A topology and the lines of a program: chips compute, send, call and start collectives, again and again."""
    topology = draw(topologies())
    n = topology.n_chips
    chips = st.lists(st.integers(0, n - 1), min_size=2, max_size=n, unique=True).map(tuple)
    durations = st.sampled_from([0, 1, 1000, 250_000, 10**6]) | st.integers(0, 10**6)
    sizes = st.sampled_from([0, 1, 64, 1000, 30_001])
    lines = []
    for _ in range(draw(st.integers(1, 5))):
        ranks = draw(chips)
        kind = draw(st.sampled_from(["compute", "send", "collective", "collective", "collective"]))
        if kind == "compute":
            same = draw(st.booleans())
            first = draw(durations)
            lines.append([(r, Compute("k", first if same else draw(durations), "compute")) for r in ranks])
        elif kind == "send":
            src, dst = ranks[:2]
            lines.append([(src, Send(dst, "", draw(sizes))), (dst, Receive(src, ""))])
        else:
            op, algorithm = draw(st.sampled_from(CALLS))
            if fits(topology, op, algorithm, ranks):
                call = Collective(op, algorithm, "g", ranks, 0, (draw(sizes),), FLOAT)
                if draw(st.booleans()):
                    lines.append([(r, call) for r in ranks])
                else:
                    beside = Compute("beside", draw(durations), "compute")
                    lines += [[(r, record) for r in ranks] for record in (Start(call), beside, Await(call, 0))]
    return topology, lines * draw(st.integers(1, 6))


def run(topology, lines, contention="fluid", *, tries, overheads=None):
    """Play the chips' programs with so many tries of looking calls up."""
    table = RecordTable()
    numbers = {rank: [] for rank in range(topology.n_chips)}
    for line in lines:
        for rank, record in line:
            numbers[rank].append(table.number(record))
    traces = [Trace(rank, np.array(own, np.int32)) for rank, own in numbers.items()]
    overheads = overheads or CommunicationSpec(launch_ps=7_000, step_ps=300, link_efficiency=0.9)
    system = SystemSpec("test", CHIP, None, RoutingSpec(), overheads)
    return play_run(system, topology, contention, table.records, traces, tries=tries)


def same(looked_up, played):
    """Require the same times of all operations, the same busy chips and the same bytes on links."""
    for side in ("first_task", "last_task"):
        got, want = (r.played.end_ps[getattr(r.built.operations, side)] for r in (looked_up, played))
        np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(looked_up.played.link_bytes, played.played.link_bytes, rtol=1e-12)
    got, want = (busy(r) for r in (looked_up, played))
    for field in ("owner", "start", "end"):
        np.testing.assert_array_equal(getattr(got, field), getattr(want, field))


def busy(result):
    """Return when chips communicate."""
    built, played = result.built, result.played
    tasks = [Intervals(chips, played.start_ps, played.end_ps) for chips in (built.owner, built.peer)]
    return Intervals.join([*tasks, result.busy]).merged()


@given(programs(), st.sampled_from(["fluid", "fluid", "none"]))
@settings(max_examples=300, deadline=None)
def test_looking_up_is_playing(program, contention):
    """On random topologies and programs, calls that meet each other or other messages included."""
    topology, lines = program
    same(run(topology, lines, contention, tries=3), run(topology, lines, contention, tries=0))


@pytest.mark.heavy
@given(programs(), st.sampled_from(["fluid", "fluid", "none"]), st.integers(1, 5))
@settings(max_examples=3000, deadline=None)
def test_looking_up_is_playing_on_more(program, contention, tries):
    """The same on many more cases."""
    topology, lines = program
    same(run(topology, lines, contention, tries=tries), run(topology, lines, contention, tries=0))


def calls_in_full(result):
    """Return how many tasks there are besides those of operations: the inside of what was played in full."""
    operations = result.built.operations
    return result.built.graph.n_tasks - int(operations.last_task[-1]) - 1


def all_reduce(ranks, algorithm="ring", n=1000):
    """Return the line of a program in which these chips call an all-reduce."""
    call = Collective("all_reduce", algorithm, "g", tuple(ranks), 0, (n,), FLOAT)
    return [(r, call) for r in ranks]


def test_calls_alone_are_looked_up():
    """Three groups on links of their own: nothing is played in full, and one pattern stands for all of them."""
    topology = mesh(3, 4).topology.build(RoutingSpec())
    lines = [all_reduce(range(4 * row, 4 * row + 4)) for row in range(3)] * 10
    looked_up = run(topology, lines, tries=3)
    assert calls_in_full(looked_up) == 0
    same(looked_up, run(topology, lines, tries=0))


def test_a_call_that_meets_a_message_is_played():
    """Of ten calls the one that a message passes on the same link is played in full, and all times are right."""
    topology = ring(4).topology.build(RoutingSpec())
    message = [(0, Send(2, "", 10**4)), (2, Receive(0, ""))]
    lines = [*[all_reduce((1, 2))] * 5, message, *[all_reduce((1, 2))] * 5]
    looked_up, played = (run(topology, lines, tries=tries) for tries in (3, 0))
    assert 0 < calls_in_full(looked_up) < calls_in_full(played)
    same(looked_up, played)


def test_members_that_leave_before_others_enter():
    """The root of a broadcast does not wait; such calls are played in full."""
    topology = ring(4).topology.build(RoutingSpec())
    call = Collective("broadcast", "binomial", "g", (0, 1, 2, 3), 0, (100,), FLOAT)
    late = [(3, Compute("k", 50 * US, "compute"))]
    lines = [late, [(r, call) for r in range(4)]] * 4
    looked_up, played = (run(topology, lines, tries=tries) for tries in (3, 0))
    assert calls_in_full(looked_up) == calls_in_full(played) > 0
    same(looked_up, played)


def test_too_many_patterns(monkeypatch):
    """Calls that are entered in ever new ways are played in full."""
    topology = ring(3).topology.build(RoutingSpec())
    late = [[(0, Compute(f"k{i}", 1000 * (i + 1), "compute"))] for i in range(5)]
    lines = [line for one in late * 3 for line in (one, all_reduce(range(3)))]
    for most, folds in ((64, True), (3, False)):
        monkeypatch.setattr(reuse, "MOST_PATTERNS", most)
        looked_up = run(topology, lines, tries=3)
        assert (calls_in_full(looked_up) == 0) == folds
        same(looked_up, run(topology, lines, tries=0))


def test_the_end_of_the_clock_counts_calls():
    """Looked-up calls cannot pass the end of the clock either."""
    topology = ring(3, bandwidth=1e-3).topology.build(RoutingSpec())
    lines = [all_reduce(range(3), n=10**4)] * 200
    messages = []
    for tries in (3, 0):
        with pytest.raises(ConfigError, match="the run could take") as caught:
            run(topology, lines, tries=tries)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
