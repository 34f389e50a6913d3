"""Ring algorithms: every rank sends to the next one of a ring, n-1 steps for a gather, 2(n-1) for an all-reduce.

With n ranks, part size m = S/n, hop latency α and link bandwidth B, on an idle ring of neighbours:

    all_gather, reduce_scatter   (n-1) (α + m/B)
    all_reduce                   2 (n-1) (α + m/B)

Source: P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations",
JPDC 69 (2009).
"""

from __future__ import annotations

import numpy as np

from collectives.group import GroupView
from collectives.schedule import Schedule, Transfers, Uniform


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
    n_reduce, n_gather = (n - 1) * (op != "all_gather"), (n - 1) * (op != "reduce_scatter")

    def uniform(dims: tuple[int, ...]) -> Uniform | None:
        if dims != (n,) or order != tuple(range(n)):
            return None
        steps = np.arange(n_reduce + n_gather)
        one = np.ones_like(steps)
        return Uniform(dims, steps, one, one, piece=np.zeros_like(steps))

    return Schedule(op, algorithm, n, n, lambda: _transfers(order, n_reduce, n_gather), uniform)


def _transfers(order: tuple[int, ...], n_reduce: int, n_gather: int) -> Transfers:
    """Return the steps of the reduction, then those of the gather."""
    n = len(order)
    step = np.arange(n_reduce + n_gather)[:, None]
    place, rank = np.arange(n)[None, :], np.array(order)
    adds = step < n_reduce
    # Adding, place i sends part i-s-1: after n-1 steps part c is whole at its owner. Then, in the s-th step of the
    # gather, it sends part i-s, which it got in the step before.
    part = np.where(adds, place - step - 1, place - (step - n_reduce)) % n
    return Transfers.single(step, rank[place], rank[(place + 1) % n], rank[part], reduce=adds)
