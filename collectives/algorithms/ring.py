"""Ring algorithms: every rank sends to the next one of a ring, n-1 steps for a gather, 2(n-1) for an all-reduce.

With n ranks, part size m = S/n, hop latency α and link bandwidth B, on an idle ring of neighbours:

    all_gather, reduce_scatter   (n-1) (α + m/B)
    all_reduce                   2 (n-1) (α + m/B)

With k channels there are k rings at once, each with a piece of every part: round the ranks up and down, then with
strides 3, -3… that are coprime to n, so that no two of them use a pair of ranks in the same direction. Where every pair
has a link of its own, k of them take m/(kB) a step.

Source: P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations",
JPDC 69 (2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np
from attrs import frozen

from collectives.compose import family
from collectives.group import GroupView
from collectives.schedule import Schedule, Transfers, Uniform


def _schedule(op: str, group: GroupView, root: int = 0, *, channels: int = 1) -> Schedule:
    """Return the all-gather in which rank i hands on what it received to rank i+1, or what it makes."""
    del root
    n = len(group)
    strides = coprime_strides(n)
    return rings(op, "ring", n, [Ring.of_stride(n, strides[c % len(strides)]) for c in range(channels)])


all_gather, reduce_scatter, all_reduce = family(_schedule)


def coprime_strides(n: int) -> list[int]:
    """Return the strides with which a ring visits all of n ranks: no two of these rings use the same pair of ranks.

    >>> coprime_strides(8)
    [1, 7, 3, 5]
    """
    up = [k for k in range(1, n // 2 + 1) if gcd(k, n) == 1] or [1]
    return list(dict.fromkeys(stride for k in up for stride in (k, max(n - k, 1))))


@frozen
class Ring:
    """An order of the ranks; `stride` if each is so much further on than the one before, round the end."""

    order: tuple[int, ...]
    stride: int | None = None

    @classmethod
    def of_stride(cls, n: int, stride: int) -> Ring:
        """Return the ring of ranks 0, stride, 2 stride… modulo n."""
        return cls(tuple(stride * place % n for place in range(n)), stride)


def rings(op: str, algorithm: str, n: int, channels: Sequence[Ring]) -> Schedule:
    """Return the schedule for `op` in which the c-th piece of every part goes round the c-th ring."""
    n_reduce, n_gather = (n - 1) * (op != "all_gather"), (n - 1) * (op != "reduce_scatter")

    def make() -> Transfers:
        return Transfers.join(
            [_transfers(r.order, n_reduce, n_gather, c, len(channels)) for c, r in enumerate(channels)]
        )

    def uniform(dims: tuple[int, ...]) -> Uniform | None:
        if dims != (n,) or any(ring.stride is None for ring in channels):
            return None
        offset = np.array([ring.stride for ring in channels]) % n
        step, piece = np.divmod(np.arange((n_reduce + n_gather) * len(channels)), len(channels))
        return Uniform(dims, step, offset[piece], np.ones_like(step), piece)

    return Schedule(op, algorithm, n, n * len(channels), make, uniform)


def _transfers(order: tuple[int, ...], n_reduce: int, n_gather: int, channel: int, n_channels: int) -> Transfers:
    """Return the steps of the reduction, then those of the gather, on one ring."""
    n = len(order)
    step = np.arange(n_reduce + n_gather)[:, None]
    place, rank = np.arange(n)[None, :], np.array(order)
    adds = step < n_reduce
    # Adding, place i sends part i-s-1: after n-1 steps part c is whole at its owner. Then, in the s-th step of the
    # gather, it sends part i-s, which it got in the step before.
    part = np.where(adds, place - step - 1, place - (step - n_reduce)) % n
    chunk = rank[part] * n_channels + channel
    return Transfers.single(step, rank[place], rank[(place + 1) % n], chunk, reduce=adds)
