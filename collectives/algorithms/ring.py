"""Ring algorithms: every rank sends to the next one of a ring, n-1 steps for a gather, 2(n-1) for an all-reduce.

With n ranks, part size m = S/n, hop latency α and link bandwidth B, on an idle ring of neighbours:

    all_gather, reduce_scatter   (n-1) (α + m/B)
    all_reduce                   2 (n-1) (α + m/B)

Source: P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 69 (2009).
"""

from __future__ import annotations

from collections.abc import Iterator

from collectives.group import GroupView
from collectives.schedule import Schedule, Transfer


def all_gather(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-gather in which rank i hands on what it received to rank i+1."""
    del root
    return ring("all_gather", "ring", tuple(range(len(group))))


def reduce_scatter(group: GroupView, root: int = 0) -> Schedule:
    """Return the reduce-scatter in which a part collects sums on its way round to its owner."""
    del root
    return ring("reduce_scatter", "ring", tuple(range(len(group))))


def all_reduce(group: GroupView, root: int = 0) -> Schedule:
    """Return a reduce-scatter followed by an all-gather."""
    del root
    return ring("all_reduce", "ring", tuple(range(len(group))))


def ring(op: str, algorithm: str, order: tuple[int, ...]) -> Schedule:
    """Return the ring schedule for `op` that visits the ranks in `order`."""
    n = len(order)
    transfers: list[Transfer] = []
    if op != "all_gather":
        transfers += _reduce(order)
    if op != "reduce_scatter":
        transfers += _gather(order, first_step=n - 1 if op == "all_reduce" else 0)
    return Schedule(op, algorithm, n, n, tuple(transfers))


def _gather(order: tuple[int, ...], first_step: int) -> Iterator[Transfer]:
    """In step s the rank at place i sends the part of place i-s, which it got in the step before."""
    n = len(order)
    for s in range(n - 1):
        for i in range(n):
            yield Transfer(first_step + s, order[i], order[(i + 1) % n], (order[(i - s) % n],))


def _reduce(order: tuple[int, ...]) -> Iterator[Transfer]:
    """In step s the rank at place i sends the part of place i-s-1; after n-1 steps part c is whole at its owner."""
    n = len(order)
    for s in range(n - 1):
        for i in range(n):
            yield Transfer(s, order[i], order[(i + 1) % n], (order[(i - s - 1) % n],), reduce=True)
