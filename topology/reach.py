"""Which nodes can be reached from which, and by how few links."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topology.arrays import ragged, read_only

if TYPE_CHECKING:
    from numpy.typing import NDArray


def breadth_first(
    src: int, link_dst: NDArray[np.int32], order: NDArray[np.int32], start: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the link by which a search from node `src` enters each node, and how many links away it is, or -1.

    The links of node i are `order[start[i]:start[i + 1]]`, by ascending `link_dst`. Goes level by level; nodes are
    entered in the order of their first link.
    """
    n_nodes = len(start) - 1
    entered_by, hops = np.full(n_nodes, -1, np.int32), np.full(n_nodes, -1, np.int32)
    hops[src] = 0
    level = np.array([src])
    while len(level):
        links = order[ragged(start[level], start[level + 1] - start[level])]
        links = links[hops[link_dst[links]] < 0]
        nodes, first = np.unique(link_dst[links], return_index=True)
        entered_by[nodes] = links[first]
        hops[nodes] = hops[level[0]] + 1
        level = nodes[np.argsort(first)]
    return read_only(entered_by), read_only(hops)


def islands(n_nodes: int, link_src: NDArray[np.int32], link_dst: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return for every node the lowest node that it is connected with.

    >>> islands(4, np.array([0, 2, 1, 3]), np.array([2, 0, 3, 1])).tolist()
    [0, 1, 0, 1]
    """
    lowest = np.arange(n_nodes)
    while True:
        further = lowest.copy()
        np.minimum.at(further, link_dst, lowest[link_src])
        further = np.minimum(further, further[further])
        if np.array_equal(further, lowest):
            return lowest
        lowest = further
