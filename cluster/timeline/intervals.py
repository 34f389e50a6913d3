"""Arithmetic on many intervals of time at once."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import frozen
from numba import njit
from numpy.typing import NDArray

Times = NDArray[np.int64]


@frozen(eq=False)
class Intervals:
    """Times from `start` to `end` in ps, each of an owner (a chip or a link, 0…)."""

    owner: NDArray[np.integer]
    start: Times
    end: Times

    @classmethod
    def join(cls, parts: Sequence[Intervals]) -> Intervals:
        """Return the intervals of all parts, in turn."""
        none = np.zeros(0, np.int64)
        columns = zip((none, none, none), *((p.owner, p.start, p.end) for p in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def hulls(self) -> Intervals:
        """Return one interval for every owner: from its first start to its last end."""
        order = np.argsort(self.owner, kind="stable")
        owner, first = np.unique(self.owner[order], return_index=True)
        if not len(owner):
            return self
        start, end = np.minimum.reduceat(self.start[order], first), np.maximum.reduceat(self.end[order], first)
        return Intervals(owner, start, end)

    def merged(self) -> Intervals:
        """Return what is covered, as intervals that do not touch, by owner and time; owners below 0 are left out.

        >>> x = Intervals(np.array([0, 0, 1, -1]), np.array([0, 2, 5, 0]), np.array([3, 4, 6, 9])).merged()
        >>> x.owner.tolist(), x.start.tolist(), x.end.tolist()
        ([0, 1], [0, 5], [4, 6])
        """
        keep = (self.end > self.start) & (self.owner >= 0)
        return Intervals(*_merge(self.owner[keep], self.start[keep], self.end[keep]))

    def lengths(self, n_owners: int) -> Times:
        """Return how long the intervals of every owner are together; owners beyond (switches that add) are left out."""
        total, here = np.zeros(n_owners, np.int64), self.owner < n_owners
        np.add.at(total, self.owner[here], (self.end - self.start)[here])
        return total

    def overlapping(self) -> NDArray[np.bool_]:
        """Return whether each meets another one of its owner; where none has a length it counts as 1 ps.

        >>> Intervals(np.zeros(4, int), np.array([0, 2, 3, 9]), np.array([3, 4, 5, 9])).overlapping().tolist()
        [True, True, True, False]
        """
        order = np.lexsort((self.start, self.owner))
        meets = np.zeros(len(order), np.bool_)
        _meet(order, self.owner, self.start, np.maximum(self.end, self.start + 1), meets)
        return meets


@njit(cache=True)
def _merge(owner: Any, start: Any, end: Any) -> Any:
    """Sort by owner, then by start, and join what touches."""
    n_owners = owner.max() + 1 if len(owner) else 0
    first = np.zeros(n_owners + 1, np.int64)
    for i in range(len(owner)):
        first[owner[i] + 1] += 1
    for k in range(n_owners):
        first[k + 1] += first[k]
    at = first[:-1].copy()
    starts, ends = np.empty(len(owner), np.int64), np.empty(len(owner), np.int64)
    for i in range(len(owner)):
        starts[at[owner[i]]], ends[at[owner[i]]] = start[i], end[i]
        at[owner[i]] += 1
    owners, n = np.empty(len(owner), np.int64), 0  # what is merged takes the place of what has been read
    for k in range(n_owners):
        mine, last = starts[first[k] : first[k + 1]], ends[first[k] : first[k + 1]]
        if (mine[1:] < mine[:-1]).any():
            order = np.argsort(mine)
            mine, last = mine[order], last[order]
        fresh = n
        for i in range(len(mine)):
            begin, finish = mine[i], last[i]
            if n > fresh and begin <= ends[n - 1]:
                ends[n - 1] = max(ends[n - 1], finish)
            else:
                owners[n], starts[n], ends[n] = k, begin, finish
                n += 1
    return owners[:n], starts[:n], ends[:n]


@njit(cache=True)
def _meet(order: Any, owner: Any, start: Any, end: Any, meets: Any) -> None:
    """Mark what meets an earlier or a later interval of its owner; `order` is by owner and start."""
    reached = np.int64(0)
    for k in range(len(order)):
        i = order[k]
        begins = k == 0 or owner[order[k - 1]] != owner[i]
        if not begins and start[i] < reached:
            meets[i] = True
        if k + 1 < len(order) and owner[order[k + 1]] == owner[i] and start[order[k + 1]] < end[i]:
            meets[i] = True
        reached = end[i] if begins else max(reached, end[i])


def lanes(start: NDArray[np.int64], end: NDArray[np.int64]) -> list[list[int]]:
    """Return intervals (their places) on as few lanes as keep them apart, each lane in the order of the starts.

    >>> lanes(np.array([0, 1, 5, 6]), np.array([5, 2, 7, 8]))
    [[0, 2], [1, 3]]
    """
    found: list[list[int]] = []
    free: list[int] = []  # numbers of lanes, the lowest first
    busy: list[tuple[int, int]] = []  # (until, lane)
    for i in np.argsort(start, kind="stable").tolist():
        while busy and busy[0][0] <= start[i]:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            found.append([])
            free.append(len(found) - 1)
        lane = heapq.heappop(free)
        found[lane].append(i)
        heapq.heappush(busy, (int(end[i]), lane))
    return found
