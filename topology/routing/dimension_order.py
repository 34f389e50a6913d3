"""Dimension order: along one axis of a grid after another."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from topology.graph import Topology
from topology.routes import Routes
from topology.routing.paths import OneOfMany, paths_of_links

Ints = NDArray[np.int64]

BLOCK_PAIRS = 2**14  # pairs walked at a time


@frozen
class Walk:
    """How to walk on a grid whose edges are numbered as `topology.grid` says.

    Crossing the end of axis k upwards also shifts by `twist[k][j]` along each other axis j (no twist: not at all).
    """

    dims: tuple[int, ...]
    wraps: tuple[bool, ...]
    twist: tuple[tuple[int, ...], ...] = ()

    def links(self, src: Ints, hops: Ints) -> tuple[Ints, NDArray[np.int32]]:
        """Return the links from each chip `src` on, `hops[k]` along axis k in turn (down if negative).

        The links of route i are `links[start[i]:start[i + 1]]`; returns (start, links). Along an axis they are one
        arithmetic progression up to the end of the axis and one beyond: all of them are written at once.
        """
        start = np.concatenate([[0], np.cumsum(np.abs(hops).sum(axis=0))])
        links = np.empty(start[-1], np.int32)
        for begin in range(0, len(src), BLOCK_PAIRS):
            end = min(begin + BLOCK_PAIRS, len(src))
            links[start[begin] : start[end]] = self._links(src[begin:end], hops[:, begin:end])
        return start, links

    def _links(self, src: Ints, hops: Ints) -> Ints:
        """Return the links of one block of pairs, small enough to stay in the cache."""
        n_axes, n = len(self.dims), len(src)
        first, step, length = (np.zeros((n, n_axes, 2), np.int64) for _ in range(3))
        coords = np.stack(np.unravel_index(src, self.dims)).astype(np.int64)
        for k, (size, stride) in enumerate(zip(self.dims, self.strides, strict=True)):
            up, here = hops[k] >= 0, coords[k]
            before = np.minimum(np.abs(hops[k]), np.where(up, size - here if self.wraps[k] else size, here))
            beyond = np.abs(hops[k]) - before
            place = np.where(up, here, here - 1)
            step[:, k, :] = np.where(up, 2 * stride, -2 * stride)[:, None]
            first[:, k, 0] = 2 * (self._line(k, coords) + place * stride) + ~up
            length[:, k, 0], length[:, k, 1] = before, beyond
            crosses = np.where(beyond > 0, np.where(up, 1, -1), 0) + (up & (beyond == 0) & (here + before == size))
            coords[k] = (here + hops[k]) % size
            self._shift(coords, k, crosses)
            first[:, k, 1] = 2 * (self._line(k, coords) + np.where(up, 0, size - 1) * stride) + ~up
        return _progressions(first.reshape(-1), step.reshape(-1), length.reshape(-1))

    def _shift(self, coords: Ints, k: int, crosses: Ints) -> None:
        """Move along the other axes what crossing the end of axis k costs there."""
        for j, by in enumerate(self.twist[k] if self.twist else ()):
            if by:
                coords[j] = (coords[j] + by * crosses) % self.dims[j]

    def _line(self, k: int, coords: Ints) -> Ints:
        """Return the first edge of the line along axis k through each chip."""
        stride = self.strides[k]
        above, below = np.zeros(coords.shape[1], np.int64), np.zeros(coords.shape[1], np.int64)
        for j in range(k):
            above = above * self.dims[j] + coords[j]
        for j in range(k + 1, len(self.dims)):
            below = below * self.dims[j] + coords[j]
        return self.edge_offsets[k] + above * self.axis_edges[k] * stride + below

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """By how much the rank grows along each axis."""
        return tuple(math.prod(self.dims[k + 1 :]) for k in range(len(self.dims)))

    @cached_property
    def axis_edges(self) -> tuple[int, ...]:
        """Edges on one line of chips along each axis."""
        return tuple(length if wrap else length - 1 for length, wrap in zip(self.dims, self.wraps, strict=True))

    @cached_property
    def edge_offsets(self) -> tuple[int, ...]:
        """The first edge of each axis."""
        n_chips = math.prod(self.dims)
        totals = [n_chips // d * edges for d, edges in zip(self.dims, self.axis_edges, strict=True)]
        return tuple(sum(totals[:k]) for k in range(len(totals)))


def _progressions(first: Ints, step: Ints, length: Ints) -> Ints:
    """Return the numbers first, first + step, … of each progression, `length` of them, one after the other.

    >>> _progressions(np.array([5, 40]), np.array([1, -10]), np.array([2, 3])).tolist()
    [5, 6, 40, 30, 20]
    """
    used = np.flatnonzero(length)
    first, step, length = first[used], step[used], length[used]
    numbers: Ints = np.arange(length.sum())
    begin = np.cumsum(length) - length
    numbers *= np.repeat(step, length)
    numbers += np.repeat(first - step * begin, length)
    return numbers


@frozen
class DimensionOrderRouter(OneOfMany):
    """Go along the first listed axis to the end, then the second…; round a wrapped axis the shorter way.

    Exactly half way round, `positive` goes up; `alternate` goes up from an even and down from an odd
    coordinate on that axis. All is arithmetic on the link numbering of `topology.grid`: no table, no
    search, on any size.
    """

    dims: tuple[int, ...]
    wraps: tuple[bool, ...]
    ties: Literal["positive", "alternate"] = field(default="positive")

    @property
    def is_uniform(self) -> bool:
        """Whether all axes close and no tie depends on where a chip is."""
        closed = all(wrap or length <= 2 for length, wrap in zip(self.dims, self.wraps, strict=True))
        ties = any(wrap and length % 2 == 0 for length, wrap in zip(self.dims, self.wraps, strict=True))
        return closed and (self.ties == "positive" or not ties)

    def routes(self, topology: Topology, src: Ints, dst: Ints) -> Routes:
        """Return the routes from the chips `src` to the chips `dst`, pair by pair."""
        here, goal = np.unravel_index(src, self.dims), np.unravel_index(dst, self.dims)
        hops = np.stack([self._signed_hops(k, c, g) for k, (c, g) in enumerate(zip(here, goal, strict=True))])
        return paths_of_links(topology, *Walk(self.dims, self.wraps).links(src, hops))

    def _signed_hops(self, k: int, coord: Ints, goal: Ints) -> Ints:
        """Return how many hops up (or, if negative, down) axis k lead from `coord` to `goal`."""
        if not self.wraps[k]:
            return goal - coord
        length = self.dims[k]
        up = (goal - coord) % length
        ties_up = (2 * up == length) & ((self.ties == "positive") | (coord % 2 == 0))
        return np.where((2 * up < length) | ties_up, up, up - length)
