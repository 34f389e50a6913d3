"""Networkx's node-link JSON (`networkx.node_link_data`), with the attributes that `topology.networkx_io` names."""

from __future__ import annotations

import json
import math
from typing import Any

import networkx as nx

from configs.errors import ConfigError
from configs.problems import shown
from configs.spec.topology import LinkSpec
from topology.checks import MAX_CHIPS, MAX_EDGES, reject
from topology.importers.base import Edge, Found, Importer, Source
from topology.networkx_io import from_networkx

LINK_KEYS = {"bandwidth_bytes_per_s", "latency_ps", "count"}
NODE_KEYS = {"kind", "name"}
UNKNOWN = LinkSpec(math.inf, 0)  # stands for the figures of edges that have none


def read(source: Source) -> Found:
    """Return the graph; edges without figures are left to the options."""
    document = _checked(source, _parsed(source))
    edges_key = "links" if "links" in document else "edges"
    try:
        graph = nx.node_link_graph(document, edges=edges_key)
        topology = from_networkx(graph, UNKNOWN)
    except ConfigError as error:
        raise ConfigError(tuple(f"{source.file}: {problem}" for problem in error.problems)) from None
    edges = []
    for link in range(0, len(topology.link_src), 2):
        ends = (int(topology.link_src[link]), int(topology.link_dst[link]))
        total, count = float(topology.link_bandwidth_bytes_per_s[link]), int(topology.link_count[link])
        known = math.isfinite(total)
        bandwidth = source.figure(_share(total, count)) if known else None
        edges.append(
            Edge(ends, count, bandwidth, source.figure(int(topology.link_latency_ps[link])) if known else None)
        )
    switches = [node for node, data in graph.nodes.items() if data.get("kind") == "switch"]
    chips = [node for node, data in graph.nodes.items() if data.get("kind") != "switch"]
    names = tuple(str(node)[:40] for node in chips + switches)
    plain = topology.axes == ("chips",)
    dims, axes = ((), ()) if plain else (topology.dims, topology.axes)
    return Found(names, tuple(edges), len(switches), dims, axes, notes=_left_out(graph))


def _left_out(graph: nx.Graph[Any]) -> tuple[str, ...]:
    """Say which attributes of links and nodes mean nothing here."""
    notes = []
    for what, all_of, known in (("links", graph.edges.values(), LINK_KEYS), ("nodes", graph.nodes.values(), NODE_KEYS)):
        unknown = sorted({str(key)[:40] for data in all_of for key in data} - known)
        if unknown:
            words = ", ".join(repr(key) for key in unknown[:8]) + (", …" if len(unknown) > 8 else "")
            notes.append(f"left out: attributes {words} of {what}")
    return tuple(notes)


def _share(total: float, count: int) -> float:
    """Return the bandwidth of one of `count` links so that they add up to `total` again."""
    share = total / count
    near = (share, math.nextafter(share, math.inf), math.nextafter(share, 0))
    return next((x for x in near if x * count == total), share)


def _parsed(source: Source) -> Any:
    try:
        return json.loads(source.text)
    except json.JSONDecodeError as error:
        raise source.error(error.lineno, f"is not JSON: {error.msg}") from None
    except RecursionError:
        raise source.error(0, "is nested too deeply; accepted: node-link JSON") from None
    except ValueError as error:  # a number of thousands of digits
        raise source.error(0, f"is not JSON: {error}") from None


def _checked(source: Source, parsed: Any) -> dict[str, Any]:
    """Return the document, if it is of the shape that networkx takes unchecked: every edge joins known nodes."""
    if not isinstance(parsed, dict):
        raise source.error(0, f"holds {shown(parsed)}; accepted: an object with nodes, and links or edges")
    document: dict[str, Any] = {"directed": False, "multigraph": False, "graph": {}} | parsed
    shapes = {"directed": bool, "multigraph": bool, "graph": dict, "nodes": list}
    problems = [
        f"{source.file}: {key}: {shown(document.get(key))}; accepted: a {shape.__name__}"
        for key, shape in shapes.items()
        if not isinstance(document.get(key), shape)
    ]
    edges: Any = document.get("links", document.get("edges"))
    if not isinstance(edges, list):
        problems.append(f"{source.file}: links: {shown(edges)}; accepted: a list")
    reject(problems)
    if len(document["nodes"]) > 2 * MAX_CHIPS or len(edges) > 2 * MAX_EDGES:
        sizes = f"{len(document['nodes']):,} nodes and {len(edges):,} links"
        raise source.error(0, f"has {sizes}; accepted: at most {2 * MAX_CHIPS:,} and {2 * MAX_EDGES:,}")
    known: set[Any] = set()
    bad: list[tuple[str, int, str]] = []
    for i, node in enumerate(document["nodes"]):
        name = _name(node.get("id", i)) if isinstance(node, dict) else None
        if name is None or name in known:
            bad.append(("nodes", i, f"{shown(node)}; accepted: an object with an id of its own"))
        known.add(name)
    key = "links" if "links" in document else "edges"
    for i, edge in enumerate(edges):
        ends = [_name(edge.get(end)) if isinstance(edge, dict) else None for end in ("source", "target")]
        if None in ends or not known.issuperset(ends):
            bad.append((key, i, f"{shown(edge)}; accepted: an object whose source and target are ids of nodes"))
    for key, i, message in bad[:20]:
        problems.append(f"{source.place(_lines(source, key, i + 1)[i])}: {key}[{i}]: {message}")
    reject(problems)
    return document


def _lines(source: Source, key: str, n: int) -> list[int]:
    """Return on which lines the first n entries of a top-level list begin; reads the text, which is JSON, again."""
    text, decode = source.text, json.JSONDecoder().raw_decode

    def skip(at: int, sign: str) -> int:
        while text[at] in " \t\r\n" + sign:
            at += 1
        return at

    at, start = skip(0, "{"), 0
    while text[at] != "}":
        name, at = decode(text, at)
        at = skip(at, ":")
        start = at if name == key else start  # of two that are alike the last counts
        at = skip(decode(text, at)[1], ",")
    lines, line, at = [], 1, 0
    following = skip(start + 1, "")
    for _ in range(n):
        line += text.count("\n", at, following)
        lines.append(line)
        at = following
        following = skip(decode(text, at)[1], ",")
    return lines


def _name(value: object) -> object:
    """Return a node's id as networkx keeps it, or None if it cannot be one."""
    if isinstance(value, list):
        parts = tuple(_name(part) for part in value)
        return None if None in parts else parts
    return value if isinstance(value, str | int | float) else None


NETWORKX = Importer(
    "networkx node-link JSON",
    lambda source: (
        source.data.lstrip()[:1] == b"{" and source.has(r'"nodes"\s*:') and source.has(r'"(links|edges)"\s*:')
    ),
    read,
)
