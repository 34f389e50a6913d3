"""Bruck's algorithms: ⌈log2 n⌉ steps for any number of ranks.

With n ranks, part size m, latency α of a route and bandwidth B of a rank, on an idle switch:

    all_gather   ⌈log2 n⌉ α + (n-1) m/B
    all_to_all   Σ over the bits b of n-1 of α + c(b) m/B,  c(b) = how many of 0…n-1 have bit b
                 (n a power of two: log2 n (α + n/2 m/B))

Source: J. Bruck, C.-T. Ho, S. Kipnis, E. Upfal, D. Weathersby, "Efficient algorithms for all-to-all communications in
multiport message-passing systems", IEEE TPDS 8 (1997).
"""

from __future__ import annotations

import numpy as np

from collectives.compose import cyclic, from_gather
from collectives.group import GroupView
from collectives.schedule import Schedule, Transfers


def all_gather(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-gather in which rank i hands the parts i, i+1… that it has to the rank 2^s before it."""
    del root
    n = len(group)
    steps = range((n - 1).bit_length())
    rows = cyclic(n, lambda: [(s, n - (1 << s), min(1 << s, n - (1 << s)), 0) for s in steps])
    return from_gather("all_gather", "bruck", n, n, lambda: gather(n), rows)


def all_to_all(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-to-all in which a part for the rank k further on moves by 2^s in step s if k has that bit."""
    del root
    n = len(group)
    steps = range((n - 1).bit_length())
    rows = cyclic(n, lambda: [(s, 1 << s, sum(k >> s & 1 for k in range(n)), 0) for s in steps])
    return Schedule("all_to_all", "bruck", n, n * n, lambda: _exchange(n), rows)


def gather(n: int) -> Transfers:
    """Return the all-gather of n chunks among n ranks."""
    step, rank = np.arange((n - 1).bit_length())[:, None], np.arange(n)[None, :]
    reach = 1 << step
    return Transfers.runs(
        step, rank, (rank - reach) % n, rank, np.minimum(reach, n - reach), pool=np.tile(np.arange(n), 2)
    )


def _exchange(n: int) -> Transfers:
    steps = [_exchange_step(n, s).delayed(s) for s in range((n - 1).bit_length())]
    return Transfers.join(steps)


def _exchange_step(n: int, s: int) -> Transfers:
    """Return one step: every rank sends on, in one message, all parts with bit s in the distance that they go."""
    distance = np.arange(n)
    distance = distance[distance >> s & 1 == 1]
    rank = np.arange(n)[:, None]
    origin = (rank - (distance & ((1 << s) - 1))) % n
    chunks = origin * n + (origin + distance) % n
    first = len(distance) * np.arange(n)
    src = np.arange(n)
    return Transfers.runs(0, src, (src + (1 << s)) % n, first, len(distance), pool=chunks.reshape(-1))
