"""Fully connected: an edge between any two chips."""

from typing import ClassVar

import numpy as np
from attrs import frozen

from configs.spec.topology import LinkSpec, RoutingSpec
from topology.checks import link_problems, reject, size_problems
from topology.edges import Edges
from topology.graph import Topology
from topology.routing import ON_ANY_GRAPH, DirectRouter, choose_router


@frozen
class FullyConnected:
    """Chips that are all neighbours; a pair can use its own edge only.

    >>> mi300x = FullyConnected(chips=8, link=LinkSpec(64e9, latency_ps=1_000_000)).build(RoutingSpec())
    >>> mi300x.n_links, mi300x.link_name(mi300x.route(5, 2).links[0])
    (28, 'chip5→chip2')
    """

    routings: ClassVar[tuple[str, ...]] = ON_ANY_GRAPH

    chips: int
    link: LinkSpec

    def __attrs_post_init__(self) -> None:
        n_edges = self.chips * (self.chips - 1) // 2
        reject(size_problems("chips", self.chips, n_edges) + link_problems(self.link))

    def build(self, routing: RoutingSpec) -> Topology:
        """Return n * (n - 1) / 2 edges (a, b), a < b, in the order of (a, b).

        A cut into halves crosses ⌊n / 2⌋ * ⌈n / 2⌉ edges. The direct link is the shortest path as well.
        """
        direct = DirectRouter()
        src, dst = np.triu_indices(self.chips, k=1)
        cut_edges = self.chips // 2 * ((self.chips + 1) // 2)
        return Topology.from_edges(
            "fully_connected",
            Edges.uniform(self.link, src, dst),
            n_chips=self.chips,
            router=choose_router(routing, direct, {"shortest": direct, "ecmp": direct}),
            known_diameter_hops=min(1, self.chips - 1),
            known_bisection_bytes_per_s=float(cut_edges * self.link.count * self.link.bandwidth_bytes_per_s),
        )
