"""Mesh: a grid of chips, each joined to the next along every axis."""

from typing import ClassVar

from attrs import frozen

from configs.spec.topology import LinkSpec, RoutingSpec
from topology.checks import reject
from topology.graph import Topology
from topology.grid import build_grid, grid_problems
from topology.routing import ON_ANY_GRAPH


@frozen
class Mesh:
    """Chips at the points of a grid without wrap; `axes` default to x, y, z, w.

    >>> galaxy = Mesh(dims=(8, 4), link=LinkSpec(12.5e9, latency_ps=711_000, count=4)).build(RoutingSpec())
    >>> galaxy.n_chips, galaxy.n_links
    (32, 208)
    >>> [galaxy.link_name(link) for link in galaxy.route(0, 5).links]
    ['chip0→chip4', 'chip4→chip5']
    """

    routings: ClassVar[tuple[str, ...]] = ON_ANY_GRAPH

    dims: tuple[int, ...]
    link: LinkSpec
    axes: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        reject(grid_problems(self.dims, self.axes, self.link))

    def build(self, routing: RoutingSpec) -> Topology:
        """Return the mesh; each axis has n_chips / length * (length - 1) edges (see `topology.grid`)."""
        return build_grid(
            "mesh",
            dims=self.dims,
            axes=self.axes,
            wraps=(False,) * len(self.dims),
            link=self.link,
            routing=routing,
        )
