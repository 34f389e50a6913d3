"""What routers share: routes out of links, and the deterministic choice among equal ways."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from topology.graph import Topology
from topology.routes import Route, Routes

BLOCK_PAIRS = 2**15  # pairs walked at a time on any graph: bounds the memory
BLOCK_SEARCHED = 2**23  # nodes in all searches of a block together

Spread = Literal["modulo", "hash"]


def paths_of_links(topology: Topology, start: NDArray[np.int64], links: NDArray[np.int32]) -> Routes:
    """Return one path per pair: that of pair i is `links[start[i]:start[i + 1]]`."""
    latency_ps = topology.link_latency_ps
    if len(latency_ps) and (latency_ps == latency_ps[0]).all():
        total_ps = np.diff(start) * latency_ps[0]
    else:
        so_far_ps = np.concatenate([[0], np.cumsum(latency_ps[links])])
        total_ps = so_far_ps[start[1:]] - so_far_ps[start[:-1]]
    return Routes(start, links, np.ones(len(links)), total_ps)


def paths_of_columns(topology: Topology, columns: Sequence[NDArray[np.integer]]) -> Routes:
    """Return one path per pair: `columns[k][i]` is the k-th link of pair i, or -1 where it has none there."""
    table = np.stack(columns, axis=1)
    used = table >= 0
    start = np.concatenate([[0], np.cumsum(np.count_nonzero(used, axis=1))])
    return paths_of_links(topology, start, table[used].astype(np.int32))


Columns = list[NDArray[np.int64]]


def paths_in_blocks(
    topology: Topology,
    src: NDArray[np.int64],
    dst: NDArray[np.int64],
    by: NDArray[np.int64],
    columns_of: Callable[[Topology, NDArray[np.int64], NDArray[np.int64]], Columns],
) -> Routes:
    """Return paths that are found a block of pairs at a time; pairs of the same node `by` stay together.

    A search from one node is as long as there are nodes: a block has only as many of them as fit into the memory.
    """
    order = np.argsort(by, kind="stable")
    nodes, place = np.unique(by[order], return_inverse=True)
    nodes_per_block = max(1, BLOCK_SEARCHED // topology.n_nodes)
    cuts = np.searchsorted(place, np.arange(0, len(nodes) + nodes_per_block, nodes_per_block))
    blocks = [
        order[first : min(first + BLOCK_PAIRS, end)]
        for begin, end in pairwise(cuts.tolist())
        for first in range(begin, end, BLOCK_PAIRS)
    ]
    found = [columns_of(topology, src[block], dst[block]) for block in blocks]
    table = np.full((max(map(len, found), default=0), len(src)), -1, np.int32)
    for block, columns in zip(blocks, found, strict=True):
        for k, column in enumerate(columns):
            table[k, block] = column
    return paths_of_columns(topology, [*table, np.full(len(src), -1, np.int32)])


class OneOfMany(ABC):
    """Gives a router of many pairs the route of a single one."""

    @abstractmethod
    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return the routes from the chips `src` to the chips `dst`, pair by pair."""

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
