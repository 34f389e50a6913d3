"""Graph: chips and switches joined by the links that are listed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
from attrs import field, frozen

from configs import fields
from configs.errors import ConfigError
from configs.problems import shown
from configs.spec.topology import MOST_LINKS, LinkSpec, RoutingSpec
from topology.checks import MAX_CHIPS, link_problems, reject, size_problems
from topology.edges import Edges
from topology.graph import Topology
from topology.grid import default_axes, shape_problems
from topology.routing import ON_ANY_GRAPH, ShortestPathRouter, choose_router

if TYPE_CHECKING:
    from numpy.typing import NDArray

Node = int | str

_NAME = re.compile(r"(chip|switch)(0|[1-9][0-9]{0,8})")


@frozen
class GraphLink:
    """An edge: what it joins, and where it differs from the graph's `link`; figures are those of one link of `count`.

    between: two nodes; `chip3`, or just 3, and `switch1`.
    """

    between: tuple[Node, Node]
    count: int | None = field(default=None, metadata=fields.between(1, MOST_LINKS))
    bandwidth_bytes_per_s: float | None = field(default=None, metadata=fields.above(0))
    latency_ps: int | None = field(default=None, metadata=fields.at_least(0))


def _graph_links(links: Sequence[GraphLink | Sequence[Node]]) -> tuple[GraphLink, ...]:
    """Return the links, each written out: `[0, 1, 2]` is `{between: [0, 1], count: 2}`."""
    found, problems = [], []
    for i, link in enumerate(links):
        if isinstance(link, GraphLink):
            found.append(link)
        elif len(link) in (2, 3) and isinstance(n := (*link, None)[2], int | None) and (n is None or n > 0):
            found.append(GraphLink((link[0], link[1]), n))
        else:
            accepted = "two nodes, and how many links join them if not one, such as [0, 1, 2]"
            problems.append(f"links[{i}]: {shown(list(link))}; accepted: {accepted}")
    reject(problems)
    return tuple(found)


@frozen
class Graph:
    """Explicit links between chips and switches; not all chips need to be joined, as long as no route is asked for.

    A link is `[0, 1, 2]` (two nodes, then how many parallel links, if not that of `link`) or a mapping with
    figures of its own; `link` gives what the links do not say. Chips that form a grid may have `dims` and `axes`,
    ranks row-major.

    >>> nvlink = LinkSpec(25e9, latency_ps=700_000)
    >>> triangle = Graph(chips=3, links=((0, 1, 2), (1, 2), ("chip0", 2)), link=nvlink).build(RoutingSpec())
    >>> triangle.n_links, [triangle.link_name(link) for link in triangle.route(0, 1).links]
    (4, ['chip0→chip1'])
    >>> star = Graph(chips=2, switches=1, links=((0, "switch0"), (1, "switch0", 4)), link=nvlink)
    >>> star.build(RoutingSpec()).route(0, 1).latency_ps
    1400000
    """

    routings: ClassVar[tuple[str, ...]] = ON_ANY_GRAPH

    chips: int
    links: tuple[GraphLink | tuple[Node, ...], ...] = field(converter=_graph_links)
    switches: int = 0
    link: LinkSpec | None = None
    dims: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        problems = size_problems("chips", self.chips, len(self.links))
        if not 0 <= self.switches <= MAX_CHIPS:
            problems.append(f"switches: 0 to {MAX_CHIPS:,}, got {self.switches:,}")
        reject(problems)
        problems = link_problems(self.link) if self.link else []
        problems += _grid_problems(self.dims, self.axes, self.chips)
        reject(problems + self._links_problems())

    def build(self, routing: RoutingSpec) -> Topology:
        """Return the graph: edge e is `links[e]`, from its first node to its second; routes are shortest paths."""
        ends = np.array([self._ends(link) for link in self._links], np.int32).reshape(-1, 2)
        figures = [self._figures(link) for link in self._links]
        count = np.array([f.count for f in figures], np.int32)
        edges = Edges(
            src=ends[:, 0],
            dst=ends[:, 1],
            bandwidth_bytes_per_s=np.array([f.count * f.bandwidth_bytes_per_s for f in figures], np.float64),
            latency_ps=np.array([f.latency_ps for f in figures], np.int64),
            count=count,
        )
        return Topology.from_edges(
            "graph",
            edges,
            n_chips=self.chips,
            n_switches=self.switches,
            dims=self.dims,
            axes=self.axes or (default_axes(len(self.dims)) if self.dims else ()),
            wraps=_wraps(self.dims, ends),
            router=choose_router(routing, ShortestPathRouter()),
        )

    @property
    def _links(self) -> tuple[GraphLink, ...]:
        return cast("tuple[GraphLink, ...]", self.links)  # its converter has written them out

    def _ends(self, link: GraphLink) -> tuple[int, int]:
        return self._number(link.between[0]), self._number(link.between[1])

    def _number(self, node: Node) -> int:
        """Return a node's number, chips before switches; raise ConfigError if there is no such node."""
        match = _NAME.fullmatch(node) if isinstance(node, str) else None
        is_switch = match is not None and match[1] == "switch"
        number = int(match[2]) if match else node
        if not isinstance(number, int) or not 0 <= number < (self.switches if is_switch else self.chips):
            switches = f" or switch0…switch{self.switches - 1}" if self.switches else " (there are no switches)"
            raise ConfigError((f"no node {shown(node)}; accepted: chip0…chip{self.chips - 1}{switches}",))
        return self.chips + number if is_switch else number

    def _figures(self, link: GraphLink) -> LinkSpec:
        """Return what one edge is: its own figures, else those of `link`."""
        default = self.link or LinkSpec(math.nan, -1)
        return LinkSpec(
            default.bandwidth_bytes_per_s if link.bandwidth_bytes_per_s is None else link.bandwidth_bytes_per_s,
            default.latency_ps if link.latency_ps is None else link.latency_ps,
            default.count if link.count is None else link.count,
        )

    def _links_problems(self) -> list[str]:
        problems: list[str] = []
        seen: dict[tuple[int, int], int] = {}
        for i, link in enumerate(self._links):
            try:
                src, dst = self._ends(link)
            except ConfigError as error:
                problems.append(f"links[{i}]: {error}")
                continue
            first = seen.setdefault((min(src, dst), max(src, dst)), i)
            if src == dst:
                problems.append(f"links[{i}]: {shown(link.between[0])} cannot be linked to itself")
            elif first != i:
                problems.append(f"links[{i}]: joins the same nodes as links[{first}]; accepted: one entry with a count")
            missing = [key for key in ("bandwidth", "latency") if self.link is None and _own(link, key) is None]
            problems += [f"links[{i}]: has no {key}; accepted: one here or in `link`" for key in missing]
            problems += [f"links[{i}].{problem[5:]}" for problem in link_problems(self._figures(link)) if not missing]
        return problems


def _own(link: GraphLink, key: str) -> float | None:
    return link.bandwidth_bytes_per_s if key == "bandwidth" else link.latency_ps


def _grid_problems(dims: tuple[int, ...], axes: tuple[str, ...], n_chips: int) -> list[str]:
    if not dims:
        return ["axes: names for no dims"] if axes else []
    problems = shape_problems(dims, axes)
    if not problems and math.prod(dims) != n_chips:
        problems.append(f"dims: {list(dims)} are {math.prod(dims)} chips, but chips is {n_chips}")
    return problems


def _wraps(dims: tuple[int, ...], ends: NDArray[np.int32]) -> tuple[bool, ...]:
    """Say which axes have an edge from the last coordinate to the first on each of their lines."""
    joined = set(map(tuple, np.sort(ends, axis=1).tolist()))
    ranks = np.arange(math.prod(dims)).reshape(dims)
    lines = ((np.moveaxis(ranks, k, -1).reshape(-1, length), length) for k, length in enumerate(dims))
    return tuple(length > 2 and all((line[0], line[-1]) in joined for line in rows.tolist()) for rows, length in lines)
