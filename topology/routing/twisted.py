"""Minimal routing on a twisted torus."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from topology.graph import Topology
from topology.routes import Routes
from topology.routing.dimension_order import Walk
from topology.routing.paths import OneOfMany, paths_of_links
from topology.twist import Twist, minimal_hops, offsets


@frozen
class TwistedRouter(OneOfMany):
    """Take the fewest hops, axis by axis; of several ways the one of `topology.twist.minimal_hops`."""

    dims: tuple[int, ...]
    twist: Twist
    is_uniform = True

    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return the routes: those of chip 0 to the chips that stand to it as `dst` to `src`, moved to `src`."""
        hops = self._hops[offsets(self.dims, self.twist, src, dst)].T
        walk = Walk(self.dims, (True,) * len(self.dims), self.twist)
        return paths_of_links(topology, *walk.links(src, hops))

    @cached_property
    def _hops(self) -> NDArray[np.int64]:
        return minimal_hops(self.dims, self.twist)
