"""Ring algorithms over a ring of neighbours (a Hamiltonian cycle) of the topology, where one is known.

The schedules are those of `collectives.algorithms.ring`, but every transfer crosses a single link. With n ranks,
part size m = S/n, link latency α and link bandwidth B per direction, idle:

    all_gather, reduce_scatter   (n-1) (α + m/B)
    all_reduce                   2 (n-1) (α + m/B)

Of several channels every second one goes the other way round.

Source: P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations",
JPDC 69 (2009).
"""

from __future__ import annotations

from collectives.algorithms.ring import Ring, rings
from collectives.compose import family
from collectives.group import GroupView
from collectives.schedule import Schedule
from configs.errors import ConfigError
from topology.rings import hamiltonian_cycle


def _schedule(op: str, group: GroupView, root: int = 0, *, channels: int = 1) -> Schedule:
    del root
    cycle = _cycle(group)
    ways = Ring(cycle, 1 if cycle == tuple(range(len(cycle))) else None), Ring((cycle[0], *cycle[:0:-1]))
    return rings(op, "ring_neighbours", len(group), [ways[c % 2] for c in range(channels)])


all_gather, reduce_scatter, all_reduce = family(_schedule)


def _cycle(group: GroupView) -> tuple[int, ...]:
    """Return the places of the group in the order of the cycle; raise ConfigError where none is known."""
    cycle = hamiltonian_cycle(group.topology, group.ranks)
    if cycle is None:
        where = f"these {len(group)} chips of a {group.topology.kind}"
        accepted = "algorithm ring, or a group that closes (e.g. a mesh with an even side)"
        raise ConfigError(
            (f"algorithm ring_neighbours: no ring of neighbours is known for {where}; accepted: {accepted}",)
        )
    return group.places(cycle)
