"""Binomial trees: the number of ranks that hold the data doubles (or halves) in every step.

With n ranks, buffer size S = n m, latency α of a route and bandwidth B of a rank, on an idle switch:

    broadcast   ⌈log2 n⌉ (α + S/B)
    reduce      log2 n (α + S/B)              n a power of two; other n may take less
    scatter     ⌈log2 n⌉ α + (n-1) m/B
    gather      log2 n α + (n-1) m/B          n a power of two; other n may take less

A reduce is the broadcast backwards, and a gather the scatter backwards: where n is no power of two, ranks with little
to wait for begin early. Source: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication
operations in MPICH", IJHPCA 19 (2005), section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from collectives.group import GroupView
from collectives.schedule import Schedule, Transfer, Transfers


def broadcast(group: GroupView, root: int = 0) -> Schedule:
    """Return the broadcast from `root` over a binomial tree."""
    return Schedule("broadcast", "binomial", len(group), 1, tuple(_tree(len(group), root)))


def reduce(group: GroupView, root: int = 0) -> Schedule:
    """Return the broadcast backwards: sums run to the root."""
    return Schedule("reduce", "binomial", len(group), 1, Transfers.of(_tree(len(group), root)).reversed())


def scatter(group: GroupView, root: int = 0) -> Schedule:
    """Return the scatter in which a rank hands half of the parts that it has to a rank that hands on half of those."""
    return Schedule("scatter", "binomial", len(group), len(group), _halves(len(group), root))


def gather(group: GroupView, root: int = 0) -> Schedule:
    """Return the scatter backwards."""
    return Schedule("gather", "binomial", len(group), len(group), _halves(len(group), root).reversed(reduce=False))


def _tree(n: int, root: int) -> Iterator[Transfer]:
    """In step s, places 0…2^s-1 (counted from the root) send to places 2^s…2^(s+1)-1."""
    reach, step = 1, 0
    while reach < n:
        for place in range(min(reach, n - reach)):
            yield Transfer(step, (root + place) % n, (root + place + reach) % n, (0,))
        reach, step = 2 * reach, step + 1


def _halves(n: int, root: int) -> Transfers:
    """With r = 2^(h-1)…2, 1, places 0, 2r, 4r… send the parts of the r places from r on to the first of them."""
    n_steps = (n - 1).bit_length()
    step, place = np.arange(n_steps)[:, None], np.arange(n)[None, :]
    reach = 1 << (n_steps - 1 - step) if n_steps else step
    first = place + reach
    length = np.where(place % (2 * reach) == 0, np.clip(n - first, 0, reach), 0) if n_steps else step
    pool = (root + np.arange(n)) % n
    return Transfers.runs(step, (root + place) % n, (root + first) % n, first, length, pool=pool)
