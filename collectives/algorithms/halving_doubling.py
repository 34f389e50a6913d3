"""Rabenseifner's all-reduce: a reduce-scatter by recursive halving, then an all-gather by recursive doubling.

With n ranks, buffer size S, latency α of a route and bandwidth B of a rank, on an idle switch, with p the largest power
of two that is at most n:

    all_reduce, n = p   2 log2 p α + 2 (p-1)/p S/B
    all_reduce, n > p   at least 2 (log2 p + 1) α + 2 (p-1)/p S/B + 2 S/B

Where n > p, the odd rank of each of the first n-p pairs gives its buffer to the even one and gets the result at last;
the other ranks do not wait for the first, and their messages share the links of those that still receive.
Source: R. Rabenseifner, "Optimization of collective reduction operations", ICCS 2004, section 3.
"""

from __future__ import annotations

import numpy as np

from collectives.algorithms.recursive_doubling import Fold
from collectives.group import GroupView
from collectives.schedule import Schedule, Transfers


def all_reduce(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-reduce on as many chunks as the largest power of two of ranks."""
    del root
    fold = Fold(len(group))
    return Schedule("all_reduce", "halving_doubling", fold.n, fold.n_places, lambda: _transfers(fold))


def _transfers(fold: Fold) -> Transfers:
    chunks = np.arange(fold.n_places)
    step, place, partner = fold.partners()
    first = (place >> step) << step
    gather = Transfers.runs(step, fold.first_rank(place), fold.first_rank(partner), first, 1 << step, pool=chunks)
    return fold.into(chunks).then(gather.reversed()).then(gather).then(fold.out(chunks))
