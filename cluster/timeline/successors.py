"""Which tasks come after each: the edges of a task graph, sorted by where they begin."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True)
def successors(n_tasks: int, edge_from: Any, edge_to: Any) -> Any:
    """Return (start, list, number before): the tasks after task i are list[start[i]:start[i + 1]], in given order."""
    start, n_before = np.zeros(n_tasks + 1, np.int64), np.zeros(n_tasks, np.int32)
    after = np.empty(len(edge_to), np.int32)
    for i in range(len(edge_from)):
        start[edge_from[i] + 1] += 1
        n_before[edge_to[i]] += 1
    for i in range(n_tasks):
        start[i + 1] += start[i]
    at = start[:-1].copy()
    for i in range(len(edge_from)):
        after[at[edge_from[i]]] = edge_to[i]
        at[edge_from[i]] += 1
    return start, after, n_before
