"""Torus: a mesh whose axes close to rings, all or some."""

from typing import ClassVar

from attrs import frozen

from configs.spec.topology import LinkSpec, RoutingSpec
from topology.checks import reject
from topology.graph import Topology
from topology.grid import build_grid, grid_problems
from topology.routing import ON_ANY_GRAPH
from topology.twist import standard_twist, twist_problems


@frozen
class Torus:
    """Chips at the points of a grid with wrap per axis (default: all); an axis of 2 has no second edge.

    `twist` is true for that of k×k×2k and k×2k×2k (crossing the end of a short axis also shifts by k along each long
    one), or a row of shifts along all axes for each axis.

    >>> cube = Torus(dims=(4, 4, 4), link=LinkSpec(45e9, latency_ps=1_000_000)).build(RoutingSpec())
    >>> cube.n_links, cube.known_diameter_hops
    (192, 6)
    >>> [cube.link_name(link) for link in cube.route(0, 3).links]
    ['chip0→chip3']
    """

    routings: ClassVar[tuple[str, ...]] = ON_ANY_GRAPH

    dims: tuple[int, ...]
    link: LinkSpec
    axes: tuple[str, ...] = ()
    wrap: tuple[bool, ...] = ()
    twist: bool | tuple[tuple[int, ...], ...] = False

    def __attrs_post_init__(self) -> None:
        problems = grid_problems(self.dims, self.axes, self.link)
        if self.wrap and len(self.wrap) != len(self.dims):
            problems.append(f"wrap: {len(self.wrap)} values {list(self.wrap)} for {len(self.dims)} dims")
        reject(problems)
        reject(twist_problems(self.dims, self._wraps, self.twist))

    @property
    def _wraps(self) -> tuple[bool, ...]:
        return self.wrap or (True,) * len(self.dims)

    def build(self, routing: RoutingSpec) -> Topology:
        """Return the torus: n_chips edges per wrapped axis longer than 2, as `topology.grid` numbers them."""
        twist = standard_twist(self.dims) if self.twist is True else self.twist
        return build_grid(
            "torus",
            dims=self.dims,
            axes=self.axes,
            wraps=self._wraps,
            link=self.link,
            routing=routing,
            twist=twist if twist and any(map(any, twist)) else (),
        )
