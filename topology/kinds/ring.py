"""Ring: a torus of one axis."""

from typing import ClassVar

from attrs import frozen

from configs.spec.topology import LinkSpec, RoutingSpec
from topology.checks import reject
from topology.graph import Topology
from topology.grid import build_grid, grid_problems, one_axis_problems
from topology.routing import ON_ANY_GRAPH


@frozen
class Ring:
    """Chips in a circle; two chips have one edge, one chip has none.

    >>> ring = Ring(dims=(8,), link=LinkSpec(50e9, latency_ps=1_000_000)).build(RoutingSpec())
    >>> ring.n_links, [ring.link_name(link) for link in ring.route(1, 7).links]
    (8, ['chip1→chip0', 'chip0→chip7'])
    """

    routings: ClassVar[tuple[str, ...]] = ON_ANY_GRAPH

    dims: tuple[int, ...]
    link: LinkSpec
    axes: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        reject(one_axis_problems(self.dims) + grid_problems(self.dims, self.axes, self.link))

    def build(self, routing: RoutingSpec) -> Topology:
        """Return the ring: n_chips edges (1 for two chips)."""
        return build_grid("ring", dims=self.dims, axes=self.axes, wraps=(True,), link=self.link, routing=routing)
