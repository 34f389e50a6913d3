"""Ring algorithms over a ring of neighbours (a Hamiltonian cycle) of the topology, where one is known.

The schedules and times are those of `collectives.algorithms.ring`; every transfer crosses a single link.
"""

from __future__ import annotations

from collectives.algorithms.ring import ring
from collectives.group import GroupView
from collectives.schedule import Schedule
from configs.errors import ConfigError
from topology.rings import hamiltonian_cycle


def all_gather(group: GroupView, root: int = 0) -> Schedule:
    """Return the ring all-gather over neighbours."""
    del root
    return ring("all_gather", "ring_neighbours", _cycle(group))


def reduce_scatter(group: GroupView, root: int = 0) -> Schedule:
    """Return the ring reduce-scatter over neighbours."""
    del root
    return ring("reduce_scatter", "ring_neighbours", _cycle(group))


def all_reduce(group: GroupView, root: int = 0) -> Schedule:
    """Return the ring all-reduce over neighbours."""
    del root
    return ring("all_reduce", "ring_neighbours", _cycle(group))


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
