"""Arithmetic on many intervals of time at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Times = NDArray[np.int64]


def union_length(owner: NDArray[np.int32], start: Times, end: Times, n_owners: int) -> Times:
    """Return, per owner, how much time its intervals cover; where they overlap, time counts once.

    >>> union_length(np.array([0, 0, 1], np.int32), np.array([0, 2, 5]), np.array([3, 4, 6]), 2)
    array([4, 1])
    """
    covered = np.zeros(n_owners, np.int64)
    _cover(owner, start, end, covered)
    return covered


@njit(cache=True)
def _cover(owner: Any, start: Any, end: Any, covered: Any) -> None:
    """Add to every owner what its intervals cover: owner by owner, in the order of their starts."""
    first = np.zeros(len(covered) + 1, np.int64)
    for i in range(len(owner)):
        if end[i] > start[i]:
            first[owner[i] + 1] += 1
    for k in range(len(covered)):
        first[k + 1] += first[k]
    at = first[:-1].copy()
    starts, ends = np.empty(first[-1], np.int64), np.empty(first[-1], np.int64)
    for i in range(len(owner)):
        if end[i] > start[i]:
            starts[at[owner[i]]], ends[at[owner[i]]] = start[i], end[i]
            at[owner[i]] += 1
    for k in range(len(covered)):
        mine = slice(first[k], first[k + 1])
        order, reached = np.argsort(starts[mine]), np.int64(-1)
        for i in order:
            begin, finish = starts[mine][i], ends[mine][i]
            covered[k] += max(finish - max(begin, reached), 0)
            reached = max(reached, finish)
