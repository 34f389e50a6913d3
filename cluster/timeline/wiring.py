"""The routes of a run, over as few links as bound its rates.

Links of one bandwidth that carry the same share of every transfer (the planes of a switch over which all transfers are
split, links in a row that nobody else uses) are equally full at any moment: they are a bundle, and its first link
bounds the rates as all of them do, to the last bit. So the engine plays the first links alone, and what they have
carried in the end the others have carried too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from attrs import frozen
from numba import njit
from numpy.typing import NDArray

from cluster.timeline.expand import distinct
from topology import Topology
from topology.routes import Routes

Ends = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Source and destination of every task; the destination is -1 for what is no transfer."""
PAIRS_AT_ONCE = 2048
"""Routes that are taken up together: few enough for the processor's cache."""


@frozen(eq=False)
class Wiring:
    """The routes of a run's pairs of nodes over the first links of bundles, and of every link that first one."""

    routes: Routes
    first: NDArray[np.int64]

    def spread(self, link_bytes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the bytes that every link carries, from those of the first links."""
        return link_bytes[self.first]


def wire(topology: Topology, ends: Sequence[Ends]) -> tuple[Wiring, list[NDArray[np.int32]]]:
    """Return the wiring for the transfers of several sets of tasks, and every task's route; -1 for no transfer."""
    sends = [peer >= 0 for _, peer in ends]
    keys = [
        owner[sent].astype(np.int64) * topology.n_nodes + peer[sent]
        for (owner, peer), sent in zip(ends, sends, strict=True)
    ]
    pairs, number = distinct(np.concatenate(keys), topology.n_nodes**2)
    numbers = []
    for sent, some in zip(sends, np.split(number, np.cumsum([len(k) for k in keys])[:-1]), strict=True):
        route = np.full(len(sent), -1, np.int32)
        route[sent] = some
        numbers.append(route)
    return _wired(topology, pairs.tobytes()), numbers


@lru_cache(maxsize=8)
def _wired(topology: Topology, pairs: bytes) -> Wiring:
    """Return the wiring of these pairs (source x n_nodes + destination); runs and predictions ask for the same ones."""
    src, dst = np.divmod(np.frombuffer(pairs, np.int64), topology.n_nodes)
    n_links = len(topology.link_src)
    _, bundle = np.unique(topology.link_bandwidth_bytes_per_s, return_inverse=True)
    size, n_bundles = np.bincount(bundle, minlength=n_links), int(bundle.max(initial=-1)) + 1
    parts = []
    for begin in range(0, len(src), PAIRS_AT_ONCE):
        routes = topology.routes(src[begin : begin + PAIRS_AT_ONCE], dst[begin : begin + PAIRS_AT_ONCE])
        if (routes.weights < 1).any():  # several ways, which may have links in common
            start, links, weights = _merged(routes.start, routes.links, routes.weights, n_links)
            routes = Routes(start, links, weights, routes.latency_ps)
        n_bundles = _split(routes.start, routes.links, routes.weights, bundle, size, n_bundles)
        parts.append(routes)
    first = np.zeros(n_links, np.int64)
    first[bundle[::-1]] = np.arange(n_links)[::-1]
    first = first[bundle]
    return Wiring(Routes.join([_over(first, routes) for routes in parts]) if parts else Routes.of([]), first)


def _over(first: NDArray[np.int64], routes: Routes) -> Routes:
    """Return the routes over the first links of bundles alone."""
    kept = first[routes.links] == routes.links
    before = np.concatenate([[0], np.cumsum(kept)])
    return Routes(before[routes.start], routes.links[kept], routes.weights[kept], routes.latency_ps)


@njit(cache=True)
def _merged(start: Any, links: Any, weights: Any, n_links: int) -> Any:
    """Return start, links and weights of routes that name each link once, with the sum of its weights."""
    merged_start, merged, sums = np.zeros_like(start), np.empty_like(links), np.empty_like(weights)
    place, n = np.full(n_links, -1, np.int64), 0
    for i in range(len(start) - 1):
        for k in range(start[i], start[i + 1]):
            at = place[links[k]]
            if at < merged_start[i]:  # not yet in this route
                place[links[k]] = n
                merged[n], sums[n] = links[k], weights[k]
                n += 1
            else:
                sums[at] += weights[k]
        merged_start[i + 1] = n
    return merged_start, merged[:n], sums[:n]


@njit(cache=True)
def _split(start: Any, links: Any, weights: Any, bundle: Any, size: Any, n_bundles: int) -> Any:
    """Part the links that a route tells apart: those it has from those it has not, and those of different weights.

    Changes `bundle` (of every link) and `size` (of every bundle), and returns how many bundles there are now.
    """
    most = np.diff(start).max() if len(start) > 1 else 0
    newest = np.full(len(size), -1, np.int64)  # of every bundle, its newest share: links of the route of one weight
    share, weight, count = np.empty(most, np.int64), np.empty(most), np.empty(most, np.int64)
    older, part = np.empty(most, np.int64), np.empty(most, np.int64)
    for i in range(len(start) - 1):
        first, n = start[i], 0
        for k in range(first, start[i + 1]):
            old = bundle[links[k]]
            at = newest[old]
            while at >= 0 and weight[at] != weights[k]:
                at = older[at]
            if at < 0:
                at = n
                n += 1
                weight[at], count[at], older[at], part[at] = weights[k], 0, newest[old], old
                newest[old] = at
            count[at] += 1
            share[k - first] = at
        for at in range(n):
            old = part[at]
            newest[old] = -1
            if count[at] < size[old]:
                part[at] = n_bundles
                size[n_bundles] = count[at]
                size[old] -= count[at]
                n_bundles += 1
        for k in range(first, start[i + 1]):
            bundle[links[k]] = part[share[k - first]]
    return n_bundles
