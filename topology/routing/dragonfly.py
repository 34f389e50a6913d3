"""Dragonfly: minimal routing over one global link, and Valiant's over a third group."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from topology.graph import Topology
from topology.routes import Routes
from topology.routing.paths import OneOfMany, Spread, pair_hash, pair_key, paths_of_columns

Ints = NDArray[np.int64]


@frozen
class DragonflyPlan:
    """Who is joined to whom: `groups` of `routers` that are all joined to one another, and global links between groups.

    Router r of group G is number G * routers + r. `chips` are below each router; with 0 the routers are the chips
    themselves. The global ports of a group are shared out evenly: `copies` links lead to each other group. Port q of a
    group is at router q % routers, and is copy q % copies of those to group G + 1 + q // copies (round the groups).

    Edges: chip and router (if chips stand below); then pairs of routers, group by group; then `bundles` edges for each
    pair of groups, where copies between the same two routers are one edge. Pairs (a, b), a < b, in the order of (a, b).
    """

    groups: int
    routers: int
    chips: int
    copies: int

    @property
    def n_chips(self) -> int:
        """Number of chips."""
        return self.groups * self.routers * max(1, self.chips)

    @property
    def bundles(self) -> int:
        """Number of edges between two groups."""
        return min(self.copies, self.routers)

    @property
    def local_edges(self) -> int:
        """Number of edges between the routers of a group."""
        return self.routers * (self.routers - 1) // 2

    @property
    def first_global_edge(self) -> int:
        """Number of the first edge between groups."""
        return (self.n_chips if self.chips else 0) + self.groups * self.local_edges

    def exit_router(self, group: Ints, goal: Ints, copy: Ints | int) -> Ints:
        """Return the router of `group` that has this link to the group `goal`."""
        port: Ints = ((goal - group) % self.groups - 1) * self.copies + copy
        return port % self.routers

    def local_link(self, group: Ints, src: Ints, dst: Ints) -> Ints:
        """Return the link between two routers of a group, or -1 where they are the same."""
        edge = (self.n_chips if self.chips else 0) + group * self.local_edges + _pair(self.routers, src, dst)
        return np.where(src == dst, -1, 2 * edge + (src > dst))

    def global_link(self, group: Ints, goal: Ints, bundle: Ints) -> Ints:
        """Return the link from one group to another."""
        edge = self.first_global_edge + _pair(self.groups, group, goal) * self.bundles + bundle
        return 2 * edge + (group > goal)


def _pair(n: int, a: Ints, b: Ints) -> Ints:
    """Return the number of the pair (a, b) among all pairs (low, high) of 0…n-1, low < high."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    number: Ints = low * (2 * n - low - 1) // 2 + high - low - 1
    return number


@frozen
class MinimalRouter(OneOfMany):
    """Go over at most one global link: of those to the goal's group, one with the fewest local links before and after.

    Equally good ones are chosen by the pair. J. Kim et al., "Technology-driven, highly-scalable dragonfly topology",
    ISCA 2008. (A path over two global links can be shorter, where no local link is needed.)
    """

    plan: DragonflyPlan
    spread: Spread
    is_uniform = False

    def routes(self, topology: Topology, src: Ints, dst: Ints) -> Routes:
        """Return the links: up, local, global, local, down."""
        up, down, start, goal = _ends(self.plan, src, dst)
        key = pair_key(self.spread, src, dst)
        return paths_of_columns(topology, [*up, *_minimal(self.plan, start, goal, key), *down])


@frozen
class ValiantRouter(OneOfMany):
    """Go minimally to a third group, chosen by a hash of the pair, and minimally on from there.

    Within a group, and where there is no third one, it is minimal. L. Valiant, "A scheme for fast parallel
    communication", SIAM J. Computing 11 (1982); on a dragonfly: Kim et al. (see `MinimalRouter`).
    """

    plan: DragonflyPlan
    spread: Spread
    is_uniform = False

    def routes(self, topology: Topology, src: Ints, dst: Ints) -> Routes:
        """Return the links: up, local, global, local, global, local, down."""
        plan, key = self.plan, pair_key(self.spread, src, dst)
        up, down, start, goal = _ends(plan, src, dst)
        (group, router), (goal_group, _) = start, goal
        detour = (group != goal_group) & (plan.groups > 2)
        third = pair_hash(src, dst, salt=1) % max(1, plan.groups - 2)
        third += third >= np.minimum(group, goal_group)
        third += third >= np.maximum(group, goal_group)
        third = np.where(detour, third, (group + 1) % plan.groups)
        bundle = _nearest(plan, start, (third, None), key)
        local = plan.local_link(group, router, plan.exit_router(group, third, bundle))
        there = plan.exit_router(third, group, bundle)
        first = [np.where(detour, links, -1) for links in (local, plan.global_link(group, third, bundle))]
        middle = np.where(detour, third, group), np.where(detour, there, router)
        return paths_of_columns(topology, [*up, *first, *_minimal(plan, middle, goal, key), *down])


_Place = tuple[Ints, Ints]


def _ends(plan: DragonflyPlan, src: Ints, dst: Ints) -> tuple[list[Ints], list[Ints], _Place, _Place]:
    """Return the links up and down between chips and routers, if there are any, and both ends' (group, router)."""
    below = max(1, plan.chips)
    start, goal = (np.divmod(chip // below, plan.routers) for chip in (src, dst))
    return ([2 * src], [2 * dst + 1], start, goal) if plan.chips else ([], [], start, goal)


def _minimal(plan: DragonflyPlan, start: _Place, goal: _Place, key: Ints) -> list[Ints]:
    """Return the links between routers: local, global, local; -1 where there is none."""
    (group, router), (goal_group, goal_router) = start, goal
    inside = group == goal_group
    if plan.groups == 1:
        return [plan.local_link(group, router, goal_router)]
    far = np.where(inside, (group + 1) % plan.groups, goal_group)
    bundle = _nearest(plan, start, (far, goal_router), key)
    leave = np.where(inside, goal_router, plan.exit_router(group, far, bundle))
    enter = np.where(inside, goal_router, plan.exit_router(far, group, bundle))
    across = np.where(inside, -1, plan.global_link(group, far, bundle))
    return [plan.local_link(group, router, leave), across, plan.local_link(goal_group, enter, goal_router)]


def _nearest(plan: DragonflyPlan, start: _Place, goal: tuple[Ints, Ints | None], key: Ints) -> Ints:
    """Return the edge to the goal's group with the fewest local links; of equals the first from `key` on, round."""
    (group, router), (goal_group, goal_router) = start, goal
    best, chosen = np.full(len(key), 3 * plan.bundles), np.zeros(len(key), np.int64)
    for bundle in range(plan.bundles):
        n_local = (plan.exit_router(group, goal_group, bundle) != router).astype(np.int64)
        if goal_router is not None:
            n_local += plan.exit_router(goal_group, group, bundle) != goal_router
        score = n_local * plan.bundles + (bundle - key) % plan.bundles
        chosen[score < best] = bundle
        best = np.minimum(best, score)
    return chosen
