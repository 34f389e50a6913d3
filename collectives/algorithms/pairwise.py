"""Pairwise exchange: an all-to-all in n-1 steps; in each, every rank sends to one rank and receives from one.

With n ranks, part size m, latency α of a route and bandwidth B of a rank, on an idle switch:

    all_to_all     (n-1) (α + m/B)
    all_to_all_v   Σ (α + m_s/B), with parts m_s from every rank to the one s further on, n no power of two

In step s a rank exchanges with the rank whose number differs by XOR with s if n is a power of two; otherwise it sends
to the rank s further on. Source: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication
operations in MPICH", IJHPCA 19 (2005), section 3.3.
"""

from __future__ import annotations

import numpy as np
from attrs import evolve

from collectives.compose import cyclic, never
from collectives.group import GroupView
from collectives.schedule import Schedule, Transfers


def all_to_all(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-to-all; chunk i·n+j goes from i to j."""
    del root
    n = len(group)
    shifts = cyclic(n, lambda: [(s - 1, s, 1, 0) for s in range(1, n)])
    return Schedule("all_to_all", "pairwise", n, n * n, lambda: _exchange(n), shifts if n & (n - 1) else never)


def all_to_all_v(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-to-all for parts of different sizes."""
    return evolve(all_to_all(group, root), op="all_to_all_v", uniform=never)


def _exchange(n: int) -> Transfers:
    src, apart = np.arange(n)[None, :], np.arange(1, n)[:, None]
    dst = src ^ apart if n & (n - 1) == 0 else (src + apart) % n
    return Transfers.single(apart - 1, src, dst, src * n + dst)
