"""What routers share: routes out of links, and the deterministic choice among equal ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from topology.graph import Route, Routes, Topology

if TYPE_CHECKING:
    from numpy.typing import NDArray

Spread = Literal["modulo", "hash"]


def path_route(topology: Topology, links: list[int]) -> Route:
    """Return the route that puts the whole transfer on each of these links, one after the other."""
    path = np.array(links, np.int32)
    return Route(path, np.ones(len(links)), int(topology.link_latency_ps[path].sum()))


def paths_of_columns(topology: Topology, columns: Sequence[NDArray[np.integer]]) -> Routes:
    """Return one path per pair: `columns[k][i]` is the k-th link of pair i, or -1 where it has none there."""
    table = np.stack(columns, axis=1)
    used = table >= 0
    start = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    links = table[used].astype(np.int32)
    latency_ps = np.where(used, topology.link_latency_ps[table], 0).sum(axis=1)
    return Routes(start, links, np.ones(len(links)), latency_ps)


class OneOfMany:
    """Gives a router of many pairs the route of a single one."""

    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return the routes from the chips `src` to the chips `dst`, pair by pair."""
        raise NotImplementedError

    def route(self, topology: Topology, src: int, dst: int) -> Route:
        """Return the route of one pair."""
        found = self.routes(topology, np.array([src]), np.array([dst]))
        return Route(found.links, found.weights, int(found.latency_ps[0]))


def pair_hash(src: NDArray[np.integer], dst: NDArray[np.integer], salt: int = 0) -> NDArray[np.int64]:
    """Return a number ≥ 0 that looks random and depends on (src, dst, salt) alone.

    The finaliser of SplitMix64 on src * 2^32 + dst: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014.

    >>> bool((pair_hash(np.arange(8), np.arange(8)) >= 0).all())
    True
    """
    x = (np.asarray(src).astype(np.uint64) << np.uint64(32)) + np.asarray(dst).astype(np.uint64)
    x = x + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % 2**64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)


def pair_key(spread: Spread, src: NDArray[np.int64], dst: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number whose remainder chooses among equal ways: the destination, or a hash of both ends."""
    return dst if spread == "modulo" else pair_hash(src, dst)
