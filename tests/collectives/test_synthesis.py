"""Synthesised schedules: as short as the links allow, and faster than a ring re-routed around a dead link."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.records import Collective, Trace
from cluster.timeline import time_run
from collectives import ALGORITHMS, GroupView, Schedule, check
from collectives.algorithms.ring import Ring, rings
from collectives.synthesis import least_steps, network, synthesise
from configs.errors import ConfigError
from configs.spec.faults import FaultsSpec
from configs.spec.topology import LinkSpec, RoutingSpec
from tests.cluster.machines import CHIP, SystemSpec
from tests.collectives.rows import LINK, ring_of, switch_of
from topology import Mesh, Switch, Topology, Torus, hamiltonian_cycle, with_faults
from topology.edges import Edges
from topology.routing import ShortestPathRouter

OPS = ("all_gather", "reduce_scatter", "all_reduce")


def graph(edges: Edges, n_chips: int, **more) -> Topology:
    """Return a graph with shortest paths."""
    return Topology.from_edges("graph", edges, n_chips=n_chips, router=ShortestPathRouter(), **more)


def edges(*pairs: tuple[int, int], link=LINK) -> Edges:
    """Return equal edges between these nodes."""
    src, dst = np.array(pairs, np.int32).T
    return Edges.uniform(link, src, dst)


def mesh_without(*dead: tuple[int, int], side: int = 4) -> Topology:
    """Return a square mesh in which these links are dead."""
    return with_faults(Mesh(dims=(side, side), link=LINK).build(RoutingSpec()), FaultsSpec(links=dead))


def all_of(topology: Topology) -> GroupView:
    """All chips of a topology."""
    return GroupView(topology, tuple(range(topology.n_chips)))


def time_ps(topology: Topology, schedule: Schedule, n_bytes: int) -> int:
    """Return how long a schedule takes on an idle topology."""
    n = schedule.n_ranks
    shape = (n_bytes // 4 // (n if schedule.op == "all_gather" else 1),)
    call = Collective(schedule.op, "x", "all", tuple(range(n)), 0, shape, np.dtype(np.float32))
    system = SystemSpec("graph", CHIP, None)
    return time_run(system, topology, "fluid", [call], [Trace(r, np.zeros(1, np.int32)) for r in range(n)],
                    {"x": schedule}).total_ps  # fmt: skip


@pytest.mark.parametrize(
    ("topology", "n_steps"),
    [
        (Mesh(dims=(4, 4), link=LINK), 8),  # a corner takes 15 parts over 2 links
        (Mesh(dims=(3, 3), link=LINK), 4),
        (Torus(dims=(4, 4), link=LINK), 4),
        (Torus(dims=(4, 4, 4), link=LINK), 11),
        (Switch(chips=16, link=LINK), 15),
    ],
)
def test_as_short_as_the_links_allow(topology, n_steps):
    """In as many steps as a chip's links need to take the parts of all others."""
    group = all_of(topology.build(RoutingSpec()))
    for op, times in zip(OPS, (1, 1, 2), strict=True):
        schedule = ALGORITHMS[op]["synthesised"](group, 0)
        check(schedule)
        assert schedule.n_steps == times * n_steps


def ring(op, order):
    """Return a ring in an order that is none of the topology's."""
    return rings(op, "ring", len(order), [Ring(order)])


@pytest.mark.parametrize("dead", [(1, 2), (5, 6), (5, 9), (13, 14)])
@pytest.mark.parametrize("op", OPS)
def test_beats_the_ring_that_is_routed_around_a_dead_link(op, dead):
    """On a 4 x 4 mesh with a dead link of the ring, for a small and a large buffer, by 8 steps to 15.

    The ring is that of the whole mesh's neighbours, and goes round the dead link by the shortest path.
    """
    topology, whole = mesh_without(dead), Mesh(dims=(4, 4), link=LINK).build(RoutingSpec())
    cycle = hamiltonian_cycle(whole, range(16))
    assert set(dead) in [{a, b} for a, b in zip(cycle, cycle[1:] + cycle[:1], strict=True)]
    around = [ring(op, cycle), ring(op, tuple(range(16)))]
    made = ALGORITHMS[op]["synthesised"](all_of(topology), 0)
    check(made)
    for n_bytes in (16 * 1024, 16 * 2**20):
        ours, theirs = time_ps(topology, made, n_bytes), min(time_ps(topology, r, n_bytes) for r in around)
        assert ours < 0.54 * theirs


def test_a_chip_with_one_link_left_is_the_bound():
    """A corner of the mesh that has lost a link takes 15 parts over one: no schedule can beat the ring there."""
    topology = mesh_without((0, 1))
    assert least_steps(network(all_of(topology))) == 15
    made = ALGORITHMS["all_gather"]["synthesised"](all_of(topology), 0)
    assert made.n_steps == 15
    cycle = hamiltonian_cycle(Mesh(dims=(4, 4), link=LINK).build(RoutingSpec()), range(16))
    assert time_ps(topology, made, 2**24) < time_ps(topology, ring("all_gather", cycle), 2**24)


def test_the_figures_of_the_docs():
    """16 MiB all-reduce on a 4 x 4 mesh of 1 GB/s links, one in the middle dead."""
    topology = mesh_without((5, 6))
    cycle = hamiltonian_cycle(Mesh(dims=(4, 4), link=LINK).build(RoutingSpec()), range(16))
    made = ALGORITHMS["all_reduce"]["synthesised"](all_of(topology), 0)
    assert time_ps(topology, ring("all_reduce", tuple(range(16))), 2**24) / 1e9 == pytest.approx(62.91, abs=0.01)
    assert time_ps(topology, ring("all_reduce", cycle), 2**24) / 1e9 == pytest.approx(31.46, abs=0.01)
    assert time_ps(topology, made, 2**24) / 1e9 == pytest.approx(16.78, abs=0.01)


@pytest.mark.timeout(120)
def test_sixty_four_chips():
    """An 8 x 8 torus without two links, from scratch."""
    whole = Torus(dims=(8, 8), link=LINK).build(RoutingSpec())
    group = all_of(with_faults(whole, FaultsSpec(links=((0, 8), (1, 9)))))
    schedule = ALGORITHMS["all_reduce"]["synthesised"](group, 0)
    assert len(schedule.transfers) == 2 * 63 * 64
    check(schedule)
    assert schedule.n_steps <= 2 * 34, "a chip with two links left takes 63 parts in 32 steps"


@pytest.mark.parametrize("seed", range(12))
def test_any_connected_graph(seed):
    """Random trees with a few more edges, chips and switches mixed."""
    rng = np.random.default_rng(seed)
    n, n_chips = 12, 9
    order = rng.permutation(n)
    tree = {tuple(sorted((int(order[i]), int(order[rng.integers(0, i)])))) for i in range(1, n)}
    more = {tuple(sorted(rng.choice(n, 2, replace=False).tolist())) for _ in range(seed % 5)}
    topology = graph(edges(*sorted(tree | more)), n_chips, n_switches=n - n_chips)
    for op in OPS:
        check(ALGORITHMS[op]["synthesised"](all_of(topology), 0))


def test_a_switch_carries_what_its_links_carry():
    """Behind a switch every chip sends and takes one part a step."""
    for t in (made := ALGORITHMS["all_gather"]["synthesised"](switch_of(8), 0)).transfers:
        assert len(t.chunks) == 1
    for step in range(made.n_steps):
        now = [t for t in made.transfers if t.step == step]
        assert len({t.src for t in now}) == len({t.dst for t in now}) == len(now) == 8


def test_a_fast_link_carries_more():
    """A line 0-1-2 whose first link is three times as fast: 1's and 2's parts cross it together."""
    fast, slow = (edges(pair, link=LinkSpec(b, latency_ps=0)) for pair, b in (((0, 1), 3e9), ((1, 2), 1e9)))
    both = Edges(*(np.concatenate([getattr(fast, f), getattr(slow, f)]) for f in Edges.__slots__ if f[0] != "_"))
    net = network(all_of(graph(both, 3)))
    assert sorted(room for _, room in net.room) == [1, 1, 3, 3]
    assert synthesise(net).n_steps == 2


def test_the_same_each_time():
    """Trials are drawn from fixed seeds; more of them are never longer."""
    net = network(all_of(mesh_without((5, 6))))
    first = tuple(synthesise.__wrapped__(net))
    assert tuple(synthesise.__wrapped__(net)) == first
    assert synthesise(net, 1).n_steps >= synthesise(net, 16).n_steps


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (lambda: GroupView(ring_of(8).topology, (0, 2, 4)), "synthesised: these 3 chips of a ring are not connected"),
        (lambda: GroupView(mesh_without(), (0, 1, 14, 15)), "these 4 chips of a mesh are not connected by links"),
        (lambda: switch_of(600), "these 600 chips of a switch are too many"),
        (lambda: switch_of(300), "these 300 chips of a switch have 89700 neighbours"),
    ],
)
def test_what_does_not_fit_is_refused(group, message):
    """Chips that are not neighbours, or too many of them."""
    with pytest.raises(ConfigError, match=message):
        ALGORITHMS["all_reduce"]["synthesised"](group(), 0)
