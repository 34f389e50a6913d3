"""Rings over nodes, one for every NIC of a node: each enters and leaves a node at other chips.

Ring c visits node after node, and in node k the chips from c - k on, round the end: it leaves node k at the chip
c - k - 1, where it enters node k + 1. So every chip of a node is entered by one ring, left by one, and sends to its
neighbour on all others. With r nodes of l chips, n = r l, buffer size S, latency α, bandwidth B of a chip inside its
node and N of a NIC, on an idle machine whose NICs all hang on one switch:

    all_gather, reduce_scatter   (n-1) (α + max(S/(n N l), S (l-1)/(n B l)))
    all_reduce                   twice that

Source: NVIDIA/nccl@5067397c:src/graph/connect.cc and search.cc (a ring per NIC, channels that enter and leave a node by
the same NIC).
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
    orders = [tuple(node[(c - k + i) % length] for k, node in enumerate(nodes) for i in range(length))
              for c in range(length)]  # fmt: skip
    return rings(op, NAME, len(group), [Ring(order) for order in orders])


all_gather, reduce_scatter, all_reduce = family(_schedule)


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
