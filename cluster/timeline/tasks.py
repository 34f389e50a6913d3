"""The graph of timed tasks that the engine plays, as flat arrays."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray


@frozen(eq=False)
class TaskGraph:
    """Tasks, what they wait for, and the routes of those that are transfers.

    Task i starts when the tasks before it have ended, takes `delay_ps[i]` and then, if `route[i]` ≥ 0, sends
    `size_bytes[i]` over the route; it ends when they have passed. Edges run from `edge_from` to `edge_to`. Route r uses
    the links `route_links[route_start[r]:route_start[r + 1]]`, each for `route_weights` times the transfer's bytes.
    """

    delay_ps: NDArray[np.int64]
    size_bytes: NDArray[np.float64]
    route: NDArray[np.int32]
    edge_from: NDArray[np.int64]
    edge_to: NDArray[np.int64]
    route_start: NDArray[np.int64]
    route_links: NDArray[np.int32]
    route_weights: NDArray[np.float64]

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.delay_ps)
