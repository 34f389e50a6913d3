"""Chips that are not played have the times that they would have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.records import Await, Collective, Compute, Mark, Receive, RecordTable, Send, Start, Trace
from cluster.timeline.copies import find_copies
from cluster.timeline.reuse import play_run
from cluster.timeline.timeline import time_run
from collectives import NO_FILES
from configs.spec.communication import CommunicationSpec
from configs.spec.system import SystemSpec
from configs.spec.topology import LinkSpec, RoutingSpec
from tests.cluster.machines import CHIP
from topology import Compose, Mesh, Switch, Torus

FLOAT = np.dtype(np.float32)
LINK = LinkSpec(1e9, 1000)
MACHINES = {
    "rows of a mesh": Mesh((4, 3), LINK),
    "rows of a torus": Torus((4, 3), LINK),
    "nodes behind switches": Compose(Switch(3, LINK, (2, 1)), 4, network=Switch(4, LINK), nics=(0,)),
    "one switch": Switch(12, LINK, (1, 1)),
}


def traces_of(rows):
    """Return records and traces of the chips' records, row after row of three chips; the chips are in a layer."""
    table = RecordTable()
    layers = np.array([[0, 5]], np.int32)
    numbers = [np.array([table.number(record) for record in chip], np.int32) for row in rows for chip in row]
    return table.records, [Trace(rank, own, layers) for rank, own in enumerate(numbers)]


@st.composite
def lines(draw):
    """What every row does, for chips 0…2 of a row that begins at `first`."""
    kinds = st.sampled_from(["compute", "send", "all_reduce", "all_to_all", "started", "mark"])
    found = []
    for kind in draw(st.lists(kinds, min_size=1, max_size=6)):
        size = draw(st.sampled_from([0, 3, 1000, 30_001]))
        found.append((kind, size, draw(st.permutations(range(3)))))
    return found


def row_of(first, program, slow=0):
    """Return the records of the three chips of a row; `slow` makes the first of them slower."""
    chips = [[Compute("wait", slow, "compute")], [], []]
    for kind, size, order in program:
        ranks = tuple(first + place for place in order)
        if kind == "compute":
            for place in range(3):
                chips[place].append(Compute("k", size * (1 + place), "memory"))
        elif kind == "mark":
            for chip in chips:
                chip.append(Mark("m", 0))
        elif kind == "send":
            chips[order[0]].append(Send(ranks[1], "", size))
            chips[order[1]].append(Receive(ranks[0], ""))
        else:
            op = "all_reduce" if kind == "started" else kind
            algorithm = {"all_reduce": "ring", "all_to_all": "direct"}[op]
            call = Collective(op, algorithm, f"g.{first}", ranks, 0, (size,), FLOAT)
            for chip in chips:
                more = [Start(call), Compute("beside", 100, "compute"), Await(call, 0)]
                chip.extend(more if kind == "started" else [call])
    return chips


@pytest.mark.parametrize("machine", MACHINES)
@given(
    lines(), st.lists(st.sampled_from([0, 0, 0, 70_000]), min_size=4, max_size=4), st.sampled_from(["fluid", "none"])
)
@settings(max_examples=25, deadline=None)
def test_copies_have_the_times_of_playing_all(machine, program, slow, contention):
    """Rows that do the same, or not, on links of their own, or not."""
    topology = MACHINES[machine].build(RoutingSpec())
    overheads = CommunicationSpec(launch_ps=7_000, step_ps=300, link_efficiency=0.9)
    system = SystemSpec("test", CHIP, None, RoutingSpec(), overheads)
    records, traces = traces_of([row_of(3 * i, program, slow[i]) for i in range(4)])
    timeline = time_run(system, topology, contention, records, traces)
    whole = play_run(system, topology, contention, records, traces)
    ops = whole.built.operations
    timed = np.array([not isinstance(record, Mark) for record in ops.records])[ops.number]
    np.testing.assert_array_equal(timeline.chip, ops.chip[timed])
    np.testing.assert_array_equal(timeline.record, ops.number[timed])
    np.testing.assert_array_equal(timeline.end_ps, whole.played.end_ps[ops.last_task][timed])
    np.testing.assert_array_equal(timeline.link, np.flatnonzero(whole.link_bytes))
    capacity = topology.link_bandwidth_bytes_per_s * 0.9 * max(timeline.total_ps, 1) * 1e-12
    use = (whole.link_bytes / capacity)[timeline.link]
    np.testing.assert_allclose([link.utilisation for link in timeline.links], use, rtol=1e-12)
    assert sum(row.count for row in timeline.operations) == timed.sum()
    assert {row.layer for row in timeline.operations} == {5}


def played(machine, rows):
    """Return which chips are played."""
    records, traces = traces_of(rows)
    copies = find_copies(MACHINES[machine].build(RoutingSpec()), records, traces, NO_FILES)
    return [trace.rank for trace in copies.played(traces)]


CALLS = [("all_reduce", 1000, (0, 1, 2)), ("send", 10, (2, 0, 1))]


def test_rows_that_do_the_same_are_played_once():
    """On links of their own; also the nodes' chips, which the network joins but which do not use it."""
    for machine in ("rows of a mesh", "rows of a torus", "nodes behind switches", "one switch"):
        assert played(machine, [row_of(3 * i, CALLS) for i in range(4)]) == [0, 1, 2]


def test_what_differs_is_played():
    """A row that is slower, and one whose ring runs the other way, are played themselves; others are their copies."""
    other = [("all_reduce", 1000, (0, 2, 1)), CALLS[1]]
    rows = [row_of(0, CALLS), row_of(3, CALLS, slow=5), row_of(6, other), row_of(9, CALLS)]
    assert played("one switch", rows) == list(range(9))


def test_rows_that_meet_on_a_link_are_played():
    """Chip 3 of a mesh's first row sends over the second row's links as well."""
    rows = [row_of(3 * i, [("all_reduce", 1000, (0, 1, 2))]) for i in range(4)]
    rows[0][0].append(Send(5, "", 10))
    rows[1][2].append(Receive(0, ""))
    assert played("rows of a mesh", rows) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
