"""Binomial tree: the number of ranks that hold the data doubles in every step.

On an idle switch of per-rank bandwidth B and route latency α, with size S: ceil(log2 n) (α + S/B).
Source: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations in MPICH",
IJHPCA 19 (2005), section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterator

from collectives.group import GroupView
from collectives.schedule import Schedule, Transfer


def broadcast(group: GroupView, root: int = 0) -> Schedule:
    """Return the broadcast from `root` over a binomial tree."""
    return Schedule("broadcast", "binomial", len(group), 1, tuple(_tree(len(group), root)))


def _tree(n: int, root: int) -> Iterator[Transfer]:
    """In step s, places 0…2^s-1 (counted from the root) send to places 2^s…2^(s+1)-1."""
    reach, step = 1, 0
    while reach < n:
        for place in range(min(reach, n - reach)):
            yield Transfer(step, (root + place) % n, (root + place + reach) % n, (0,))
        reach, step = 2 * reach, step + 1
