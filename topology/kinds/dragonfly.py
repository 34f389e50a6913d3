"""Dragonfly: groups of routers, all joined within a group, and global links between any two groups."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from attrs import frozen

from configs.spec.topology import LinkSpec, RoutingSpec
from topology.checks import link_problems, reject, size_problems
from topology.edges import Edges
from topology.graph import Topology
from topology.routing import ON_ANY_GRAPH, DragonflyPlan, MinimalRouter, ValiantRouter, choose_router


@frozen
class Dragonfly:
    """`groups` of `routers` with `global_links` ports each to other groups, and `chips` below every router.

    Without `chips` the routers are the chips themselves. Every group has as many global links to each other group as
    its ports allow, ⌊routers * global_links / (groups - 1)⌋, spread over its routers; ports left over are not used.
    `link` joins chips and routers of a group, `global_link` groups (default: the same).

    A rack of Groq: nine nodes of eight chips, each chip with four links out of its node.

    >>> groq = Dragonfly(groups=9, routers=8, global_links=4, link=LinkSpec(12.5e9, latency_ps=1_000_000))
    >>> rack = groq.build(RoutingSpec())
    >>> rack.n_chips, rack.n_switches, rack.n_links
    (72, 0, 396)
    """

    routings: ClassVar[tuple[str, ...]] = (*ON_ANY_GRAPH, "minimal", "valiant")

    groups: int
    routers: int
    global_links: int
    link: LinkSpec
    chips: int = 0
    global_link: LinkSpec | None = None
    axes: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        problems = link_problems(self.link)
        problems += [f"global_{problem}" for problem in link_problems(self.global_link)] if self.global_link else []
        for key, least in (("groups", 1), ("routers", 1), ("chips", 0), ("global_links", 0)):
            if getattr(self, key) < least:
                problems.append(f"{key}: must be at least {least}, got {getattr(self, key)}")
        if len(set(self.axes)) != len(self.axes) or "" in self.axes:
            problems.append(f"axes: names must be different and not empty, got {list(self.axes)}")
        if self.axes and len(self.axes) != (3 if self.chips else 2):
            problems.append(f"axes: {list(self.axes)}; accepted: {3 if self.chips else 2} names")
        reject(problems)
        ports = self.routers * self.global_links
        if ports < self.groups - 1:
            problems.append(
                f"global_links: {self.routers} routers of {self.global_links} links reach {ports} other groups; "
                f"accepted: enough for the other {self.groups - 1}"
            )
        reject(problems + size_problems("groups", self.plan.n_chips, self._n_edges()))

    @property
    def plan(self) -> DragonflyPlan:
        """Who is joined to whom."""
        copies = self.routers * self.global_links // (self.groups - 1) if self.groups > 1 else 0
        return DragonflyPlan(self.groups, self.routers, self.chips, copies)

    def _n_edges(self) -> int:
        return self.plan.first_global_edge + self.groups * (self.groups - 1) // 2 * self.plan.bundles

    def build(self, routing: RoutingSpec) -> Topology:
        """Return the dragonfly; its edges are numbered as `DragonflyPlan` says."""
        plan = self.plan
        switches = plan.groups * plan.routers if self.chips else 0
        routers = plan.n_chips if self.chips else 0
        chip = np.arange(plan.n_chips if self.chips else 0)
        low, high = np.triu_indices(plan.routers, k=1)
        base = routers + plan.routers * np.repeat(np.arange(plan.groups), len(low))
        minimal = MinimalRouter(plan, routing.spread)
        return Topology.from_edges(
            "dragonfly",
            Edges.joined(
                Edges.uniform(self.link, chip, routers + chip // max(1, self.chips)),
                Edges.uniform(self.link, base + np.tile(low, plan.groups), base + np.tile(high, plan.groups)),
                self._global_edges(routers),
            ),
            n_chips=plan.n_chips,
            n_switches=switches,
            dims=(plan.groups, plan.routers, *((self.chips,) if self.chips else ())),
            axes=self.axes or (("groups", "routers", "chips") if self.chips else ("groups", "chips")),
            router=choose_router(
                routing, minimal, {"minimal": minimal, "valiant": ValiantRouter(plan, routing.spread)}
            ),
        )

    def _global_edges(self, first_router: int) -> Edges:
        """Return the edges between groups; the copies between the same two routers are lanes of one."""
        plan = self.plan
        low, high = np.triu_indices(plan.groups, k=1)
        group, goal = np.repeat(low, plan.bundles), np.repeat(high, plan.bundles)
        bundle = np.tile(np.arange(plan.bundles), len(low))
        ends = [
            first_router + here * plan.routers + plan.exit_router(here, there, bundle)
            for here, there in ((group, goal), (goal, group))
        ]
        lanes = plan.copies // plan.routers + (bundle < plan.copies % plan.routers)
        return Edges.uniform(self.global_link or self.link, ends[0], ends[1], lanes)
