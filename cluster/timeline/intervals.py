"""Arithmetic on many intervals of time at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]


def union_length(owner: NDArray[np.int32], start: Times, end: Times, n_owners: int) -> Times:
    """Return, per owner, how much time its intervals cover; where they overlap, time counts once.

    >>> union_length(np.array([0, 0, 1]), np.array([0, 2, 5]), np.array([3, 4, 6]), 2)
    array([4, 1])
    """
    keep = end > start
    owner, start, end = owner[keep], start[keep], end[keep]
    if not len(owner):
        return np.zeros(n_owners, np.int64)
    order = np.lexsort((start, owner))
    owner, start, end = owner[order], start[order], end[order]
    # Shift every owner's intervals behind those of the one before: one running maximum then serves all.
    shift = owner.astype(np.int64) * (int(end.max()) + 1)
    reached = np.maximum.accumulate(end + shift)
    before = np.concatenate([[np.iinfo(np.int64).min], reached[:-1]])
    covered = np.maximum(reached - np.maximum(before, start + shift), 0)
    return np.bincount(owner, covered, minlength=n_owners).astype(np.int64)
