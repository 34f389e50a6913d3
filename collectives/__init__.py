"""Collective algorithms as schedules: one object that is proven, executed and timed.

A new algorithm is one file in `algorithms/` and its rows in `ALGORITHMS`; the common test takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from collectives.algorithms import binomial, direct, ring, ring_neighbours
from collectives.checker import ScheduleError, check
from collectives.executor import execute, join, split
from collectives.group import GroupView
from collectives.operations import OPERATIONS, Operation, chunk_sizes, cut
from collectives.schedule import RankStep, Schedule, Transfer, Transfers

Builder = Callable[[GroupView, int], Schedule]
"""(group, root) -> schedule; raises ConfigError where the algorithm does not fit the group."""

ALGORITHMS: Mapping[str, Mapping[str, Builder]] = {
    "all_gather": {
        "ring": ring.all_gather,
        "ring_neighbours": ring_neighbours.all_gather,
        "direct": direct.all_gather,
    },
    "reduce_scatter": {
        "ring": ring.reduce_scatter,
        "ring_neighbours": ring_neighbours.reduce_scatter,
    },
    "all_reduce": {
        "ring": ring.all_reduce,
        "ring_neighbours": ring_neighbours.all_reduce,
    },
    "all_to_all": {
        "direct": direct.all_to_all,
    },
    "broadcast": {
        "binomial": binomial.broadcast,
    },
}
"""Every algorithm by operation; the first of each row is what `auto` takes."""


def select(op: str, algorithm: str) -> str:
    """Return the algorithm to use: the named one, or for `auto` the operation's first."""
    return next(iter(ALGORITHMS[op])) if algorithm == "auto" else algorithm


__all__ = [
    "ALGORITHMS",
    "OPERATIONS",
    "Builder",
    "GroupView",
    "Operation",
    "RankStep",
    "Schedule",
    "ScheduleError",
    "Transfer",
    "Transfers",
    "check",
    "chunk_sizes",
    "cut",
    "execute",
    "join",
    "select",
    "split",
]
