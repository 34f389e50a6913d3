"""Timing one chip of a machine on which all do the same gives what timing all chips gives, to the picosecond."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.prediction import predict_ps, predict_together_ps
from cluster.records import Collective, Trace
from cluster.timeline import time_run
from cluster.timeline.uniform import link_classes, time_uniform_ps
from collectives import ALGORITHMS, GroupView
from configs.spec.communication import CommunicationSpec
from configs.spec.system import SystemSpec
from configs.spec.topology import LinkSpec, RoutingSpec, TopologySpec
from tests.cluster.machines import CHIP
from tests.collectives.rows import schedule_of
from topology import FullyConnected, Mesh, Ring, Switch, Torus

LINK = LinkSpec(12.5e9, 1_000_000)
TOPOLOGIES: dict[str, TopologySpec] = {
    "torus 4x4": Torus((4, 4), LINK),
    "torus 4x2x3": Torus((4, 2, 3), LINK),
    "torus 4x4x4": Torus((4, 4, 4), LINK),
    "twisted torus 3x6": Torus((3, 6), LINK, twist=True),
    "ring 8": Ring((8,), LINK),
    "ring 5": Ring((5,), LINK),
    "switch 8": Switch(8, LINK, planes=(5, 4, 4, 5)),
    "complete 6": FullyConnected(6, LINK),
}
EVEN = 2**8 * 3 * 5  # elements per chip that divide by all pieces in use
OVERHEADS = CommunicationSpec(launch_ps=7_000, step_ps=300, link_efficiency=0.9)


def _system(topology: TopologySpec) -> SystemSpec:
    return SystemSpec("test", CHIP, topology, RoutingSpec(), OVERHEADS)


def _call(op: str, algorithm: str, n: int, n_elements: int) -> Collective:
    return Collective(op, algorithm, "all", tuple(range(n)), 0, (n_elements,), np.dtype(np.float32))


UNIFORM = [
    (name, op, algorithm)
    for name in TOPOLOGIES
    for op, algorithm in (
        ("all_gather", "ring"),
        ("all_gather", "direct"),
        ("all_reduce", "ring"),
        ("all_reduce", "torus"),
        ("all_reduce", "ring_bidirectional"),
        ("all_reduce", "one_shot"),
        ("all_reduce", "two_shot"),
        ("reduce_scatter", "ring"),
        ("all_to_all", "direct"),
        ("all_to_all", "pairwise"),
    )
]


@pytest.mark.parametrize(("name", "op", "algorithm"), UNIFORM)
@pytest.mark.parametrize("contention", ["fluid", "none"])
@pytest.mark.parametrize("elements", [EVEN, EVEN + 5], ids=["even pieces", "uneven pieces"])
def test_one_chip_stands_for_all(name: str, op: str, algorithm: str, contention: str, elements: int) -> None:
    """Where the short way applies it gives the time of the whole; where it does not, the prediction is the whole."""
    system = _system(TOPOLOGIES[name])
    topology = system.topology.build(system.routing)
    n = topology.n_chips
    if algorithm == "torus" and topology.kind not in {"torus", "ring"}:
        return
    call = _call(op, algorithm, n, elements * n)
    schedule = ALGORITHMS[op][algorithm](GroupView(topology, call.ranks), 0)
    traces = [Trace(rank, np.zeros(1, np.int32)) for rank in range(n)]
    whole_ps = time_run(system, topology, contention, [call], traces).total_ps
    short_ps = time_uniform_ps(system, topology, contention, call, schedule)
    assert short_ps in {None, whole_ps}
    assert predict_ps(system, topology, call, contention) == whole_ps


def test_the_short_way_is_taken() -> None:
    """It applies where it is meant to: direct on every kind, rings on one axis."""
    for name, op, algorithm in (
        ("torus 4x4x4", "all_to_all", "direct"),
        ("switch 8", "all_gather", "direct"),
        ("ring 8", "all_reduce", "ring"),
        ("torus 4x4", "all_reduce", "torus"),
        ("switch 8", "all_reduce", "one_shot"),
    ):
        system = _system(TOPOLOGIES[name])
        topology = system.topology.build(system.routing)
        n = topology.n_chips
        schedule = ALGORITHMS[op][algorithm](GroupView(topology, tuple(range(n))), 0)
        call = _call(op, algorithm, n, (EVEN + 5) * n)
        assert time_uniform_ps(system, topology, "fluid", call, schedule) is not None, (name, op, algorithm)


@pytest.mark.parametrize("name", ["ring 5", "switch 8", "complete 6", "torus 4x2x3", "twisted torus 3x6"])
def test_a_group_in_another_order(name: str) -> None:
    """Every algorithm that fits takes the time of the whole, in whatever order the chips are ranked."""
    system = _system(TOPOLOGIES[name])
    topology = system.topology.build(system.routing)
    n = topology.n_chips
    for seed, op in enumerate(("all_gather", "reduce_scatter", "all_reduce", "all_to_all")):
        ranks = tuple(np.random.default_rng(seed).permutation(n).tolist())
        for algorithm in ALGORITHMS[op]:
            call = _call(op, algorithm, n, EVEN * n)._replace(ranks=ranks)
            if schedule_of(op, algorithm, GroupView(topology, ranks)) is not None:
                whole_ps = predict_together_ps(system, topology, [call])
                assert predict_ps(system, topology, call) == whole_ps, (op, algorithm)


def test_it_is_refused_where_chips_differ() -> None:
    """Not on a mesh, not with ties that depend on the place, not with uneven parts, not for part of the chips."""
    mesh = Mesh((4, 4), LINK).build(RoutingSpec())
    alternate = Torus((4, 4), LINK).build(RoutingSpec(ties="alternate"))
    assert link_classes(mesh) is None
    assert link_classes(alternate) is None
    system = _system(Ring((8,), LINK))
    topology = system.topology.build(system.routing)
    schedule = ALGORITHMS["all_reduce"]["ring"](GroupView(topology, tuple(range(8))), 0)
    assert time_uniform_ps(system, topology, "fluid", _call("all_reduce", "ring", 8, 81), schedule) is None
    assert time_uniform_ps(system, topology, "fluid", _call("all_reduce", "ring", 4, 80), schedule) is None


def test_gain_of_a_twisted_torus() -> None:
    """An all-to-all on 4x4x8 takes 128/75 of the time if plain, as its heaviest link says; timed by one chip."""
    call, systems = _call("all_to_all", "direct", 128, 128 * EVEN), {}
    for name, torus, ties in (("plain", False, "alternate"), ("twisted", True, "positive")):
        spec = Torus((4, 4, 8), LinkSpec(45e9, 0), twist=torus)
        systems[name] = SystemSpec("test", CHIP, spec, RoutingSpec(ties=ties))
    plain_ps, twisted_ps = (
        predict_ps(system, system.topology.build(system.routing), call) for system in systems.values()
    )
    assert plain_ps / twisted_ps == pytest.approx(128 / 75, rel=1e-3)
    twisted = systems["twisted"]
    topology = twisted.topology.build(twisted.routing)
    schedule = ALGORITHMS["all_to_all"]["direct"](GroupView(topology, call.ranks), 0)
    assert time_uniform_ps(twisted, topology, "fluid", call, schedule) == twisted_ps
