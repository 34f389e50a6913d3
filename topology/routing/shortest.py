"""Shortest paths on any graph: one per pair, the first of all or one of all."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from configs.errors import ConfigError
from topology.graph import Route, Routes, Topology
from topology.routing.paths import OneOfMany, Spread, pair_hash, path_route, paths_of_columns


def _no_path(src: int, dst: int) -> ConfigError:
    return ConfigError((f"no path from chip{src} to chip{dst}",))


@frozen
class ShortestPathRouter:
    """Take the fewest links; of equally short paths the one whose nodes come first, compared one by one."""

    is_uniform = False

    def route(self, topology: Topology, src: int, dst: int) -> Route:
        """Follow the search tree of `src` back from `dst`."""
        tree = topology.search_tree(src)
        links: list[int] = []
        node = dst
        while node != src:
            link = int(tree[node])
            if link < 0:
                raise _no_path(src, dst)
            links.append(link)
            node = int(topology.link_src[link])
        return path_route(topology, links[::-1])

    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Follow the search trees of all sources at once: all pairs one link back at a time."""
        sources, place = np.unique(src, return_inverse=True)
        trees = np.empty((len(sources), topology.n_nodes), np.int32)
        for tree, source in zip(trees, sources.tolist(), strict=True):
            tree[:] = topology.search_tree(source)
        columns: list[NDArray[np.int64]] = []
        node, under_way = dst.copy(), src != dst
        while under_way.any():
            link = np.where(under_way, trees[place, node], -1).astype(np.int64)
            lost = np.flatnonzero(under_way & (link < 0))
            if len(lost):
                raise _no_path(int(src[lost[0]]), int(dst[lost[0]]))
            columns.append(link)
            node = np.where(under_way, topology.link_src[link], node)
            under_way = node != src
        return paths_of_columns(topology, columns[::-1] or [np.full(len(src), -1)])


@frozen
class EcmpRouter(OneOfMany):
    """Take the fewest links; at every node one of all links that lead nearer, chosen by the pair.

    `modulo`: link number (destination mod their count), in the order of the nodes they lead to. `hash`: by a hash of
    source, destination and hop (ECMP: C. Hopps, RFC 2992).
    """

    spread: Spread
    is_uniform = False

    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return the paths, all pairs one link forward at a time."""
        goals, place = np.unique(dst, return_inverse=True)
        distance = np.stack([topology.hops_from(goal) for goal in goals.tolist()])
        order, start = topology.links_by_src
        leads_to = topology.link_dst[order]
        columns: list[NDArray[np.int64]] = []
        node = src.copy()
        lost = np.flatnonzero(distance[place, src] < 0)
        if len(lost):
            raise _no_path(int(src[lost[0]]), int(dst[lost[0]]))
        walking = np.flatnonzero(node != dst)
        while len(walking):
            here, goal = node[walking], place[walking]
            count = start[here + 1] - start[here]
            pair = np.repeat(np.arange(len(walking)), count)
            option = np.arange(len(pair)) + np.repeat(start[here] - np.cumsum(count) + count, count)
            nearer = distance[goal[pair], leads_to[option]] == distance[goal, here][pair] - 1
            pair, option = pair[nearer], option[nearer]
            n_options = np.bincount(pair, minlength=len(walking))
            choice = self._key(src[walking], dst[walking], len(columns)) % n_options
            chosen = order[option[np.cumsum(n_options) - n_options + choice]]
            column = np.full(len(src), -1, np.int64)
            column[walking] = chosen
            columns.append(column)
            node[walking] = topology.link_dst[chosen]
            walking = walking[node[walking] != dst[walking]]
        return paths_of_columns(topology, columns or [np.full(len(src), -1)])

    def _key(self, src: NDArray[np.int64], dst: NDArray[np.int64], hop: int) -> NDArray[np.int64]:
        return dst if self.spread == "modulo" else pair_hash(src, dst, hop)
