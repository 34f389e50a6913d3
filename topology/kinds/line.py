"""Line: a mesh of one axis."""

from typing import ClassVar

from attrs import frozen

from configs.spec.topology import LinkSpec, RoutingSpec
from topology.checks import reject
from topology.graph import Topology
from topology.grid import build_grid, grid_problems, one_axis_problems
from topology.routing import ON_ANY_GRAPH


@frozen
class Line:
    """Chips in a row, each joined to the next.

    >>> line = Line(dims=(4,), link=LinkSpec(12.5e9, latency_ps=711_000)).build(RoutingSpec())
    >>> line.n_links, line.route(0, 3).latency_ps
    (3, 2133000)
    """

    routings: ClassVar[tuple[str, ...]] = ON_ANY_GRAPH

    dims: tuple[int, ...]
    link: LinkSpec
    axes: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        reject(one_axis_problems(self.dims) + grid_problems(self.dims, self.axes, self.link))

    def build(self, routing: RoutingSpec) -> Topology:
        """Return the line: n_chips - 1 edges."""
        return build_grid("line", dims=self.dims, axes=self.axes, wraps=(False,), link=self.link, routing=routing)
