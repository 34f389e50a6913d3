"""Topologies to and from networkx graphs.

Node attribute `kind`: `chip` (the default) or `switch`. Edge attributes: `bandwidth_bytes_per_s` (per
direction, all parallel links together), `latency_ps`, `count` (parallel links, default 1). Graph attributes
`dims` and `axes`: the chips' coordinates, if they have any.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from configs.problems import shown
from topology.checks import MAX_LANES, reject
from topology.edges import Edges
from topology.graph import Topology
from topology.routing import ShortestPathRouter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from configs.spec.topology import LinkSpec

_MOST_BYTES_PER_S = 1e30
_MOST_PS = 10**15  # 1000 s, as for quantities in files

_Attributes = dict[str, Any]


def to_networkx(topology: Topology) -> nx.DiGraph[int]:
    """Return a graph whose nodes are the topology's node numbers and whose edges are its directed links.

    It has no dims, axes and wraps where chips are dead: those that are left fill no grid.

    >>> from configs.spec.topology import LinkSpec, RoutingSpec
    >>> from topology import Ring
    >>> graph = to_networkx(Ring(dims=(4,), link=LinkSpec(1e9, latency_ps=5, count=2)).build(RoutingSpec()))
    >>> graph.edges[0, 1]
    {'bandwidth_bytes_per_s': 2000000000.0, 'latency_ps': 5, 'count': 2}
    """
    whole = math.prod(topology.dims) == topology.n_chips
    grid: dict[str, Any] = {"dims": topology.dims, "axes": topology.axes, "wraps": topology.wraps} if whole else {}
    graph: nx.DiGraph[int] = nx.DiGraph(kind=topology.kind, **grid)
    for node in range(topology.n_nodes):
        kind = "chip" if node < topology.n_chips else "switch"
        graph.add_node(node, kind=kind, name=topology.node_name(node))
    columns = (
        topology.link_src,
        topology.link_dst,
        topology.link_bandwidth_bytes_per_s,
        topology.link_latency_ps,
        topology.link_count,
    )
    for src, dst, bandwidth, latency, count in zip(*(column.tolist() for column in columns), strict=True):
        graph.add_edge(src, dst, bandwidth_bytes_per_s=bandwidth, latency_ps=latency, count=count)
    return graph


def from_networkx(graph: nx.Graph[Any], link: LinkSpec | None = None) -> Topology:
    """Return the topology of a graph; chips and switches are each numbered in the order of the graph's nodes.

    `link` stands in for edges without attributes. Parallel edges of a multigraph become one edge of the
    summed bandwidth. A directed graph must have every link both ways and alike. Edges are numbered by
    (lower node, higher node); the kind is `graph` and the routing is the shortest path.

    >>> from configs.spec.topology import LinkSpec
    >>> topology = from_networkx(nx.petersen_graph(), LinkSpec(1e9, latency_ps=1_000))
    >>> topology.n_links, topology.route(0, 7).links.size
    (15, 2)
    """
    switches = [node for node, data in graph.nodes.items() if data.get("kind") == "switch"]
    chips = [node for node in graph if node not in set(switches)]
    reject([] if chips else ["graph: at least one chip is needed"])
    number = {node: k for k, node in enumerate(chips + switches)}
    return Topology.from_edges(
        "graph",
        _edges(_directed_links(graph, number, link), chips + switches),
        n_chips=len(chips),
        n_switches=len(switches),
        router=ShortestPathRouter(),
        **_coordinates(graph, len(chips)),
    )


def _coordinates(graph: nx.Graph[Any], n_chips: int) -> dict[str, Any]:
    """Return the graph's dims, axes and wraps, if it has them; they must fit the chips."""
    found = {key: graph.graph[key] for key in ("dims", "axes", "wraps") if key in graph.graph}
    if not found:
        return {}
    lists = all(isinstance(values, list | tuple) for values in found.values())
    good = len(found) == 3 and lists and len({len(values) for values in found.values()}) == 1
    good = good and all(type(n) is int and n >= 1 for n in found["dims"]) and math.prod(found["dims"]) == n_chips
    good = good and all(isinstance(axis, str) and axis for axis in found["axes"])
    good = good and len(set(found["axes"])) == len(found["axes"]) and all(type(w) is bool for w in found["wraps"])
    reject([] if good else [f"graph: {shown(found)} do not fit {n_chips} chips; accepted: lists of dims, axes, wraps"])
    return {key: tuple(values) for key, values in found.items()}


_Link = tuple[float, int, int]  # bandwidth_bytes_per_s, latency_ps, count


def _directed_links(
    graph: nx.Graph[Any], number: dict[Any, int], link: LinkSpec | None
) -> dict[tuple[int, int], _Link]:
    """Return every directed link by its two node numbers, parallel ones merged."""
    links: dict[tuple[int, int], _Link] = {}
    problems: list[str] = []
    for src, dst, data in graph.edges(data=True):
        one = _link_of(data, link)
        if one is None or src == dst:
            problems.append(_edge_problem(src, dst, data))
            continue
        for pair in ((src, dst),) if graph.is_directed() else ((src, dst), (dst, src)):
            key = (number[pair[0]], number[pair[1]])
            so_far = links.get(key, (0.0, one[1], 0))
            if so_far[1] != one[1]:
                problems.append(f"edge {src!r}-{dst!r}: parallel links must have the same latency_ps")
            links[key] = (so_far[0] + one[0], one[1], so_far[2] + one[2])
    reject(problems)
    return links


def _link_of(data: _Attributes, link: LinkSpec | None) -> _Link | None:
    """Return an edge's own figures, or those of `link`, or None."""
    bandwidth, latency, count = data.get("bandwidth_bytes_per_s"), data.get("latency_ps"), data.get("count", 1)
    if bandwidth is None and latency is None and link is not None:
        return link.bandwidth_bytes_per_s * link.count, link.latency_ps, link.count
    if any(isinstance(x, bool) or not isinstance(x, int | float) for x in (bandwidth, latency, count)):
        return None
    assert bandwidth is not None
    assert latency is not None
    whole = 0 <= latency <= _MOST_PS and latency == int(latency) and 1 <= count <= MAX_LANES and count == int(count)
    return (float(bandwidth), int(latency), int(count)) if whole and 0 < bandwidth < _MOST_BYTES_PER_S else None


def _edge_problem(src: object, dst: object, data: _Attributes) -> str:
    if src == dst:
        return f"edge {src!r}-{dst!r}: a node cannot be linked to itself"
    need = "bandwidth_bytes_per_s above 0, latency_ps of at least 0 and count of at least 1"
    return f"edge {src!r}-{dst!r}: needs {need}, got {shown(data)}"


def _edges(links: dict[tuple[int, int], _Link], nodes: Iterable[Any]) -> Edges:
    """Return the two-way edges, each of which must be alike both ways."""
    names = list(nodes)
    reject(
        f"edge {names[src]!r}-{names[dst]!r}: the link back is missing or differs"
        for (src, dst), figures in links.items()
        if links.get((dst, src)) != figures
    )
    forward = sorted(pair for pair in links if pair[0] < pair[1])
    figures = [links[pair] for pair in forward]
    return Edges(
        src=np.array([src for src, _ in forward], np.int32),
        dst=np.array([dst for _, dst in forward], np.int32),
        bandwidth_bytes_per_s=np.array([bandwidth for bandwidth, _, _ in figures], np.float64),
        latency_ps=np.array([latency for _, latency, _ in figures], np.int64),
        count=np.array([count for _, _, count in figures], np.int32),
    )
