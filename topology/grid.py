"""What lines, rings, meshes and tori share.

Edges are numbered axis by axis in the listed order, and within an axis in the order of the rank they start
from: the edge from coordinate c leads to c + 1, and the last one of a wrapped axis back to 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from topology.checks import link_problems, size_problems
from topology.edges import Edges
from topology.graph import Topology
from topology.routing import DimensionOrderRouter, TwistedRouter, choose_router
from topology.twist import Twist

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from configs.spec.topology import LinkSpec, RoutingSpec


def default_axes(n_axes: int) -> tuple[str, ...]:
    """Name axes x, y, z, w, then axis4, axis5 and so on.

    >>> default_axes(5)
    ('x', 'y', 'z', 'w', 'axis4')
    """
    return tuple("xyzw"[k] if k < 4 else f"axis{k}" for k in range(n_axes))


def effective_wraps(dims: tuple[int, ...], wraps: tuple[bool, ...]) -> tuple[bool, ...]:
    """Say which axes have an edge round: a wrapped axis of 2 has no second edge, and one of 1 has none.

    >>> effective_wraps((2, 4, 4), (True, True, False))
    (False, True, False)
    """
    return tuple(wrap and length > 2 for length, wrap in zip(dims, wraps, strict=True))


def grid_n_edges(dims: tuple[int, ...], wraps: tuple[bool, ...]) -> int:
    """Return Σ over axes: n_chips / length * (length if wrapped, else length - 1).

    >>> grid_n_edges((8, 4), (False, False)), grid_n_edges((8, 4), (True, True))
    (52, 64)
    """
    n_chips = math.prod(dims)
    lines = zip(dims, effective_wraps(dims, wraps), strict=True)
    return sum(n_chips // length * (length if wrap else length - 1) for length, wrap in lines)


def grid_diameter_hops(dims: tuple[int, ...], wraps: tuple[bool, ...]) -> int:
    """Return Σ over axes: ⌊length / 2⌋ if wrapped, else length - 1.

    >>> grid_diameter_hops((8, 4), (False, False)), grid_diameter_hops((8, 4), (True, True))
    (10, 6)
    """
    lines = zip(dims, effective_wraps(dims, wraps), strict=True)
    return sum(length // 2 if wrap else length - 1 for length, wrap in lines)


def grid_bisection_edges(dims: tuple[int, ...], wraps: tuple[bool, ...]) -> int:
    """Return the edges that a cut into two halves (equal, or one chip apart) crosses.

    Cut straight through an axis: n_chips / length edges, twice if it is wrapped. An axis of odd length is cut
    around its middle layer, which is then cut in the same way: 3 + 1 on a 3x3 mesh. The best axis is taken.

    >>> grid_bisection_edges((8, 4), (False, False)), grid_bisection_edges((8, 4), (True, True))
    (4, 8)
    >>> grid_bisection_edges((3, 3), (False, False))
    4
    """
    lines = [
        (length, 2 if wrap else 1)
        for length, wrap in zip(dims, effective_wraps(dims, wraps), strict=True)
        if length > 1
    ]
    return _cut(tuple(lines))


def _cut(lines: tuple[tuple[int, int], ...]) -> int:
    """Cut the grid whose axes have these (length, crossings of a line)."""
    n_chips = math.prod(length for length, _ in lines)
    cuts = []
    for k, (length, crossings) in enumerate(lines):
        middle_layer = 0 if length % 2 == 0 else _cut(lines[:k] + lines[k + 1 :])
        cuts.append(n_chips // length * crossings + middle_layer)
    return min(cuts, default=0)


def grid_problems(dims: tuple[int, ...], axes: tuple[str, ...], link: LinkSpec) -> list[str]:
    """Return what is wrong with the parameters that all grids have."""
    return shape_problems(dims, axes) + link_problems(link)


def shape_problems(dims: tuple[int, ...], axes: tuple[str, ...]) -> list[str]:
    """Return what is wrong with the lengths and the names of axes."""
    problems = []
    if not dims:
        problems.append("dims: at least one number is needed, got none")
    elif min(dims) < 1:
        problems.append(f"dims: every length must be at least 1, got {list(dims)}")
    else:
        problems += size_problems("dims", math.prod(dims), grid_n_edges(dims, (True,) * len(dims)))
    if axes and len(axes) != len(dims):
        problems.append(f"axes: {len(axes)} names {list(axes)} for {len(dims)} dims {list(dims)}")
    if len(set(axes)) != len(axes) or "" in axes:
        problems.append(f"axes: names must be different and not empty, got {list(axes)}")
    return problems


def one_axis_problems(dims: tuple[int, ...]) -> list[str]:
    """Return whether a line or a ring has any other number of axes than one."""
    return [] if len(dims) == 1 else [f"dims: exactly one number is needed, got {list(dims)}"]


def build_grid(
    kind: str,
    *,
    dims: tuple[int, ...],
    axes: tuple[str, ...],
    wraps: tuple[bool, ...],
    link: LinkSpec,
    routing: RoutingSpec,
    twist: Twist = (),
) -> Topology:
    """Return the grid of chips of these lengths, ranks row-major (last axis fastest).

    A twisted axis does not count as wrapped: its line of chips does not close. The diameter and bisection of a twisted
    torus are left to a search.
    """
    wraps = effective_wraps(dims, wraps)
    natural = TwistedRouter(dims, twist) if twist else DimensionOrderRouter(dims, wraps, routing.ties)
    src, dst = grid_edges(dims, wraps, twist)
    cut_bytes_per_s = grid_bisection_edges(dims, wraps) * link.count * link.bandwidth_bytes_per_s
    return Topology.from_edges(
        kind,
        Edges.uniform(link, src, dst),
        n_chips=math.prod(dims),
        dims=dims,
        axes=axes or default_axes(len(dims)),
        wraps=tuple(wrap and not any(shifts) for wrap, shifts in zip(wraps, twist, strict=True)) if twist else wraps,
        router=choose_router(routing, natural),
        twist=twist,
        known_diameter_hops=None if twist else grid_diameter_hops(dims, wraps),
        known_bisection_bytes_per_s=None if twist else float(cut_bytes_per_s),
    )


def grid_edges(
    dims: tuple[int, ...], wraps: tuple[bool, ...], twist: Twist = ()
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return both ends of all edges, numbered as above; `wraps` are effective ones.

    >>> [ends.tolist() for ends in grid_edges((2, 3), (False, True))]
    [[0, 1, 2, 0, 1, 2, 3, 4, 5], [3, 4, 5, 1, 2, 0, 4, 5, 3]]
    """
    ranks = np.arange(math.prod(dims), dtype=np.int32).reshape(dims)
    ends = [_axis_edges(ranks, k, wrap, twist[k] if twist else ()) for k, wrap in enumerate(wraps)]
    return np.concatenate([src for src, _ in ends]), np.concatenate([dst for _, dst in ends])


def _axis_edges(
    ranks: NDArray[np.int32], k: int, wrap: bool, shifts: tuple[int, ...]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return both ends of the edges along axis k; the last ones of a wrapped axis are shifted along the others."""
    starts = range(ranks.shape[k] if wrap else ranks.shape[k] - 1)
    next_ranks = np.roll(ranks, -1, axis=k)
    beyond = np.moveaxis(next_ranks, k, 0)
    for j, by in enumerate(shifts):
        if by:
            beyond[-1] = np.roll(beyond[-1], -by, axis=j - (j > k))
    return np.take(ranks, starts, axis=k).reshape(-1), np.take(next_ranks, starts, axis=k).reshape(-1)
