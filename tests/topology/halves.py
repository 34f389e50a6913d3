"""The bisection by trying all halves of the chips with all places of the switches: slow, and without an idea."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from topology import Topology


def bisection_of_all_halves(topology: Topology) -> float:
    """Return the bisection by trying all halves of the chips with all places of the switches."""
    halves = _all_halves(topology.n_chips)
    return min(_least_crossing(topology, halves, sides) for sides in _all_sides(topology.n_switches))


def _least_crossing(topology: Topology, halves: NDArray[np.bool_], switches: NDArray[np.bool_]) -> float:
    """Return the least bandwidth that leaves any of these halves, with the switches inside or outside."""
    inside = np.hstack([halves, np.broadcast_to(switches, (len(halves), len(switches)))])
    crossing = inside[:, topology.link_src] & ~inside[:, topology.link_dst]
    return float((crossing @ topology.link_bandwidth_bytes_per_s).min())


def _all_halves(n_chips: int) -> NDArray[np.bool_]:
    """Return one row per half: all sets of ⌊n / 2⌋ or ⌈n / 2⌉ chips."""
    sizes = {n_chips // 2, n_chips - n_chips // 2}
    members = [list(half) for size in sorted(sizes) for half in combinations(range(n_chips), size)]
    halves = np.zeros((len(members), n_chips), bool)
    for row, half in zip(halves, members, strict=True):
        row[half] = True
    return halves


def _all_sides(n_switches: int) -> Iterator[NDArray[np.bool_]]:
    """Yield every way to put the switches inside (True) or outside."""
    for bits in range(2**n_switches):
        yield np.array([bits >> s & 1 for s in range(n_switches)], bool)
