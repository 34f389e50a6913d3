"""Dimension order: along one axis of a grid after another."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from topology.graph import Route, Routes, Topology
from topology.routing.paths import path_route


@frozen
class DimensionOrderRouter:
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

    def route(self, topology: Topology, src: int, dst: int) -> Route:
        """Return the links along each axis in turn."""
        links: list[int] = []
        here = src
        for k, (length, stride) in enumerate(zip(self.dims, self._strides, strict=True)):
            coord, goal = here // stride % length, dst // stride % length
            links += self._axis_links(k, here, self._signed_hops(k, coord, goal))
            here += (goal - coord) * stride
        return path_route(topology, links)

    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return the routes of many pairs at once: axis by axis, all hops of all pairs."""
        hops = [self._many_signed_hops(k, src, dst) for k in range(len(self.dims))]
        lengths = np.stack([np.abs(h) for h in hops])
        start = np.concatenate([[0], np.cumsum(lengths.sum(axis=0))])
        links = np.empty(start[-1], np.int32)
        begin, here = start[:-1].copy(), src.copy()
        for k, (length, stride) in enumerate(zip(self.dims, self._strides, strict=True)):
            pair = np.repeat(np.arange(len(src)), lengths[k])
            hop = np.arange(len(pair)) - np.repeat(np.cumsum(lengths[k]) - lengths[k], lengths[k])
            links[begin[pair] + hop] = self._many_axis_links(k, here[pair], hop, hops[k][pair] >= 0)
            here += (dst // stride % length - src // stride % length) * stride
            begin += lengths[k]
        latency = np.concatenate([[0], np.cumsum(topology.link_latency_ps[links])])
        return Routes(start, links, np.ones(len(links)), latency[start[1:]] - latency[start[:-1]])

    def _many_signed_hops(self, k: int, src: NDArray[np.int64], dst: NDArray[np.int64]) -> NDArray[np.int64]:
        """`_signed_hops` of many pairs."""
        length, stride = self.dims[k], self._strides[k]
        coord, goal = src // stride % length, dst // stride % length
        if not self.wraps[k]:
            return goal - coord
        up = (goal - coord) % length
        ties_up = (2 * up == length) & ((self.ties == "positive") | (coord % 2 == 0))
        return np.where((2 * up < length) | ties_up, up, up - length)

    def _many_axis_links(
        self, k: int, rank: NDArray[np.int64], hop: NDArray[np.int64], up: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """`_axis_links` of many ranks: the link of one hop each."""
        length, stride, edges = self.dims[k], self._strides[k], self._axis_edges[k]
        first = self._edge_offsets[k] + rank // (length * stride) * edges * stride + rank % stride
        coord = rank // stride % length
        place = np.where(up, coord + hop, coord - 1 - hop) % length
        links: NDArray[np.int64] = 2 * (first + place * stride) + ~up
        return links

    def _signed_hops(self, k: int, coord: int, goal: int) -> int:
        """Return how many hops up (or, if negative, down) axis k lead from `coord` to `goal`."""
        if not self.wraps[k]:
            return goal - coord
        length = self.dims[k]
        up = (goal - coord) % length
        if 2 * up == length:
            return up if self.ties == "positive" or coord % 2 == 0 else -up
        return up if 2 * up < length else up - length

    def _axis_links(self, k: int, rank: int, signed_hops: int) -> list[int]:
        """Return the links of so many hops along axis k, starting at `rank`."""
        length, stride, edges = self.dims[k], self._strides[k], self._axis_edges[k]
        coord, below = rank // stride % length, rank % stride
        first = self._edge_offsets[k] + rank // (length * stride) * edges * stride + below
        if signed_hops >= 0:
            return [2 * (first + (coord + hop) % length * stride) for hop in range(signed_hops)]
        return [2 * (first + (coord - 1 - hop) % length * stride) + 1 for hop in range(-signed_hops)]

    @cached_property
    def _strides(self) -> tuple[int, ...]:
        return tuple(math.prod(self.dims[k + 1 :]) for k in range(len(self.dims)))

    @cached_property
    def _axis_edges(self) -> tuple[int, ...]:
        """Edges on one line of chips along each axis."""
        return tuple(length if wrap else length - 1 for length, wrap in zip(self.dims, self.wraps, strict=True))

    @cached_property
    def _edge_offsets(self) -> tuple[int, ...]:
        """The first edge of each axis."""
        n_chips = math.prod(self.dims)
        totals = [n_chips // d * edges for d, edges in zip(self.dims, self._axis_edges, strict=True)]
        return tuple(sum(totals[:k]) for k in range(len(totals)))
