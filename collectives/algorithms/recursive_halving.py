"""Recursive halving: a reduce-scatter in which, step by step, ranks give half of what they still add up to a partner.

With n ranks, part size m = S/n, latency α of a route and bandwidth B of a rank, on an idle switch, n a power of two:

    reduce_scatter   log2 n α + (n-1) m/B

It is the recursive doubling all-gather backwards: any other n takes at least (⌊log2 n⌋ + 2) α + 2 (n-1) m/B.
Source: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations in MPICH",
IJHPCA 19 (2005), section 3.2.
"""

from __future__ import annotations

from collectives.algorithms.recursive_doubling import gather
from collectives.compose import from_gather
from collectives.group import GroupView
from collectives.schedule import Schedule


def reduce_scatter(group: GroupView, root: int = 0) -> Schedule:
    """Return the recursive doubling all-gather backwards."""
    del root
    n = len(group)
    return from_gather("reduce_scatter", "recursive_halving", n, n, lambda: gather(n))
