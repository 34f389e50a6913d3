"""Direct algorithms: every rank sends to every other one at once, in a single step.

On an idle switch of per-rank bandwidth B and route latency α, with part size m: α + (n-1) m/B.
Source: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations in MPICH",
IJHPCA 19 (2005), section 3.3 (the "isend-irecv" all-to-all).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from collectives.group import GroupView
from collectives.schedule import Schedule, Transfers, Uniform


def all_gather(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-gather in which every rank sends its part to all others."""
    del root
    n = len(group)

    def transfers() -> Transfers:
        src, dst = _pairs(n)
        return Transfers.single(0, src, dst, src)

    return Schedule("all_gather", "direct", n, n, transfers, _uniform)


def all_to_all(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-to-all in which every rank sends every other one its part; chunk i·n+j goes from i to j."""
    del root
    n = len(group)

    def transfers() -> Transfers:
        src, dst = _pairs(n)
        return Transfers.single(0, src, dst, src * n + dst)

    return Schedule("all_to_all", "direct", n, n * n, transfers, _uniform)


def _uniform(dims: tuple[int, ...]) -> Uniform:
    """Every rank sends one chunk to every other one, in one step, on any grid."""
    offset = np.arange(1, math.prod(dims))
    return Uniform(dims, np.zeros_like(offset), offset, np.ones_like(offset))


def _pairs(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (source, destination) of all ordered pairs of different ranks."""
    src, dst = np.divmod(np.arange(n * n), n)
    return src[src != dst], dst[src != dst]
