"""The bisection of shapes that are recognised in a graph: a closed formula where no kind has stated one.

Both formulas hold for any bandwidths, so that they cover what is composed of different links.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from topology.graph import Topology


def recognised_bisection_bytes_per_s(topology: Topology) -> float | None:
    """Return the least bandwidth, per direction, between two halves of the chips; None for other shapes.

    >>> from configs.spec.topology import LinkSpec, RoutingSpec
    >>> from topology.kinds.torus import Torus
    >>> recognised_bisection_bytes_per_s(Torus(dims=(8, 4), link=LinkSpec(1e9, latency_ps=0)).build(RoutingSpec()))
    8000000000.0
    """
    return _of_a_grid(topology) if topology.n_switches == 0 else _of_two_tiers(topology)


def _of_a_grid(topology: Topology) -> float | None:
    """Return min over axes of n_chips / length * (2 if wrapped else 1) * bandwidth; every length is even.

    Each term is a cut. None is less: let all pairs of chips exchange one byte, axis by axis, the shorter way round
    (half and half where both are equal). The links in the middle of axis k carry n_chips * length / 8 bytes each way if
    it is wrapped, else twice that, and n_chips^2 / 4 bytes must pass every cut each way.
    """
    dims, wraps = np.array(topology.dims), np.array(topology.wraps)
    if topology.n_chips < 2 or (dims[dims > 1] % 2).any():
        return None
    ends = [np.stack(np.unravel_index(end[0::2], topology.dims)) for end in (topology.link_src, topology.link_dst)]
    apart = np.abs(ends[0] - ends[1])
    axis, step = apart.argmax(axis=0), apart.max(axis=0)
    if ((apart > 0).sum(axis=0) != 1).any() or not ((step == 1) | (wraps[axis] & (step == dims[axis] - 1))).all():
        return None
    cuts = []
    for k in np.flatnonzero(dims > 1):
        bandwidths = topology.link_bandwidth_bytes_per_s[0::2][axis == k]
        n_lines = topology.n_chips // int(dims[k])
        if len(bandwidths) != n_lines * (dims[k] - 1 + wraps[k]) or not (bandwidths == bandwidths[0]).all():
            return None
        cuts.append(n_lines * (1 + int(wraps[k])) * float(bandwidths[0]))
    return min(cuts)


def _of_two_tiers(topology: Topology) -> float | None:
    """Return groups / 2 * Σ over a group's switches of min(what its chips send it, what it sends up).

    The chips of a group are joined to the same switches, these in planes to further switches. With all sides of the
    switches chosen well, a plane is cut by a concave function of how many chips of each group are inside; so it is
    least with whole groups, of which half are inside, and then with all switches of the upper tier on one side.
    """
    n_chips, n_nodes = topology.n_chips, topology.n_nodes
    bandwidth = {
        (int(src), int(dst)): float(rate)
        for src, dst, rate in zip(
            topology.link_src, topology.link_dst, topology.link_bandwidth_bytes_per_s, strict=True
        )
    }
    chips_of = {
        switch: tuple(node for node in topology.neighbours(switch).tolist() if node < n_chips)
        for switch in range(n_chips, n_nodes)
    }
    groups = sorted({chips for chips in chips_of.values() if chips})
    upper = [switch for switch, chips in chips_of.items() if not chips]
    sizes = {len(group) for group in groups}
    disjoint = sum(len(group) for group in groups) == n_chips == len(set().union(*groups))
    if len(groups) % 2 or len(sizes) != 1 or not disjoint or not upper:
        return None
    if any(src < n_chips and dst < n_chips for src, dst in bandwidth):
        return None
    planes = _planes(topology, chips_of, upper)
    total = 0.0
    for lower, above in planes:
        downs = {bandwidth[switch, chip] for switch in lower for chip in chips_of[switch]}
        ups = {frozenset((q, bandwidth.get((switch, q))) for q in above) for switch in lower}
        if len(downs) != 1 or len(ups) != 1 or sorted(chips_of[switch] for switch in lower) != groups:
            return None
        up = [rate for _, rate in next(iter(ups))]
        if None in up:
            return None
        total += min(math.fsum(downs) * len(groups[0]), math.fsum(rate for rate in up if rate is not None))
    return len(groups) / 2 * total


def _planes(
    topology: Topology, chips_of: dict[int, tuple[int, ...]], upper: list[int]
) -> list[tuple[list[int], list[int]]]:
    """Return (switches below, switches above) of each plane: what hangs together without the chips."""
    planes: list[tuple[list[int], list[int]]] = []
    seen: set[int] = set()
    for first in upper:
        if first in seen:
            continue
        plane, queue = {first}, [first]
        while queue:
            for node in topology.neighbours(queue.pop()).tolist():
                if node >= topology.n_chips and node not in plane:
                    plane.add(node)
                    queue.append(node)
        seen |= plane
        planes.append(([s for s in sorted(plane) if chips_of[s]], [s for s in sorted(plane) if not chips_of[s]]))
    covered = {switch for lower, _ in planes for switch in lower}
    return planes if covered == {s for s, chips in chips_of.items() if chips} else []
