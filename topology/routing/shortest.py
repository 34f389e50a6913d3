"""Shortest paths on any graph: one per pair, the first of all or one of all."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from configs.errors import ConfigError
from topology.arrays import ragged
from topology.graph import Topology
from topology.routes import Routes
from topology.routing.paths import Columns, OneOfMany, Spread, pair_hash, paths_in_blocks

Ints = NDArray[np.int64]


@frozen
class ShortestPathRouter(OneOfMany):
    """Take the fewest links; of equally short paths the one whose nodes come first, compared one by one."""

    is_uniform = False

    def routes(self, topology: Topology, src: Ints, dst: Ints) -> Routes:
        """Follow the search trees of the sources back from the destinations, all pairs one link at a time."""
        return paths_in_blocks(topology, src, dst, src, self._columns)

    def _columns(self, topology: Topology, src: Ints, dst: Ints) -> Columns:
        sources, place = np.unique(src, return_inverse=True)
        trees = np.stack([topology.search_tree(source) for source in sources.tolist()])
        columns: Columns = []
        node, under_way = dst.copy(), src != dst
        while under_way.any():
            link = np.where(under_way, trees[place, node], -1).astype(np.int64)
            _refuse_lost(src, dst, under_way & (link < 0))
            columns.append(link)
            node = np.where(under_way, topology.link_src[link], node)
            under_way = node != src
        return columns[::-1]


@frozen
class EcmpRouter(OneOfMany):
    """Take the fewest links; at every node one of all links that lead nearer, chosen by the pair.

    `modulo`: link number (destination mod their count), in the order of the nodes they lead to. `hash`: by a hash of
    source, destination and hop (ECMP: C. Hopps, RFC 2992).
    """

    spread: Spread
    is_uniform = False

    def routes(self, topology: Topology, src: Ints, dst: Ints) -> Routes:
        """Walk from the sources on, all pairs one link at a time."""
        return paths_in_blocks(topology, src, dst, dst, self._columns)

    def _columns(self, topology: Topology, src: Ints, dst: Ints) -> Columns:
        goals, place = np.unique(dst, return_inverse=True)
        distance = np.stack([topology.hops_from(goal) for goal in goals.tolist()])
        _refuse_lost(src, dst, distance[place, src] < 0)
        columns: Columns = []
        node, walking = src.copy(), np.flatnonzero(src != dst)
        while len(walking):
            key = self._key(src[walking], dst[walking], len(columns))
            column = np.full(len(src), -1, np.int64)
            column[walking] = _one_nearer(topology, distance, node[walking], place[walking], key)
            columns.append(column)
            node[walking] = topology.link_dst[column[walking]]
            walking = walking[node[walking] != dst[walking]]
        return columns

    def _key(self, src: Ints, dst: Ints, hop: int) -> Ints:
        return dst if self.spread == "modulo" else pair_hash(src, dst, hop)


def _one_nearer(topology: Topology, distance: NDArray[np.int32], here: Ints, goal: Ints, key: Ints) -> Ints:
    """Return for each node `here` the link number (key mod their count) of those that lead nearer to its goal.

    `distance[goal]` holds every node's links to that goal.
    """
    order, start = topology.links_by_src
    count = start[here + 1] - start[here]
    walker = np.repeat(np.arange(len(here)), count)
    option = ragged(start[here], count)
    leads_to = topology.link_dst[order[option]]
    nearer = distance[goal[walker], leads_to] == distance[goal, here][walker] - 1
    walker, option = walker[nearer], option[nearer]
    n_options = np.bincount(walker, minlength=len(here))
    chosen: Ints = order[option[np.cumsum(n_options) - n_options + key % n_options]]
    return chosen


def _refuse_lost(src: Ints, dst: Ints, lost: NDArray[np.bool_]) -> None:
    """Raise ConfigError with the first pair that has no path, if there is one."""
    if lost.any():
        first = int(np.flatnonzero(lost)[0])
        raise ConfigError((f"no path from chip{src[first]} to chip{dst[first]}",))
