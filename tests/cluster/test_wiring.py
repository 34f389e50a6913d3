"""A run over the first links of bundles is the run over all links."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.timeline.engine import link_loads, play
from cluster.timeline.tasks import TaskGraph
from cluster.timeline.wiring import wire
from configs.spec.topology import LinkSpec, RoutingSpec
from tests.strategies import topologies
from topology import Compose, Line, Switch

LINK = LinkSpec(1e9, 1000)


@st.composite
def messages(draw):
    """A topology, and messages on it: source, destination, when they start, bytes."""
    topology = draw(topologies())
    n = topology.n_chips
    rows = st.tuples(st.integers(0, n - 1), st.integers(1, n - 1), st.integers(0, 10**6), st.integers(0, 10**5))
    drawn = draw(st.lists(rows, min_size=1, max_size=40))
    return topology, np.array([(src, (src + off) % n, when, size) for src, off, when, size in drawn], np.int64)


def graph_of(routes, route, rows):
    """Return the messages as tasks."""
    none = np.zeros(0, np.int64)
    return TaskGraph(
        rows[:, 2] + routes.latency_ps[route], rows[:, 3].astype(float), route.astype(np.int32), none, none,
        routes.start, routes.links, routes.weights,
    )  # fmt: skip


@given(messages(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_first_links_are_enough(drawn, share):
    """The same picoseconds and, spread over the bundles, the same bytes on every link; nothing is approximate."""
    topology, rows = drawn
    capacity = topology.link_bandwidth_bytes_per_s
    wiring, (route,) = wire(topology, [(rows[:, 0].astype(np.int32), rows[:, 1].astype(np.int32))])
    whole = topology.routes(rows[:, 0], rows[:, 1]).over(np.arange(len(capacity)), len(capacity))
    every = graph_of(whole, np.arange(len(rows)), rows)
    over_first = graph_of(wiring.routes, route, rows)
    got, want = play(over_first, capacity, share=share), play(every, capacity, share=share)
    np.testing.assert_array_equal(got.end_ps, want.end_ps)
    carried = wiring.spread(link_loads(over_first, len(capacity)))
    np.testing.assert_allclose(carried, want.link_bytes, rtol=1e-12)


def test_planes_are_one_bundle():
    """Of 3 planes alike a route keeps one link up and one down; a wider plane has links of its own."""
    for planes, n_kept in (((2, 2, 2), 2), ((2, 1, 2), 4)):
        topology = Switch(4, LINK, planes).build(RoutingSpec())
        src, dst = np.divmod(np.arange(16, dtype=np.int32), 4)
        wiring, _ = wire(topology, [(src[src != dst], dst[src != dst])])
        assert np.diff(wiring.routes.start).tolist() == [n_kept] * 12


def test_links_in_a_row_are_one_bundle():
    """Of two messages between two nodes, the one that begins beside the door uses two bundles, the other one."""
    topology = Compose(Line((2,), LINK), 2, network=Switch(2, LINK), nics=(0,)).build(RoutingSpec())
    wiring, _ = wire(topology, [(np.array([0, 1], np.int32), np.array([2, 3], np.int32))])
    assert np.diff(wiring.routes.start).tolist() == [1, 2]
