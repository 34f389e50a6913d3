"""The rows of the common suite: every algorithm of the table, on topologies that it fits."""

from __future__ import annotations

from functools import partial

import numpy as np

from collectives import ALGORITHMS, OPERATIONS, Detail, GroupView, Schedule
from configs.errors import ConfigError
from configs.spec.topology import LinkSpec, RoutingSpec
from topology import Compose, Mesh, Ring, Switch, Torus

LINK = LinkSpec(1e9, latency_ps=1000)
ROWS = [(op, name) for op, algorithms in ALGORITHMS.items() for name in algorithms]


def grid_dims(n: int) -> tuple[int, ...]:
    """Return the sides of a grid of n chips: near a square, or 2 x 2 x n/4 where that is longer on one side only."""
    if n % 8 == 0 and n > 8:
        return 2, 2, n // 4
    return short_side(n), n // short_side(n)


def nodes(n: int, length: int, link: LinkSpec) -> Compose:
    """Return n chips on nodes of `length`, each behind two planes that add, on a network of one switch."""
    inside = Switch(chips=length, link=link, planes=(1, 1), in_network=True)
    return Compose(node=inside, count=n // length, network=Switch(chips=n, link=link))


def short_side(n: int) -> int:
    """Return the shorter side of a grid of n chips that is near a square."""
    return max(d for d in range(1, int(n**0.5) + 1) if n % d == 0)


TOPOLOGIES = {
    "ring": lambda n: Ring(dims=(n,), link=LINK),
    "switch": lambda n: Switch(chips=n, link=LINK),
    "nvswitch": lambda n: Switch(chips=n, link=LINK, planes=(2, 1), in_network=True),
    "torus": lambda n: Torus(dims=grid_dims(n)[::-1], link=LINK),
    "grid": lambda n: Mesh(dims=grid_dims(n), link=LINK),
    "nodes": lambda n: nodes(n, short_side(n), LINK),
}
"""Topologies of n chips."""


def all_of(kind: str, n: int) -> GroupView:
    """All chips of a topology."""
    return GroupView(TOPOLOGIES[kind](n).build(RoutingSpec()), tuple(range(n)))


def ring_of(n: int) -> GroupView:
    """All chips of a ring."""
    return all_of("ring", n)


def switch_of(n: int) -> GroupView:
    """All chips behind a switch."""
    return all_of("switch", n)


def mesh_rows_of(n: int) -> GroupView:
    """The last n chips of a mesh that is two wide, in reverse order."""
    rows = (n + 1) // 2 + 1
    mesh = Mesh(dims=(rows, 2), link=LINK).build(RoutingSpec())
    return GroupView(mesh, tuple(range(mesh.n_chips - 1, mesh.n_chips - 1 - n, -1)))


def block_of(n: int) -> GroupView:
    """A block of n chips inside a torus that is larger on every side, in an order of its own."""
    dims = grid_dims(n)
    torus = Torus(dims=tuple(d + 2 for d in dims), link=LINK).build(RoutingSpec())
    cells = np.stack(np.unravel_index(np.random.default_rng(n).permutation(n), dims)) + 1
    return GroupView(torus, tuple(np.ravel_multi_index(tuple(cells), torus.dims).tolist()))


VIEWS = {**{kind: partial(all_of, kind) for kind in TOPOLOGIES}, "mesh": mesh_rows_of, "block": block_of}


def fitting(op: str, name: str, n: int) -> tuple[str, int]:
    """Return a kind of TOPOLOGIES that the algorithm fits, and the least number of chips from n on with which it does.

    Behind a switch where that fits.
    """
    for count in range(n, 2 * n + 3):
        for kind in ("switch", "ring", "nvswitch", "grid", "torus", "nodes"):
            if schedule_of(op, name, all_of(kind, count)) is not None:
                return kind, count
    raise AssertionError(f"{op} {name} fits no group of about {n} chips")


def group_of(op: str, name: str, n: int) -> GroupView:
    """Return a group of about n chips that the algorithm fits."""
    return all_of(*fitting(op, name, n))


def fitting_schedule(op: str, name: str, n: int, root: int = 0) -> Schedule:
    """Return the schedule for a group of about n chips that the algorithm fits."""
    group = group_of(op, name, n)
    return ALGORITHMS[op][name](group, detail_of(op, len(group), root))


def detail_of(op: str, n: int, root: int = 0) -> Detail:
    """Return the root, or some pairs or rows where the operation has those."""
    kind = OPERATIONS[op].detail
    if kind == "pairs":
        return tuple((i, (i + 1 + root) % n) for i in range(max(1, n - 1)))
    if kind == "rows":
        return tuple(tuple((3 * i + 2 * j + root) % 4 for j in range(n)) for i in range(n))
    return root


def schedule_of(op: str, name: str, group: GroupView, root: int = 0):
    """Return the schedule, or None where the algorithm says that it does not fit the group."""
    try:
        return ALGORITHMS[op][name](group, detail_of(op, len(group), root))
    except ConfigError as error:
        if name not in str(error):
            raise
        return None
