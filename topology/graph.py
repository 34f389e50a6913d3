"""The one graph type: chips, switches and directed links, as flat arrays.

Nodes are numbered chips first (node = rank), then switches. Edge e is link 2e, from the edge's first node
to its second, and link 2e + 1 back; each kind numbers its edges in a fixed order that it documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from attrs import Factory, field, frozen

from configs.errors import ConfigError
from topology.arrays import read_only
from topology.edges import Edges
from topology.reach import breadth_first, islands
from topology.routes import Route, Routes
from topology.twist import Twist

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

ROUTE_MEMO_SIZE = 2**17  # routes: all pairs of 362 chips, about 60 MB
TREE_MEMO_NODES = 2**23  # nodes in all searches together: 64 MB


class _Memo(dict[_Key, _Value]):
    """What was found so far: starts afresh when full, and stays behind when its topology is pickled."""

    def remember(self, key: _Key, value: _Value, limit: int) -> None:
        """Keep `value`, and never more than `limit` of them."""
        if len(self) >= limit:
            self.clear()
        self[key] = value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class Router(Protocol):
    """Find the routes between chips of a topology.

    is_uniform: every chip's routes are those of chip 0, moved along the axes (round their ends, shifted by a twist).
    """

    @property
    def is_uniform(self) -> bool:
        """Whether routes look the same from every chip."""

    def route(self, topology: Topology, src: int, dst: int) -> Route:
        """Return the links from chip `src` to chip `dst` (src ≠ dst), in order."""


@runtime_checkable
class ManyRouter(Protocol):
    """A router that finds many routes at once."""

    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return the routes from the chips `src` to the chips `dst`, pair by pair."""


def axis_names(axis: str) -> list[str]:
    """Return the names of one or several axes.

    >>> axis_names("x, y")
    ['x', 'y']
    """
    return [name.strip() for name in axis.split(",")]


@frozen(eq=False)
class Topology:
    """Chips 0…n_chips-1, switches n_chips…n_nodes-1, and directed links between them.

    Every two-way edge is two directed links, listed one after the other; parallel physical links of one edge are one
    directed link of the summed bandwidth with `link_count` lanes. `dims`/`axes` name the chips' coordinates, row-major
    (last axis fastest); a topology without a grid has one axis, `chips`. `positions[rank]` is the chip's place in that
    order, by which it is also called: its rank, unless some chips are dead, which have a place and no rank. `wraps[k]`
    says that axis k has an edge of its own from the last coordinate to the first (so never on an axis shorter than 3).
    `twist` is that of a twisted torus (`topology.twist`). The `known_…` figures come from the kind's closed formula;
    None leaves them to a search.
    """

    kind: str
    n_chips: int
    n_switches: int
    link_src: NDArray[np.int32] = field(converter=read_only, repr=False)
    link_dst: NDArray[np.int32] = field(converter=read_only, repr=False)
    link_bandwidth_bytes_per_s: NDArray[np.float64] = field(converter=read_only, repr=False)
    link_latency_ps: NDArray[np.int64] = field(converter=read_only, repr=False)
    link_count: NDArray[np.int32] = field(converter=read_only, repr=False)
    dims: tuple[int, ...]
    axes: tuple[str, ...]
    wraps: tuple[bool, ...]
    router: Router = field(repr=False)
    positions: NDArray[np.int64] = field(converter=read_only, repr=False)
    twist: Twist = field(default=(), repr=False)
    adding_switches: frozenset[int] = frozenset()
    """The switches, counted from 0, that can add up what chips send and hand one chip's data to several."""
    domain_of_chip: NDArray[np.int64] | None = field(default=None, repr=False)
    """The node that every chip is in, where a network joins nodes (of several levels the innermost); else None."""
    known_diameter_hops: int | None = field(default=None, repr=False)
    known_bisection_bytes_per_s: float | None = field(default=None, repr=False)
    _routes: _Memo[tuple[int, int], Route] = field(default=Factory(_Memo), init=False, repr=False)
    _trees: _Memo[int, tuple[NDArray[np.int32], NDArray[np.int32]]] = field(
        default=Factory(_Memo), init=False, repr=False
    )

    def __attrs_post_init__(self) -> None:
        assert len(self.positions) == self.n_chips
        assert (self.positions[:-1] < self.positions[1:]).all(), "ranks follow the order of the grid"
        assert self.positions[-1] < math.prod(self.dims)
        assert len(self.dims) == len(self.axes) == len(self.wraps)
        assert np.array_equal(self.link_src[0::2], self.link_dst[1::2]), "links come in pairs, there and back"
        assert np.array_equal(self.link_dst[0::2], self.link_src[1::2]), "links come in pairs, there and back"
        assert np.array_equal(self.link_count[0::2], self.link_count[1::2]), "both ways have the same lanes"

    @classmethod
    def from_edges(
        cls,
        kind: str,
        edges: Edges,
        *,
        n_chips: int,
        router: Router,
        n_switches: int = 0,
        dims: tuple[int, ...] = (),
        axes: tuple[str, ...] = (),
        wraps: tuple[bool, ...] = (),
        adding_switches: frozenset[int] = frozenset(),
        domain_of_chip: NDArray[np.int64] | None = None,
        positions: NDArray[np.int64] | None = None,
        twist: Twist = (),
        known_diameter_hops: int | None = None,
        known_bisection_bytes_per_s: float | None = None,
    ) -> Topology:
        """Return the topology of these edges; without `dims` it has the one axis `chips`, and no dead ones."""
        return cls(
            kind=kind,
            n_chips=n_chips,
            n_switches=n_switches,
            link_src=np.stack([edges.src, edges.dst], axis=1).reshape(-1),
            link_dst=np.stack([edges.dst, edges.src], axis=1).reshape(-1),
            link_bandwidth_bytes_per_s=np.repeat(edges.bandwidth_bytes_per_s, 2),
            link_latency_ps=np.repeat(edges.latency_ps, 2),
            link_count=np.repeat(edges.count, 2),
            dims=dims or (n_chips,),
            axes=axes or ("chips",),
            wraps=wraps or (False,) * len(dims or (n_chips,)),
            router=router,
            positions=np.arange(n_chips) if positions is None else positions,
            twist=twist,
            adding_switches=adding_switches,
            domain_of_chip=domain_of_chip,
            known_diameter_hops=known_diameter_hops,
            known_bisection_bytes_per_s=known_bisection_bytes_per_s,
        )

    @property
    def n_nodes(self) -> int:
        """Number of chips and switches."""
        return self.n_chips + self.n_switches

    def crosses(self, src: NDArray[np.integer], dst: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return which transfers go from one node to another over the network; none to or from a switch do."""
        if self.domain_of_chip is None:
            return np.zeros(len(src), np.bool_)
        between, last = np.maximum(src, dst) < self.n_chips, self.n_chips - 1
        src_domain, dst_domain = (self.domain_of_chip[np.minimum(ends, last)] for ends in (src, dst))
        crossing: NDArray[np.bool_] = between & (src_domain != dst_domain)
        return crossing

    @property
    def n_links(self) -> int:
        """Number of physical links: a two-way link once, parallel links each."""
        return int(self.link_count.sum()) // 2

    def route(self, src: int, dst: int) -> Route:
        """Return the route from chip `src` to another chip `dst`; raise ConfigError where there is none."""
        route = self._routes.get((src, dst))
        if route is None:
            self._check_ranks(src, dst)
            if src == dst:
                raise ConfigError((f"chip{src} needs no route to itself",))
            route = self.router.route(self, src, dst)
            self._routes.remember((src, dst), route, ROUTE_MEMO_SIZE)
        return route

    def routes(self, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return the routes from the chips `src` to the chips `dst`, pair by pair (src ≠ dst); not remembered.

        A switch may stand for one of the two: then the route is the link between them.
        """
        hops = np.flatnonzero(np.maximum(src, dst) >= self.n_chips)
        if hops.size:
            others = np.setdiff1d(np.arange(len(src)), hops)
            links = [self.link_between(int(a), int(b)) for a, b in zip(src[hops], dst[hops], strict=True)]
            single = Routes(np.arange(len(hops) + 1), np.array(links, np.int32), np.ones(len(hops)),
                            self.link_latency_ps[links].astype(np.int64))  # fmt: skip
            number = np.empty(len(src), np.int64)
            number[others], number[hops] = np.arange(len(others)), len(others) + np.arange(len(hops))
            return Routes.join([self.routes(src[others], dst[others]), single]).select(number)
        if not len(src):
            return Routes.of([])
        if isinstance(self.router, ManyRouter):
            return self.router.routes(self, src, dst)
        return Routes.of([self.route(a, b) for a, b in zip(src.tolist(), dst.tolist(), strict=True)])

    def coords(self, rank: int) -> tuple[int, ...]:
        """Return the chip's coordinate on every axis."""
        self._check_ranks(rank)
        place, coords = int(self.positions[rank]), []
        for length in reversed(self.dims):
            place, coord = divmod(place, length)
            coords.append(coord)
        return tuple(reversed(coords))

    def rank_of(self, coords: tuple[int, ...]) -> int:
        """Return the chip at these coordinates: the one in place Σ coordinate * stride, the last axis fastest."""
        inside = len(coords) == len(self.dims) and all(0 <= c < d for c, d in zip(coords, self.dims, strict=True))
        if not inside:
            raise ConfigError((f"coordinates {coords} are outside of dims {self.dims}",))
        place = 0
        for coord, length in zip(coords, self.dims, strict=True):
            place = place * length + coord
        ranks = self._ranks_at([place])
        if not ranks:
            raise ConfigError((f"chip{place}, at {coords}, is dead",))
        return ranks[0]

    def axis_ranks(self, rank: int, axis: str) -> tuple[int, ...]:
        """Return the chips on the line through `rank` along `axis`, in the order of the coordinate.

        Several axes, as `x,y`, give the block of all chips that differ in those coordinates only, row-major.
        """
        self._check_ranks(rank)
        axes = axis_names(axis)
        unknown = [name for name in axes if name not in self.axes]
        if unknown:
            raise ConfigError((f"no axis {unknown[0]!r}; the axes are {', '.join(self.axes)}",))
        place = int(self.positions[rank])
        spread = np.zeros(1, np.int64)
        for k, (name, length) in enumerate(zip(self.axes, self.dims, strict=True)):
            if name in axes:
                stride = math.prod(self.dims[k + 1 :])
                place -= place // stride % length * stride
                spread = (spread[:, None] + stride * np.arange(length)).reshape(-1)
        return self._ranks_at(place + spread)

    def _ranks_at(self, places: Sequence[int] | NDArray[np.int64]) -> tuple[int, ...]:
        """Return the ranks of the chips in these places, without the dead ones."""
        ranks = np.searchsorted(self.positions, places)
        alive = np.append(self.positions, -1)[ranks] == np.asarray(places)
        return tuple(ranks[alive].tolist())

    def node_name(self, node: int) -> str:
        """Return `chip3` or `switch1`; chips are called by their place in the grid, also where some are dead."""
        return f"chip{self.positions[node]}" if node < self.n_chips else f"switch{node - self.n_chips}"

    def link_name(self, link: int) -> str:
        """Return `chip3→chip4` or `chip3→switch1`."""
        return f"{self.node_name(int(self.link_src[link]))}→{self.node_name(int(self.link_dst[link]))}"

    def out_links(self, node: int) -> NDArray[np.int32]:
        """Return the links that leave a node, in the order of the nodes they lead to."""
        order, start = self.links_by_src
        return order[start[node] : start[node + 1]]

    def neighbours(self, node: int) -> NDArray[np.int32]:
        """Return the nodes one link away, in ascending order."""
        return self.link_dst[self.out_links(node)]

    def link_between(self, src_node: int, dst_node: int) -> int:
        """Return the link from a node to its neighbour; raise ConfigError where there is none."""
        links = self.out_links(src_node)
        at = int(np.searchsorted(self.link_dst[links], dst_node))
        if at == len(links) or self.link_dst[links[at]] != dst_node:
            raise ConfigError((f"no link {self.node_name(src_node)}→{self.node_name(dst_node)}",))
        return int(links[at])

    def search_tree(self, src: int) -> NDArray[np.int32]:
        """Return the link by which a breadth-first search from node `src` enters each node, or -1.

        Neighbours are visited in ascending order, so of all shortest paths the tree holds the one whose nodes
        come first in lexicographic order.
        """
        return self._searched(src)[0]

    def hops_from(self, src: int) -> NDArray[np.int32]:
        """Return the fewest links from node `src` to each node, or -1."""
        return self._searched(src)[1]

    def _searched(self, src: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        found = self._trees.get(src)
        if found is None:
            found = breadth_first(src, self.link_dst, *self.links_by_src)
            self._trees.remember(src, found, max(1, TREE_MEMO_NODES // self.n_nodes))
        return found

    @cached_property
    def island_of_node(self) -> NDArray[np.int64]:
        """For every node the lowest node that it is connected with: the nodes of an island have the same."""
        return islands(self.n_nodes, self.link_src, self.link_dst)

    @cached_property
    def links_by_src(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The links sorted by (src, dst), and where each node's begin."""
        order = np.lexsort((self.link_dst, self.link_src)).astype(np.int32)
        return order, np.searchsorted(self.link_src[order], np.arange(self.n_nodes + 1))

    def _check_ranks(self, *ranks: int) -> None:
        for rank in ranks:
            if not 0 <= rank < self.n_chips:
                raise ConfigError((f"no chip {rank}; the chips are 0…{self.n_chips - 1}",))
