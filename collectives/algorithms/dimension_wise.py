"""Dimension-wise all-to-all: one axis of a grid after the other; on each, all chips of a line exchange at once.

In the phase of an axis of length L, a chip sends to each other chip of its line what must get to that chip's
coordinate: n/L parts in one message. With n chips, part size m, hop latency α, link bandwidth B per direction and
message size b = n/L m, an axis of an idle torus takes, for odd L:

    max over h of (h α + Σ_{g=h}^{(L-1)/2} g b/B)    =  α + (L²-1)/8 b/B  where b/B ≥ α

as messages of g hops begin after g α and load every link with g b. The phases add up.
Source: Y.-S. Suh and K. G. Shin, "All-to-all personalized communication in multidimensional torus and mesh networks",
IEEE TPDS 12 (2001).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collectives.compose import uniform
from collectives.group import GroupView, misfit
from collectives.schedule import Schedule, Transfers, Uniform


def all_to_all(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-to-all; chunk i·n+j goes from i to j."""
    del root
    block = group.block
    if block is None:
        raise misfit("dimension_wise", group, "do not fill a block of the grid", "all chips of a block of a grid")
    n, places = len(group), block.places
    return Schedule(
        "all_to_all", "dimension_wise", n, n * n, lambda: _transfers(places), lambda dims: _uniform(places, dims)
    )  # fmt: skip


def _uniform(places: NDArray[np.int64], dims: tuple[int, ...]) -> Uniform | None:
    """Return what every chip does, if the block is a whole grid in the order of the ranks."""
    if dims != places.shape or (places.reshape(-1) != np.arange(places.size)).any():
        return None
    strides = [int(np.prod(dims[axis + 1 :], dtype=np.int64)) for axis in range(len(dims))]
    axes = enumerate(zip(dims, strides, strict=True))
    return uniform(dims, [(k, hop * stride, places.size // d, 0) for k, (d, stride) in axes for hop in range(1, d)])


def _transfers(places: NDArray[np.int64]) -> Transfers:
    return Transfers.join([_phase(places, axis).delayed(axis) for axis in range(places.ndim)])


def _phase(places: NDArray[np.int64], axis: int) -> Transfers:
    """Return the exchange along one axis.

    With coordinates (a, b, c) before, on and after the axis, the chip (a, b, c) has the chunks from (a', b, c) to
    (a, b', c') for all a', b', c', and sends those of one b' to (a, b', c).
    """
    n_before, length, n_after = np.prod(places.shape[:axis], dtype=int), places.shape[axis], -1
    cube = places.reshape(n_before, length, n_after)
    n_after, n = cube.shape[2], cube.size
    a, b, c, goal, a2, c2 = np.ogrid[:n_before, :length, :n_after, :length, :n_before, :n_after]
    chunks = cube[a2, b, c] * n + cube[a, goal, c2]
    src, dst = (x[..., 0, 0] for x in (cube[a, b, c], cube[a, goal, c]))
    size = n_before * n_after
    first = size * np.arange(chunks.size // size).reshape(chunks.shape[:4])
    moves = np.where((b != goal)[..., 0, 0], size, 0)
    return Transfers.runs(0, src, dst, first, moves, pool=chunks.reshape(-1))
