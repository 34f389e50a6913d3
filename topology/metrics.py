"""Figures of a topology: degree, ports, diameter, bisection.

A kind with a closed formula states it when it builds; the rest is searched here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topology.bisection import searched_bisection_bytes_per_s
from topology.recognised import recognised_bisection_bytes_per_s

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topology.graph import Topology

SEARCH_BLOCK_CHIPS = 512  # chips searched from at a time, a multiple of 64: 64 bytes per link


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
    Without a closed formula (of the kind, or `topology.recognised`) it is searched for (`topology.bisection`); None
    where the topology is too wide for that.
    """
    if topology.known_bisection_bytes_per_s is not None:
        return topology.known_bisection_bytes_per_s
    recognised = recognised_bisection_bytes_per_s(topology)
    return searched_bisection_bytes_per_s(topology) if recognised is None else recognised
