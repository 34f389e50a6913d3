"""Direct algorithms: every rank sends to every other one at once, in a single step.

With n ranks, part size m, latency α of a route and bandwidth B of a rank, on an idle switch:

    all_gather, reduce_scatter, all_to_all   α + (n-1) m/B
    gather, scatter                          α + (n-1) m/B
    all_to_all_v                             α + Σ m_s/B, with parts m_s from every rank to the one s further on
    permute                                  α + m/B

Source: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations in MPICH",
IJHPCA 19 (2005), section 3.3 (the "isend-irecv" all-to-all).
"""

from __future__ import annotations

import math

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from collectives.compose import from_gather, never
from collectives.group import GroupView
from collectives.operations import Table
from collectives.schedule import Schedule, Transfers, Uniform


def all_gather(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-gather in which every rank sends its part to all others."""
    del root
    n = len(group)
    return from_gather("all_gather", "direct", n, n, lambda: parts_to_all(n), to_all)


def reduce_scatter(group: GroupView, root: int = 0) -> Schedule:
    """Return the reduce-scatter in which every rank sends every part to the part's owner, which adds them up."""
    del root
    n = len(group)
    return from_gather("reduce_scatter", "direct", n, n, lambda: parts_to_all(n), to_all)


def all_to_all(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-to-all in which every rank sends every other one its part; chunk i·n+j goes from i to j."""
    del root
    n = len(group)
    return Schedule("all_to_all", "direct", n, n * n, lambda: _exchange(n), to_all)


def all_to_all_v(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-to-all for parts of different sizes."""
    return evolve(all_to_all(group, root), op="all_to_all_v", uniform=never)


def scatter(group: GroupView, root: int = 0) -> Schedule:
    """Return the scatter in which the root sends every part at once."""
    return Schedule("scatter", "direct", len(group), len(group), _from_root(len(group), root))


def gather(group: GroupView, root: int = 0) -> Schedule:
    """Return the gather in which all parts are sent to the root at once."""
    parts = _from_root(len(group), root).reversed(reduce=False)
    return Schedule("gather", "direct", len(group), len(group), parts)


def permute(group: GroupView, pairs: Table) -> Schedule:
    """Return the permute: every source sends to its destination; a pair of one rank needs no message."""
    moves = np.array([(src, dst) for src, dst in pairs if src != dst], np.int64).reshape(-1, 2)
    src, dst = moves[:, 0], moves[:, 1]
    return Schedule("permute", "direct", len(group), len(group), Transfers.single(0, src, dst, src))


def parts_to_all(n: int) -> Transfers:
    """Return the all-gather of n chunks among n ranks."""
    src, dst = all_pairs(n)
    return Transfers.single(0, src, dst, src)


def to_all(dims: tuple[int, ...]) -> Uniform:
    """Say that every rank sends one chunk to every other one, in one step, on any grid."""
    offset = np.arange(1, math.prod(dims))
    return Uniform(dims, np.zeros_like(offset), offset, np.ones_like(offset), piece=np.zeros_like(offset))


def all_pairs(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (source, destination) of all ordered pairs of different ranks."""
    src, dst = np.divmod(np.arange(n * n), n)
    return src[src != dst], dst[src != dst]


def _from_root(n: int, root: int) -> Transfers:
    others = np.delete(np.arange(n), root)
    return Transfers.single(0, root, others, others)


def _exchange(n: int) -> Transfers:
    src, dst = all_pairs(n)
    return Transfers.single(0, src, dst, src * n + dst)
