"""Behind one layer of switches: over all planes at once, or over one of them."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from topology.graph import Topology
from topology.routes import Route, Routes
from topology.routing.paths import OneOfMany, pair_hash, paths_of_columns


@frozen
class PlaneRouter:
    """Split a transfer over switch planes in proportion to their links: plane p takes links_p / Σ links.

    Needs the link numbering of the kind `switch`: chip c and plane p are edge c * n_planes + p, upwards
    first.
    """

    planes: tuple[int, ...]
    is_uniform = True

    def route(self, topology: Topology, src: int, dst: int) -> Route:
        """Return up-link and down-link of every plane in turn; the latency is that of the slowest plane."""
        n_planes = len(self.planes)
        up = 2 * (src * n_planes + np.arange(n_planes))
        down = 2 * (dst * n_planes + np.arange(n_planes)) + 1
        links = np.stack([up, down], axis=1).reshape(-1).astype(np.int32)
        weights = np.repeat(np.array(self.planes) / sum(self.planes), 2)
        latency_ps = topology.link_latency_ps[up] + topology.link_latency_ps[down]
        return Route(links, weights, int(latency_ps.max()))

    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return the routes of many pairs at once."""
        n_planes, n_pairs = len(self.planes), len(src)
        up = 2 * (src[:, None] * n_planes + np.arange(n_planes))
        down = 2 * (dst[:, None] * n_planes + np.arange(n_planes)) + 1
        links = np.stack([up, down], axis=2).reshape(-1).astype(np.int32)
        weights = np.tile(np.repeat(np.array(self.planes) / sum(self.planes), 2), n_pairs)
        latency_ps = (topology.link_latency_ps[up] + topology.link_latency_ps[down]).max(axis=1)
        return Routes(2 * n_planes * np.arange(n_pairs + 1), links, weights, latency_ps)


@frozen
class OnePlaneRouter(OneOfMany):
    """Put a transfer on one plane, chosen by a hash of its pair; plane p gets links_p / Σ links of the pairs.

    Needs the link numbering of the kind `switch`, as `PlaneRouter`.
    """

    planes: tuple[int, ...]
    is_uniform = False

    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return up-link and down-link of each pair's plane."""
        lanes = np.cumsum(self.planes)
        plane = np.searchsorted(lanes, pair_hash(src, dst) % lanes[-1], side="right")
        n_planes = len(self.planes)
        return paths_of_columns(topology, [2 * (src * n_planes + plane), 2 * (dst * n_planes + plane) + 1])
