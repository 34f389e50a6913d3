"""The exact bisection of any narrow topology, by a sweep over its nodes.

Nodes are placed on one of two sides, one after the other. What is still open of the nodes already placed are only the
sides of those with a neighbour to come (the frontier), and how many chips are inside; for every such state the least
bandwidth cut so far is kept. So the work is Σ over nodes of 2^frontier * chips / 2, small for meshes, boards behind
switches and few nodes in a network, whatever the number of halves.

Source: dynamic programming over a vertex separation, as in H. Bodlaender, "A partial k-arboretum of graphs with bounded
treewidth", Theoretical Computer Science 209 (1998).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from topology.graph import Topology

MOST_STATES = 2**21  # at a time: 16 MB
MOST_WORK = 2**25  # states of all nodes: about a second
MOST_NODES = 2048
MOST_CANDIDATES = 32  # for the next place in the order


@frozen
class Step:
    """Place `node`, which is the last of `frontier`; then drop the places of those with no neighbour to come."""

    node: int
    frontier: tuple[int, ...]
    drop: tuple[int, ...]


def searched_bisection_bytes_per_s(topology: Topology) -> float | None:
    """Return the least bandwidth, per direction, between two halves of the chips; None if the topology is too wide.

    Halves are equal, or one chip apart if the number of chips is odd; switches stand where the cut is smaller.

    >>> from configs.spec.topology import LinkSpec, RoutingSpec
    >>> from topology.kinds.mesh import Mesh
    >>> searched_bisection_bytes_per_s(Mesh(dims=(8, 4), link=LinkSpec(1e9, latency_ps=0)).build(RoutingSpec()))
    4000000000.0
    """
    n_inside = topology.n_chips // 2
    if topology.n_nodes > MOST_NODES:
        return None
    by_degree = sorted(range(topology.n_nodes), key=lambda node: (len(topology.neighbours(node)), node))
    plans = [
        _plan(topology, n_inside + 1, by_degree[:1]),
        _plan(topology, n_inside + 1, range(topology.n_chips, topology.n_nodes)),
    ]
    steps = min((plan for plan in plans if plan is not None), key=_work, default=None)
    if steps is None:
        return None
    cost = np.full(n_inside + 1, np.inf)
    cost[0] = 0.0
    for step in steps:
        cost = _place(topology, step, cost)
    return float(cost[n_inside])


def _work(steps: Sequence[Step]) -> int:
    return sum(2 ** len(step.frontier) for step in steps)


def _plan(topology: Topology, n_counts: int, first: Sequence[int]) -> list[Step] | None:
    """Return an order of the nodes: some first, then whichever keeps the frontier narrow; None if it gets too wide."""
    to_come = [set(topology.neighbours(node).tolist()) for node in range(topology.n_nodes)]
    near = [tuple(nodes) for nodes in to_come]
    left = dict.fromkeys([*first, *range(topology.n_nodes)])
    frontier, steps = list[int](), list[Step]()
    while left:
        node = next(iter(left))
        if len(steps) >= len(first):
            candidates = heapq.nsmallest(MOST_CANDIDATES, {o for placed in frontier for o in to_come[placed]}) or [node]
            node = min(candidates, key=lambda c: (bool(to_come[c]) - sum(to_come[p] == {c} for p in frontier), c))
        del left[node]
        for other in near[node]:
            to_come[other].discard(node)
        frontier.append(node)
        drop = tuple(place for place, placed in enumerate(frontier) if not to_come[placed])
        steps.append(Step(node, tuple(frontier), drop))
        if 2 ** len(frontier) * n_counts > MOST_STATES:
            return None
        frontier = [placed for placed in frontier if to_come[placed]]
    return steps if _work(steps) * n_counts <= MOST_WORK else None


def _place(topology: Topology, step: Step, cost: np.ndarray) -> np.ndarray:
    """Return the least cost of every state after a node is placed; the last axis counts the chips inside."""
    inside = cost
    if step.node < topology.n_chips:
        inside = np.full_like(cost, np.inf)
        inside[..., 1:] = cost[..., :-1]
    placed = np.stack([cost, inside], axis=-2)
    neighbours = set(topology.neighbours(step.node).tolist())
    for place, other in enumerate(step.frontier[:-1]):
        if other in neighbours:
            bandwidth = topology.link_bandwidth_bytes_per_s[topology.link_between(step.node, other)]
            for side in (0, 1):
                _apart(placed, place, side)[...] += bandwidth
    result: np.ndarray = placed.min(axis=step.drop) if step.drop else placed
    return result


def _apart(cost: np.ndarray, place: int, side: int) -> np.ndarray:
    """Return the states in which the node at a place of the frontier is on this side and the last one on the other."""
    index: list[Sequence[int] | slice | int] = [slice(None)] * cost.ndim
    index[place], index[-2] = side, 1 - side
    view: np.ndarray = cost[tuple(index)]
    return view
