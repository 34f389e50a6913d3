"""Dissemination barrier: in step s every rank tells the rank 2^s before it that it, and all it has heard of, are there.

With n ranks and latency α of a route, on an idle switch: ⌈log2 n⌉ α. Messages have no size.

Source: D. Hensgen, R. Finkel, U. Manber, "Two algorithms for barrier synchronization", IJPP 17 (1988).
"""

from __future__ import annotations

from attrs import evolve

from collectives.algorithms import bruck
from collectives.group import GroupView
from collectives.schedule import Schedule


def barrier(group: GroupView, root: int = 0) -> Schedule:
    """Return the steps of Bruck's all-gather, which are those of the barrier."""
    return evolve(bruck.all_gather(group, root), op="barrier", algorithm="dissemination")
