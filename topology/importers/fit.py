"""The known kind of topology that is exactly what a file describes; `graph` where none is.

line, ring, mesh, torus     by the file's coordinates, or a walk along the chips
fully_connected             every pair of chips has the same edge
switch                      every chip has the same links to every switch
"""

from __future__ import annotations

import math
from typing import Any

import attrs
from attrs import frozen

from topology.grid import effective_wraps, grid_edges
from topology.importers.base import Edge, Found

Pairs = frozenset[tuple[int, int]]


@frozen
class Fit:
    """A kind with its parameters, without the link; `order` lists what the file numbers by the rank it now has."""

    kind: str
    parameters: dict[str, Any]
    link: Edge
    order: tuple[int, ...]


def fit(found: Found) -> Fit | None:
    """Return the known kind, or None; `found` has all its figures."""
    figures = {(edge.bandwidth, edge.latency) for edge in found.edges}
    if len(figures) != 1:
        return None
    if found.n_switches:
        return _switch(found)
    if len({edge.count for edge in found.edges}) != 1:
        return None
    grid = _grid(found, found.dims, found.axes) if found.dims else None
    return grid or _fully_connected(found) or _walk(found) or _mesh(found)


def _pairs(found: Found) -> Pairs:
    return frozenset((min(edge.ends), max(edge.ends)) for edge in found.edges)


def _grid(found: Found, dims: tuple[int, ...], axes: tuple[str, ...]) -> Fit | None:
    """Return the mesh or torus of these dims, if the edges are its edges."""
    if math.prod(dims) != found.n_chips:
        return None
    pairs = _pairs(found)
    wraps = effective_wraps(dims, tuple(_closes(pairs, dims, k) for k in range(len(dims))))
    src, dst = grid_edges(dims, wraps)
    if pairs != frozenset((min(a, b), max(a, b)) for a, b in zip(src.tolist(), dst.tolist(), strict=True)):
        return None
    if len(dims) == 1:
        kind, wrap = "ring" if wraps[0] else "line", {}
    else:
        kind = "torus" if any(wraps) else "mesh"
        wrap = {"wrap": list(wraps)} if any(wraps) and not all(wraps) else {}
    named = {"axes": list(axes)} if axes else {}
    return Fit(kind, {"dims": list(dims)} | named | wrap, found.edges[0], tuple(range(found.n_chips)))


def _closes(pairs: Pairs, dims: tuple[int, ...], k: int) -> bool:
    """Return whether the line through chip 0 along axis k has an edge from its end to its start."""
    end = dims[k] - 1
    for length in dims[k + 1 :]:
        end *= length
    return (0, end) in pairs


def _fully_connected(found: Found) -> Fit | None:
    n = found.n_chips
    if len(found.edges) != n * (n - 1) // 2:
        return None
    return Fit("fully_connected", {"chips": n}, found.edges[0], tuple(range(n)))


def _switch(found: Found) -> Fit | None:
    """Return the switch planes, if chips and planes are joined all alike."""
    n, planes = found.n_chips, [0] * found.n_switches
    counts = {(min(edge.ends), max(edge.ends) - n): edge.count for edge in found.edges}
    if len(counts) != n * found.n_switches or any(not (chip < n and plane >= 0) for chip, plane in counts):
        return None
    for (_, plane), count in counts.items():
        planes[plane] = planes[plane] or count
    if any(planes[plane] != count for (_, plane), count in counts.items()):
        return None
    link = attrs.evolve(found.edges[0], count=1)
    return Fit("switch", {"chips": n, "planes": planes}, link, tuple(range(n)))


def _neighbours(found: Found) -> dict[int, list[int]]:
    near: dict[int, list[int]] = {chip: [] for chip in range(found.n_chips)}
    for a, b in sorted(_pairs(found)):
        near[a].append(b)
        near[b].append(a)
    return near


def _walk(found: Found) -> Fit | None:
    """Return the ring or line that a walk from neighbour to neighbour goes along."""
    near = _neighbours(found)
    ends = [chip for chip, others in near.items() if len(others) == 1]
    if any(len(others) > 2 for others in near.values()) or len(ends) not in (0, 2):
        return None
    order = [ends[0] if ends else 0]
    while fresh := [chip for chip in sorted(near[order[-1]]) if chip not in order[-2:] and chip != order[0]]:
        order.append(fresh[0])
    renumbered = order != list(range(found.n_chips))
    if len(order) != found.n_chips or (renumbered and found.keep_ranks):
        return None
    return Fit("line" if ends else "ring", {"dims": [len(order)]}, found.edges[0], tuple(order))


def _mesh(found: Found) -> Fit | None:
    """Return the mesh of two axes that has these edges: distances from two of its corners are the coordinates.

    With i and j the steps from corner A along both axes, i + j away from A is (n - 1 - i) + j away from the corner
    at the end of the first axis, which has n chips.
    """
    near = _neighbours(found)
    corners = [chip for chip, others in near.items() if len(others) == 2]
    if len(corners) != 4 or found.keep_ranks:
        return None
    from_a = _hops(near, corners[0])
    if len(from_a) != found.n_chips:
        return None
    c, b, _ = sorted(corners[1:], key=lambda corner: (from_a[corner], -corner))
    last, from_b = from_a[b], _hops(near, b)
    dims = (last + 1, from_a[c] + 1)
    steps = {chip: (from_a[chip] - from_b[chip] + last) // 2 for chip in near}
    ranks = {chip: i * dims[1] + from_a[chip] - i for chip, i in steps.items()}
    if sorted(ranks.values()) != list(range(found.n_chips)):
        return None
    edges = tuple(attrs.evolve(e, ends=(ranks[e.ends[0]], ranks[e.ends[1]])) for e in found.edges)
    exact = _grid(attrs.evolve(found, edges=edges), dims, ())
    order = tuple(sorted(ranks, key=lambda chip: ranks[chip]))
    return exact and attrs.evolve(exact, order=order)


def _hops(near: dict[int, list[int]], start: int) -> dict[int, int]:
    """Return the hops from a chip to all that it reaches."""
    hops, todo = {start: 0}, [start]
    for chip in todo:
        fresh = [other for other in near[chip] if other not in hops]
        hops |= dict.fromkeys(fresh, hops[chip] + 1)
        todo += fresh
    return hops
