"""A collective by itself: how it goes, for each pattern in which its members enter."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from cluster.timeline.build import Folded
from cluster.timeline.engine import Played, play
from cluster.timeline.expand import distinct
from cluster.timeline.intervals import Intervals
from cluster.timeline.tasks import TaskGraph
from cluster.timeline.wiring import Wiring
from topology import Topology
from topology.arrays import ragged

Ints = NDArray[np.int64]


@frozen(eq=False)
class Pattern:
    """How a collective goes when its members enter so long before the last one (`enters`).

    leaves: how long after the last entry each member leaves. busy, links: by member and by link, when they are in use
    after the first entry.
    """

    enters: Ints
    leaves: Ints
    busy: Intervals
    links: Intervals


@frozen(eq=False)
class Kind:
    """A collective by itself: a task for every member's entry, its own tasks, and one for every exit.

    Its chips and links are numbered by themselves, so that groups which do the same share it.
    """

    graph: TaskGraph
    capacity: NDArray[np.float64]
    n: int
    owner: NDArray[np.int32]
    peer: NDArray[np.int32]

    @cached_property
    def key(self) -> tuple[bytes, ...]:
        """What two kinds that do the same have in common."""
        g = self.graph
        arrays = (
            g.delay_ps, g.size_bytes, g.route, g.edge_from, g.edge_to, g.route_start, g.route_links, g.route_weights,
            self.capacity, self.owner, self.peer,
        )  # fmt: skip
        return tuple(a.tobytes() for a in arrays)

    def go(self, enters: Ints, *, share: bool) -> Pattern | None:
        """Return how it goes; None if a member leaves before the last one has entered."""
        graph = evolve(self.graph, delay_ps=np.append(enters.max() - enters, self.graph.delay_ps[self.n :]))
        played = play(graph, self.capacity, share=share)
        leaves = played.end_ps[-self.n :] - enters.max()
        if leaves.min() < 0:
            return None
        ends = np.tile(played.end_ps, 2)
        chips = Intervals(np.concatenate([self.owner, self.peer]), np.tile(played.start_ps, 2), ends)
        return Pattern(enters, leaves, chips.merged(), link_use(graph, played).hulls())


def link_use(graph: TaskGraph, played: Played) -> Intervals:
    """Return when transfers use links: from when their latency has passed to when the last byte has."""
    sends = np.flatnonzero((graph.route >= 0) & (graph.size_bytes > 0))
    n_hops = np.diff(graph.route_start)[graph.route[sends]]
    task = np.repeat(sends, n_hops)
    links = graph.route_links[ragged(graph.route_start[graph.route[sends]], n_hops)]
    return Intervals(links, (played.start_ps + graph.delay_ps)[task], played.end_ps[task])


def by_itself(topology: Topology, wiring: Wiring, folded: Folded, capacity: NDArray[np.float64]) -> tuple[Kind, Ints]:
    """Return a collective by itself, and its links in the order of their numbers there."""
    template, ranks = folded.template, folded.record.ranks
    n = len(ranks)
    sends = folded.route >= 0
    used, number = distinct(folded.route[sends].astype(np.int64), len(wiring.routes.latency_ps))
    route, routes = np.full(len(sends), -1, np.int32), wiring.routes.select(used)
    route[sends] = number
    delay = template.delay_ps.copy()
    delay[sends] += routes.latency_ps[route[sends]]
    links, link = _by_first_use(routes.links, len(capacity))
    place = np.full(topology.n_nodes, -1, np.int32)
    place[list(ranks)] = np.arange(n, dtype=np.int32)
    before, after = np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    m = len(delay)
    ends = np.arange(n)
    edge_from = [template.entries[:, 0], template.edges[:, 0] + n, template.exits[:, 0] + n, ends]
    edge_to = [template.entries[:, 1] + n, template.edges[:, 1] + n, template.exits[:, 1] + n + m, ends + n + m]
    graph = TaskGraph(
        np.concatenate([np.zeros(n, np.int64), delay, np.zeros(n, np.int64)]),
        np.concatenate([np.zeros(n), template.size_bytes, np.zeros(n)]),
        np.concatenate([before, route, after]),
        np.concatenate(edge_from), np.concatenate(edge_to),
        routes.start, link.astype(np.int32), routes.weights,
    )  # fmt: skip
    owner = np.concatenate([before, place[template.owner], after])
    peer = np.concatenate([before, np.where(template.peer >= 0, place[template.peer], -1), after])
    return Kind(graph, capacity[links], n, owner, peer), links


def _by_first_use(values: NDArray[np.int32], limit: int) -> tuple[Ints, Ints]:
    """Return the distinct values (0…limit-1) in the order of their first use, and every value's place among them.

    >>> _by_first_use(np.array([5, 2, 5], np.int32), 6)
    (array([5, 2]), array([0, 1, 0]))
    """
    first = np.full(limit, -1)
    first[values[::-1]] = np.arange(len(values))[::-1]
    found = np.flatnonzero(first >= 0)
    order = found[np.argsort(first[found])]
    place = np.empty(limit, np.int64)
    place[order] = np.arange(len(order))
    return order, place[values]
