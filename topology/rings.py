"""Rings of neighbours: orders in which each chip is joined to the next, and the last to the first."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from topology.graph import Topology

_Cells = list[tuple[int, ...]]


def hamiltonian_cycle(topology: Topology, ranks: Sequence[int]) -> tuple[int, ...] | None:
    """Return an order of `ranks` that goes from neighbour to neighbour all the way round, or None.

    Neighbours are joined by a link or by one switch. The order given is kept where it is such a ring
    already (all orders are, behind a switch). Otherwise the ranks must fill a block of the grid: one with
    an even side, or with an odd side that is wrapped, has a ring; a mesh of odd sides cannot have one, by
    its chessboard colours.

    >>> from configs.spec.topology import LinkSpec, RoutingSpec
    >>> from topology import Mesh
    >>> mesh = Mesh(dims=(2, 3), link=LinkSpec(1e9, latency_ps=0)).build(RoutingSpec())
    >>> hamiltonian_cycle(mesh, range(6))
    (0, 1, 2, 5, 4, 3)
    """
    given = tuple(ranks)
    if is_ring(topology, given):
        return given
    cells = _block_cycle(topology, given)
    if cells is None:
        return None
    cycle = [topology.rank_of(cell) for cell in cells]
    start = cycle.index(given[0])
    ring = (*cycle[start:], *cycle[:start])
    return ring if is_ring(topology, ring) else None


def hamiltonian_path(topology: Topology, ranks: Sequence[int]) -> tuple[int, ...] | None:
    """Return an order of `ranks` that goes from neighbour to neighbour from one end to the other, or None.

    The order given is kept where it is such a line already; otherwise the ranks must fill a block of the grid,
    through which a snake goes.

    >>> from configs.spec.topology import LinkSpec, RoutingSpec
    >>> from topology import Mesh
    >>> mesh = Mesh(dims=(3, 3), link=LinkSpec(1e9, latency_ps=0)).build(RoutingSpec())
    >>> hamiltonian_path(mesh, range(9))
    (0, 1, 2, 5, 4, 3, 6, 7, 8)
    """
    given = tuple(ranks)
    if is_path(topology, given):
        return given
    block = _block(topology, given)
    if block is None:
        return None
    low, lengths = block
    path = tuple(topology.rank_of(tuple((low + np.array(cell)).tolist())) for cell in _snake(lengths))
    return path if is_path(topology, path) else None


def is_path(topology: Topology, order: tuple[int, ...]) -> bool:
    """Return whether the chips are different and each is next to the following one."""
    pairs = pairwise(order)
    return len(set(order)) == len(order) and all(_are_neighbours(topology, src, dst) for src, dst in pairs)


def is_ring(topology: Topology, order: tuple[int, ...]) -> bool:
    """Return whether the chips are different and each is next to the following, the last to the first."""
    if len(order) < 2:
        return True
    pairs = zip(order, order[1:] + order[:1], strict=True)
    return len(set(order)) == len(order) and all(_are_neighbours(topology, src, dst) for src, dst in pairs)


def _are_neighbours(topology: Topology, src: int, dst: int) -> bool:
    near_src, near_dst = topology.neighbours(src), topology.neighbours(dst)
    if dst in near_src:
        return True
    shared = np.intersect1d(near_src[near_src >= topology.n_chips], near_dst)
    return src != dst and bool(shared.size)


def _block(topology: Topology, ranks: tuple[int, ...]) -> tuple[NDArray[np.int64], tuple[int, ...]] | None:
    """Return the lowest coordinates and the lengths of the grid's block that the ranks fill, or None."""
    coords = np.array([topology.coords(rank) for rank in ranks])
    low, high = coords.min(axis=0), coords.max(axis=0)
    lengths = tuple((high - low + 1).tolist())
    if len(set(ranks)) != len(ranks) or int(np.prod(lengths)) != len(ranks):
        return None
    return low, lengths


def _block_cycle(topology: Topology, ranks: tuple[int, ...]) -> _Cells | None:
    """Return the cells of the grid's block that the ranks fill, in the order of a ring."""
    block = _block(topology, ranks)
    if block is None:
        return None
    low, lengths = block
    whole = zip(lengths, topology.dims, topology.wraps, strict=True)
    cells = _cycle(lengths, tuple(wrap and length == full for length, full, wrap in whole))
    return cells and [tuple((low + cell).tolist()) for cell in np.array(cells)]


def _cycle(lengths: tuple[int, ...], wraps: tuple[bool, ...]) -> _Cells | None:
    """Return a ring through all cells of a block.

    The block is seen as a rectangle: one axis, and a snake through all the others. An even axis gives the
    rows (or the snake does, if an axis is wrapped); the comb of `_comb` then goes through row after row.
    """
    long_axes = [k for k, length in enumerate(lengths) if length > 1]
    even = [k for k in long_axes if lengths[k] % 2 == 0]
    wrapped = [k for k in long_axes if wraps[k]]
    if even and len(long_axes) > 1:
        axis, rest = even[0], _snake(_without(lengths, even[0]))
        return [_insert(rest[column], axis, row) for row, column in _comb(lengths[axis], len(rest))]
    if wrapped:
        axis, rest = wrapped[0], _snake(_without(lengths, wrapped[0]))
        return [_insert(rest[row], axis, column) for row, column in _comb(len(rest), lengths[axis])]
    return None


def _comb(n_rows: int, n_columns: int) -> list[tuple[int, int]]:
    """Return (row, column) of a snake down through columns 1, 2… of all rows, and back up column 0.

    The snake ends next to column 0 if the rows are even; if they are odd, it ends at the far side, which is
    next to column 0 only where the rows are wrapped.

    >>> _comb(2, 3)
    [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]
    """
    forward = range(1, n_columns)
    teeth = [(row, column) for row in range(n_rows) for column in (forward[::-1] if row % 2 else forward)]
    return [(0, 0), *teeth, *((row, 0) for row in range(n_rows - 1, 0, -1))]


def _snake(lengths: tuple[int, ...]) -> _Cells:
    """Return all cells of a block so that each is next to the one before: every other line runs backwards.

    >>> _snake((2, 2))
    [(0, 0), (0, 1), (1, 1), (1, 0)]
    """
    if not lengths:
        return [()]
    inner = _snake(lengths[1:])
    return [(k, *cell) for k in range(lengths[0]) for cell in (inner if k % 2 == 0 else inner[::-1])]


def _without(lengths: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return lengths[:axis] + lengths[axis + 1 :]


def _insert(cell: tuple[int, ...], axis: int, coord: int) -> tuple[int, ...]:
    return (*cell[:axis], coord, *cell[axis:])
