"""The one link between two chips, where all chips are joined."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from topology.graph import Topology
from topology.routes import Routes
from topology.routing.paths import OneOfMany, paths_of_columns


@frozen
class DirectRouter(OneOfMany):
    """Take the one link between two chips."""

    is_uniform = True

    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return that link, by the numbering of the kind `fully_connected`: edges (a, b), a < b, in order."""
        low, high = np.minimum(src, dst), np.maximum(src, dst)
        edge = low * (2 * topology.n_chips - low - 1) // 2 + high - low - 1
        return paths_of_columns(topology, [2 * edge + (src > dst)])
