"""Two rings at once: half of every part goes round each way, so that both directions of every link work.

With n ranks, part size m = S/n, hop latency α and link bandwidth B per direction, on an idle ring of n > 2 neighbours:

    all_gather, reduce_scatter   (n-1) (α + m/(2B))
    all_reduce                   2 (n-1) (α + m/(2B))

The ring is one of neighbours where one is known, otherwise the group's order.
Source: E. Chan, M. Heimlich, A. Purkayastha, R. van de Geijn, "Collective communication: theory, practice, and
experience", Concurrency and Computation 19 (2007), section 4 (bucket algorithms), both ways round.
"""

from __future__ import annotations

import numpy as np

from collectives.compose import cyclic, family, from_gather, never
from collectives.group import GroupView
from collectives.schedule import Schedule, Transfers
from topology.rings import hamiltonian_cycle


def _schedule(op: str, group: GroupView, root: int = 0) -> Schedule:
    """Return the all-gather in which half of every part goes each way round, or what it makes."""
    del root
    n, cycle = len(group), hamiltonian_cycle(group.topology, group.ranks)
    order = group.places(cycle or group.ranks)
    both_ways = cyclic(n, lambda: [(s, way % n, 1, int(way < 0)) for s in range(n - 1) for way in (1, -1)])
    in_order = order == tuple(range(n)) == group.ranks
    return from_gather(op, "ring_bidirectional", n, 2 * n, lambda: _gather(order), both_ways if in_order else never)


all_gather, reduce_scatter, all_reduce = family(_schedule)


def _gather(order: tuple[int, ...]) -> Transfers:
    """In step s, place i sends half of part i-s up, and the other half of part i+s down."""
    n = len(order)
    rank, way = np.array(order), np.array([1, -1])[:, None]
    step, place = np.arange(n - 1)[:, None, None], np.arange(n)
    part = rank[(place - way * step) % n]
    return Transfers.single(step, rank[place], rank[(place + way) % n], 2 * part + (way < 0))
