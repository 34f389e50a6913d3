"""Rings over nodes, one for every NIC of a node: each enters and leaves a node at other chips.

Ring c visits node after node, and in each the chips in zigzag: c, c + 1, c - 1, c + 2, c - 2… round the end. It enters
the next node where it left this one (c + l/2 if l is even). So every chip of a node is entered by one ring and left by
one, and where all chips are joined in pairs, the rings use each of these links once in each direction. With r nodes of
l chips, n = r l, buffer size S, latency α, bandwidth B of a chip inside its node and N of a NIC, on an idle machine
whose NICs all hang on one switch:

    all_gather, reduce_scatter   (n-1) (α + max(S/(n N l), S (l-1)/(n B l)))
    all_reduce                   twice that

Source: NVIDIA/nccl@5067397c:src/graph/connect.cc and search.cc (a ring per NIC, channels that enter and leave a node by
the same NIC); the zigzag is a row-complete Latin square: E. J. Williams, "Experimental designs balanced for the
estimation of residual effects of treatments", Australian Journal of Scientific Research A 2 (1949).
"""

from __future__ import annotations

from collectives.algorithms.ring import Ring, rings
from collectives.compose import family
from collectives.group import GroupView, misfit
from collectives.schedule import Schedule

NAME = "rail_ring"


def _schedule(op: str, group: GroupView, root: int = 0) -> Schedule:
    """Return the schedule on as many rings as a node has chips in the group."""
    del root
    nodes = nodes_of(NAME, group)
    length = len(nodes[0])
    zigzag = zigzag_of(length)
    orders = [
        tuple(node[(c + k * zigzag[-1] + place) % length] for k, node in enumerate(nodes) for place in zigzag)
        for c in range(length)
    ]
    return rings(op, NAME, len(group), [Ring(order) for order in orders])


all_gather, reduce_scatter, all_reduce = family(_schedule)


def zigzag_of(length: int) -> list[int]:
    """Return 0, 1, -1, 2, -2… modulo the length: each place once, and for an even length each difference once.

    >>> zigzag_of(6)
    [0, 1, 5, 2, 4, 3]
    """
    return [(place + 1) // 2 * (1 if place % 2 else -1) % length for place in range(length)]


def nodes_of(algorithm: str, group: GroupView) -> list[list[int]]:
    """Return the places of the group node by node; raise ConfigError if they are not several alike."""
    domains = group.topology.domain_of_chip
    accepted = "chips of several nodes of a composed system with a network, as many of each"
    if len(group) == 1:
        return [[0]]
    if domains is None:
        raise misfit(algorithm, group, "are not on several nodes", accepted)
    nodes: dict[int, list[int]] = {}
    for place, rank in enumerate(group.ranks):
        nodes.setdefault(int(domains[rank]), []).append(place)
    if len(nodes) == 1:
        raise misfit(algorithm, group, "are not on several nodes", accepted)
    if len({len(node) for node in nodes.values()}) > 1:
        raise misfit(algorithm, group, "are not as many on each node", accepted)
    return list(nodes.values())
