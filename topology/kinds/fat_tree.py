"""Fat tree: chips below two or three tiers of switches, with rails and a taper."""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar

import numpy as np
from attrs import frozen

from configs.spec.topology import LinkSpec, RoutingSpec
from topology.checks import link_problems, reject, size_problems
from topology.edges import Edges
from topology.graph import Topology
from topology.routing import ON_ANY_GRAPH, FatTreePlan, UpDownRouter, choose_router

MAX_RADIX = 4096


@frozen
class FatTree:
    """Nodes of `rails` chips below switches of `radix` ports: chip i of every node is at a leaf of rail i.

    A leaf has `down` ports to chips and `up` ports to spines; without them, all its ports are shared out in the ratio
    `taper`:1, down to up. One tier of spines is above all leaves as long as a spine has ports for them; beyond, `tiers:
    3` makes pods of radix / 2 leaves, whose spines have as many ports up to cores. There are as many spines and cores
    as the cables need ports, no more; all leaves of a pod have equally many cables to each of its spines. `link` is the
    cable of a chip, `uplink` that between switches (default: the same).

    DGX SuperPOD H100, 1,024 GPUs: 32 leaves, 16 spines, 2 cables from leaf to spine.

    >>> ndr = LinkSpec(50e9, latency_ps=500_000)
    >>> superpod = FatTree(chips=1024, radix=64, link=ndr, rails=8)
    >>> superpod.plan.n_leaves, superpod.plan.n_spines, superpod.build(RoutingSpec()).n_links
    (32, 16, 2048)
    """

    routings: ClassVar[tuple[str, ...]] = (*ON_ANY_GRAPH, "up_down")

    chips: int
    radix: int
    link: LinkSpec
    tiers: int = 2
    rails: int = 1
    taper: float = 1.0
    down: int | None = None
    up: int | None = None
    uplink: LinkSpec | None = None
    axes: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        problems = size_problems("chips", self.chips, 0) + link_problems(self.link)
        problems += [f"up{problem}" for problem in link_problems(self.uplink or self.link)] if self.uplink else []
        reject(problems + self._shape_problems())
        reject(self._size_problems())

    def _shape_problems(self) -> list[str]:
        problems = []
        if self.tiers not in {2, 3}:
            problems.append(f"tiers: {self.tiers} is not possible; accepted: 2, 3")
        if not 2 <= self.radix <= MAX_RADIX or (self.tiers == 3 and self.radix % 2):
            even = ", even for three tiers" if self.tiers == 3 else ""
            problems.append(f"radix: {self.radix} ports; accepted: 2 to {MAX_RADIX}{even}")
        if self.rails < 1 or self.chips % max(1, self.rails):
            problems.append(f"rails: {self.chips} chips are no whole number of nodes of {self.rails}")
        if self.axes and len(self.axes) != (1 if self.rails == 1 else 2):
            problems.append(f"axes: {list(self.axes)}; accepted: {1 if self.rails == 1 else 2} names")
        if len(set(self.axes)) != len(self.axes) or "" in self.axes:
            problems.append(f"axes: names must be different and not empty, got {list(self.axes)}")
        return problems + self._port_problems()

    def _port_problems(self) -> list[str]:
        """Return what is wrong with how a leaf's ports are shared out."""
        if (self.down is None) != (self.up is None):
            return ["down: is given together with up or not at all"]
        if not 0 < self.taper <= MAX_RADIX:
            return [f"taper: {self.taper:g} is out of range; accepted: > 0 and ≤ {MAX_RADIX}"]
        if self.down is not None and self.up is not None:
            if self.taper != 1:
                return [f"taper: {self.taper:g} is given beside down and up, which say the same"]
            if min(self.down, self.up) < 1 or self.down + self.up > self.radix:
                limit = f"at least 1 each, at most {self.radix} together"
                return [f"down: {self.down} and up: {self.up} ports of a leaf; accepted: {limit}"]
            return []
        ports = self.radix / (1 + Fraction(self.taper).limit_denominator(1000))
        if ports.denominator != 1 or not 1 <= ports < self.radix:
            return [
                f"taper: {self.radix} ports cannot be shared out {self.taper:g}:1; accepted: down and up in its place"
            ]
        return []

    def _size_problems(self) -> list[str]:
        """Return whether the tiers have too few ports, or the tree is too large."""
        down, up = self.leaf_ports
        n_leaves = -(-(self.chips // self.rails) // down) * self.rails
        most_leaves = self.radix if self.tiers == 2 else self.radix**2 // 2
        if n_leaves > most_leaves:
            more = "; accepted: tiers: 3, or switches of more ports" if self.tiers == 2 else ""
            return [f"chips: {n_leaves} leaves of {down} chips; {self.tiers} tiers reach at most {most_leaves}{more}"]
        return size_problems("chips", self.chips, self.chips + n_leaves * up * (self.tiers - 1))

    @property
    def leaf_ports(self) -> tuple[int, int]:
        """Ports of a leaf: to chips, to spines."""
        if self.down is not None and self.up is not None:
            return self.down, self.up
        up = int(self.radix / (1 + Fraction(self.taper).limit_denominator(1000)))
        return self.radix - up, up

    @property
    def plan(self) -> FatTreePlan:
        """Who is joined to whom."""
        down, up = self.leaf_ports
        n_leaves = -(-(self.chips // self.rails) // down) * self.rails
        if n_leaves <= self.radix:
            spines = _divisor_from(up, -(-n_leaves * up // self.radix)) if n_leaves > 1 else 0
            return FatTreePlan(self.chips, self.rails, down, n_leaves, spines, 0)
        half = self.radix // 2
        n_pods = -(-n_leaves // half)
        cores = _divisor_from(half, -(-n_pods * half // self.radix))
        return FatTreePlan(self.chips, self.rails, down, half, up, cores)

    def build(self, routing: RoutingSpec) -> Topology:
        """Return the tree: one edge per chip, one per leaf and spine, one per spine and core, numbered in this order.

        Its diameter is 2 links below one leaf, 4 below one pod's spines, else 6.
        """
        plan, uplink = self.plan, self.uplink or self.link
        chip = np.arange(self.chips)
        leaf, spine = np.divmod(np.arange(plan.n_leaves * plan.pod_spines), max(1, plan.pod_spines))
        above_leaf = leaf // plan.pod_leaves * plan.pod_spines + spine
        number, core = np.divmod(np.arange(plan.n_spines * plan.spine_cores), max(1, plan.spine_cores))
        above_spine = number % max(1, plan.pod_spines) * plan.spine_cores + core
        leaves, spines = self.chips, self.chips + plan.n_leaves
        cores = spines + plan.n_spines
        router = UpDownRouter(plan, routing.spread)
        by_rail = self.rails > 1
        return Topology.from_edges(
            "fat_tree",
            Edges.joined(
                Edges.uniform(self.link, chip, leaves + plan.leaf(chip)),
                Edges.uniform(
                    uplink, leaves + leaf, spines + above_leaf, self.leaf_ports[1] // max(1, plan.pod_spines)
                ),
                Edges.uniform(
                    uplink, spines + number, cores + above_spine, self.radix // 2 // max(1, plan.spine_cores)
                ),
            ),
            n_chips=self.chips,
            n_switches=plan.n_leaves + plan.n_spines + plan.n_cores,
            dims=(self.chips // self.rails, self.rails) if by_rail else (self.chips,),
            axes=self.axes or (("nodes", "rails") if by_rail else ("chips",)),
            router=choose_router(routing, router, {"up_down": router}),
            known_diameter_hops=0 if self.chips == 1 else 2 + 2 * (plan.n_leaves > 1) + 2 * (plan.n_pods > 1),
            known_bisection_bytes_per_s=self._bisection_bytes_per_s(plan),
        )

    def _bisection_bytes_per_s(self, plan: FatTreePlan) -> float | None:
        """Return the least cut of the chips into halves, or None where no formula is known.

        The tiers above the leaves are never narrower than these. So with all switches above on one side, x of the f
        chips of a leaf on the other cost min(x * chip, (f - x) * chip + up * uplink): a leaf is best taken whole, and
        equally full leaves are all worth the same. Where no leaf is tapered all chips of a half can send at once.
        """
        chip = self.link.bandwidth_bytes_per_s * self.link.count
        uplink = self.uplink or self.link
        up = self.leaf_ports[1] * uplink.bandwidth_bytes_per_s * uplink.count if plan.pod_spines else 0.0
        fills = np.bincount(plan.leaf(np.arange(self.chips)), minlength=plan.n_leaves)
        half, fill = self.chips // 2, int(fills.max())
        if plan.n_leaves == 1 or fill * chip <= up:
            return float(half * chip)
        if (fills != fill).any():
            return None
        whole, part = divmod(half, fill)
        return float(whole * min(fill * chip, up) + min(part * chip, (fill - part) * chip + up))


def _divisor_from(number: int, least: int) -> int:
    """Return the smallest divisor of `number` that is at least `least`.

    >>> _divisor_from(32, 12)
    16
    """
    return next(n for n in range(max(1, least), number + 1) if number % n == 0)
