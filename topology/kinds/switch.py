"""Switch: chips behind one or several planes of one switch each."""

from typing import ClassVar

import numpy as np
from attrs import frozen

from configs.spec.topology import LinkSpec, RoutingSpec
from topology.checks import MAX_LANES, link_problems, reject, size_problems
from topology.edges import Edges
from topology.graph import Topology
from topology.routing import ON_ANY_GRAPH, OnePlaneRouter, PlaneRouter, choose_router


@frozen
class Switch:
    """Every chip has `planes[p]` links to the switch of plane p; a transfer is split over all planes.

    With `planes: hash` in the routing a transfer takes one plane, chosen by its pair.

    With `in_network` the switches add up what chips send and hand one chip's data to several (algorithm in_network).

    `link` is one physical link between a chip and a switch; its latency counts twice, up and down.

    >>> nvlink = LinkSpec(25e9, latency_ps=500_000)
    >>> dgx_h100 = Switch(chips=8, planes=(5, 4, 4, 5), link=nvlink).build(RoutingSpec())
    >>> dgx_h100.n_switches, dgx_h100.n_links
    (4, 144)
    >>> route = dgx_h100.route(0, 7)
    >>> [dgx_h100.link_name(link) for link in route.links[:2]], route.latency_ps
    (['chip0→switch0', 'switch0→chip7'], 1000000)
    """

    routings: ClassVar[tuple[str, ...]] = (*ON_ANY_GRAPH, "up_down")

    chips: int
    link: LinkSpec
    planes: tuple[int, ...] = (1,)
    in_network: bool = False

    def __attrs_post_init__(self) -> None:
        problems = size_problems("chips", self.chips, self.chips * len(self.planes))
        if not self.planes or min(self.planes) < 1:
            problems.append(f"planes: at least one plane of at least one link is needed, got {list(self.planes)}")
        elif max(self.planes) * self.link.count > MAX_LANES:
            problems.append(f"planes: at most {MAX_LANES:,} links from a chip to a plane, got {list(self.planes)}")
        reject(problems + link_problems(self.link))

    def build(self, routing: RoutingSpec) -> Topology:
        """Return n_chips * n_planes edges; chip c and plane p are edge c * n_planes + p, upwards first.

        Half of the chips can send all their links can carry: ⌊n / 2⌋ * Σ planes * bandwidth.
        """
        n_planes = len(self.planes)
        one = routing.planes == "hash"
        router = OnePlaneRouter(self.planes) if one else PlaneRouter(self.planes)
        chip, plane = np.divmod(np.arange(self.chips * n_planes), n_planes)
        half_up = self.chips // 2 * sum(self.planes) * self.link.count * self.link.bandwidth_bytes_per_s
        return Topology.from_edges(
            "switch",
            Edges.uniform(self.link, chip, self.chips + plane, lanes=np.tile(self.planes, self.chips)),
            n_chips=self.chips,
            n_switches=n_planes,
            adding_switches=frozenset(range(n_planes)) if self.in_network else frozenset(),
            router=choose_router(routing, router, {"up_down": router}),
            known_diameter_hops=2 if self.chips > 1 else 0,
            known_bisection_bytes_per_s=float(half_up),
        )
