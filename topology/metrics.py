"""Figures of a topology: degree, ports, diameter, bisection.

A kind with a closed formula states it when it builds; the rest is searched here.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from topology.graph import Topology

SEARCH_BLOCK_CHIPS = 512  # chips searched from at a time, a multiple of 64: 64 bytes per link
EXACT_BISECTION_CHIPS = 16  # 12,870 ways to halve them
EXACT_BISECTION_SWITCHES = 6  # and 64 ways to place the switches


def degree(topology: Topology) -> int:
    """Return the most edges that any chip has (parallel links once)."""
    return int(np.bincount(topology.link_src, minlength=topology.n_nodes)[: topology.n_chips].max())


def ports(topology: Topology) -> int:
    """Return the most physical links that any chip has (parallel links each)."""
    lanes = np.bincount(topology.link_src, topology.link_count, minlength=topology.n_nodes)
    return int(lanes[: topology.n_chips].max())


def islands(topology: Topology) -> list[NDArray[np.int64]]:
    """Return the sets of chips that can reach each other; one, unless some are cut off."""
    of_chip = topology.island_of_node[: topology.n_chips]
    return [np.flatnonzero(of_chip == island) for island in np.unique(of_chip)]


def n_cut_off_pairs(topology: Topology) -> int:
    """Return how many pairs of chips (unordered) have no path between them."""
    sizes = [len(island) for island in islands(topology)]
    return (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2


def diameter_hops(topology: Topology) -> int | None:
    """Return the links on the longest shortest path between two chips; None if some cannot be reached."""
    if topology.known_diameter_hops is not None:
        return topology.known_diameter_hops
    return searched_diameter_hops(topology)


def searched_diameter_hops(topology: Topology) -> int | None:
    """Return the diameter by breadth-first search from every chip, many chips at a time."""
    diameter = 0
    for first in range(0, topology.n_chips, SEARCH_BLOCK_CHIPS):
        sources = np.arange(first, min(first + SEARCH_BLOCK_CHIPS, topology.n_chips))
        hops = _hops_to_all_chips(topology, sources)
        if hops is None:
            return None
        diameter = max(diameter, hops)
    return diameter


def _hops_to_all_chips(topology: Topology, sources: NDArray[np.int64]) -> int | None:
    """Return after how many hops every chip has been reached from every source.

    Each node holds one bit per source that reaches it; a hop joins the bits of its neighbours to its own.
    """
    nodes = np.arange(topology.n_nodes)
    into, out_of = np.concatenate([topology.link_dst, nodes]), np.concatenate([topology.link_src, nodes])
    order = np.argsort(into, kind="stable")
    out_of, starts = out_of[order], np.searchsorted(into[order], nodes)
    bits = np.zeros((topology.n_nodes, SEARCH_BLOCK_CHIPS), bool)
    bits[sources, sources - sources[0]] = True
    reached = np.packbits(bits, axis=1).view(np.uint64)
    everyone = np.bitwise_or.reduce(reached)
    hops = 0
    while not (reached[: topology.n_chips] == everyone).all():
        further = np.bitwise_or.reduceat(reached[out_of], starts, axis=0)
        if np.array_equal(further, reached):
            return None
        reached, hops = further, hops + 1
    return hops


def bisection_bytes_per_s(topology: Topology) -> float | None:
    """Return the least bandwidth, per direction, with which one half of the chips can send to the other.

    Halves are equal, or one chip apart if the number of chips is odd. Switches stand on whichever side
    makes the cut smaller. Figures that count both directions (as for NVLink systems) are twice this one.
    Without a closed formula it is exact up to 16 chips and 6 switches, and None beyond.
    """
    if topology.known_bisection_bytes_per_s is not None:
        return topology.known_bisection_bytes_per_s
    if topology.n_chips > EXACT_BISECTION_CHIPS or topology.n_switches > EXACT_BISECTION_SWITCHES:
        return None
    return searched_bisection_bytes_per_s(topology)


def searched_bisection_bytes_per_s(topology: Topology) -> float:
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
