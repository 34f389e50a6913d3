"""The rows of the common suite: every algorithm of the table, on topologies that it fits."""

from __future__ import annotations

from collectives import ALGORITHMS, GroupView
from configs.errors import ConfigError
from configs.spec import LinkSpec, RoutingSpec
from topology import Mesh, Ring, Switch

LINK = LinkSpec(1e9, latency_ps=1000)
ROWS = [(op, name) for op, algorithms in ALGORITHMS.items() for name in algorithms]


def ring_of(n: int) -> GroupView:
    """All chips of a ring."""
    return GroupView(Ring(dims=(n,), link=LINK).build(RoutingSpec()), tuple(range(n)))


def switch_of(n: int) -> GroupView:
    """All chips behind a switch."""
    return GroupView(Switch(chips=n, link=LINK).build(RoutingSpec()), tuple(range(n)))


def mesh_rows_of(n: int) -> GroupView:
    """The last n chips of a mesh that is two wide, in reverse order."""
    rows = (n + 1) // 2 + 1
    mesh = Mesh(dims=(rows, 2), link=LINK).build(RoutingSpec())
    return GroupView(mesh, tuple(range(mesh.n_chips - 1, mesh.n_chips - 1 - n, -1)))


VIEWS = {"ring": ring_of, "switch": switch_of, "mesh": mesh_rows_of}


def schedule_of(op: str, name: str, group: GroupView, root: int = 0):
    """Return the schedule, or None where the algorithm says that it does not fit the group."""
    try:
        return ALGORITHMS[op][name](group, root)
    except ConfigError as error:
        if name not in str(error):
            raise
        return None
