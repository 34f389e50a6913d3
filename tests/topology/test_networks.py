"""Fat trees and dragonflies: the counts of published machines, and how evenly their routings spread."""

import itertools

import numpy as np
import pytest

from configs.spec import LinkSpec, RoutingSpec
from topology import Dragonfly, FatTree, Switch, Topology, bisection_bytes_per_s, diameter_hops

NDR = LinkSpec(bandwidth_bytes_per_s=50e9, latency_ps=500_000)
LINK = LinkSpec(bandwidth_bytes_per_s=10e9, latency_ps=1_000)

SUPERPODS = [
    # chips, leaves, spines, cores, cables between a leaf and a spine
    (256, 8, 4, 0, 8),
    (512, 16, 8, 0, 4),
    (1024, 32, 16, 0, 2),
    (2048, 64, 32, 0, 1),
    (4096, 128, 128, 64, 1),
]


@pytest.mark.parametrize(("chips", "leaves", "spines", "cores", "cables"), SUPERPODS)
def test_dgx_superpod_h100(chips: int, leaves: int, spines: int, cores: int, cables: int) -> None:
    """Switches and cables are those of NVIDIA's reference architecture, and the bisection is full."""
    spec = FatTree(chips, 64, NDR, tiers=3, rails=8)
    assert (spec.plan.n_leaves, spec.plan.n_spines, spec.plan.n_cores) == (leaves, spines, cores)
    pod = spec.build(RoutingSpec())
    assert pod.n_switches == leaves + spines + cores
    assert pod.n_links == chips * (3 if cores else 2)
    assert set(pod.link_count[2 * chips : 2 * (chips + leaves * spec.plan.pod_spines)].tolist()) == {cables}
    assert bisection_bytes_per_s(pod) == chips / 2 * 50e9
    assert diameter_hops(pod) == (6 if cores else 4)
    ports = np.bincount(pod.link_src, pod.link_count)[chips:]
    assert ports.max() <= 64
    assert set(ports[: leaves + spines].tolist()) == {64}


def test_rails_of_a_superpod() -> None:
    """GPU i of every node is on rail i: 32 nodes of a unit reach one another's GPU i over one leaf."""
    pod = FatTree(1024, 64, NDR, rails=8).build(RoutingSpec())
    assert (pod.dims, pod.axes) == ((128, 8), ("nodes", "rails"))
    rail = pod.axis_ranks(3, "nodes")
    assert rail[:3] == (3, 11, 19)
    assert {len(pod.route(3, chip).links) for chip in rail[1:32]} == {2}
    assert {len(pod.route(3, chip).links) for chip in rail[32:]} == {4}
    assert {len(pod.route(0, chip).links) for chip in range(1, 8)} == {4}


def loads(topology: Topology, pairs: np.ndarray) -> np.ndarray:
    """Return how many of these pairs' routes each link carries, per lane."""
    routes = topology.routes(*pairs)
    carried = np.bincount(routes.links, routes.weights, minlength=len(topology.link_src))
    return carried / topology.link_count


def shift(n: int, by: int) -> np.ndarray:
    """Return the pairs of a shift: every chip sends to the one so far ahead."""
    return np.stack([np.arange(n), (np.arange(n) + by) % n])


@pytest.mark.parametrize("by", [1, 7, 32, 100, 511])
@pytest.mark.parametrize("spec", [FatTree(512, 32, NDR), FatTree(1024, 16, NDR, tiers=3)], ids=["two", "three"])
def test_modulo_carries_every_shift_without_contention(spec: FatTree, by: int) -> None:
    """Destination modulo ways: no link of a full fat tree carries two messages of a shift."""
    assert loads(spec.build(RoutingSpec()), shift(spec.chips, by)).max() == 1


def test_hash_spreads_over_all_ways() -> None:
    """By hash every way up is used about equally often, and some shifts collide."""
    tree = FatTree(512, 32, NDR).build(RoutingSpec(spread="hash"))
    pairs = np.array(list(itertools.permutations(range(0, 512, 3), 2))).T
    carried = loads(tree, pairs)[2 * 512 :]
    assert carried.min() > 0.5 * carried.mean()
    assert carried.max() < 1.8 * carried.mean()
    assert loads(tree, shift(512, 100)).max() > 1


def test_equal_cost_paths_use_all_ways_of_any_graph() -> None:
    """ECMP on a fat tree is a way up and down, and all spines carry some."""
    for spread in ("modulo", "hash"):
        tree = FatTree(32, 8, NDR).build(RoutingSpec(kind="ecmp", spread=spread))
        pairs = np.array(list(itertools.permutations(range(32), 2))).T
        assert loads(tree, pairs).min() > 0


def test_planes_by_hash() -> None:
    """A transfer takes one plane; planes get pairs in proportion to their links."""
    switch = Switch(64, LINK, planes=(3, 1)).build(RoutingSpec(planes="hash"))
    pairs = np.array(list(itertools.permutations(range(64), 2))).T
    routes = switch.routes(*pairs)
    assert (np.diff(routes.start) == 2).all()
    second = np.isin(switch.link_dst[routes.links], [65]).sum() / pairs.shape[1]
    assert second == pytest.approx(1 / 4, abs=0.03)


def test_dragonfly_routes() -> None:
    """Minimal routes take one global link, Valiant's two, over a third group; both start and end where they should."""
    spec = Dragonfly(9, 4, 2, LINK, chips=2)
    pairs = np.array([(a, b) for a, b in itertools.permutations(range(72), 2) if a // 8 != b // 8]).T
    for kind, crossed in (("minimal", 1), ("valiant", 2)):
        topology = spec.build(RoutingSpec(kind=kind))
        routes = topology.routes(*pairs)
        router = (topology.link_src[routes.links] - 72) // 4, (topology.link_dst[routes.links] - 72) // 4
        between = (router[0] != router[1]) & (topology.link_src[routes.links] >= 72)
        between &= topology.link_dst[routes.links] >= 72
        owner = np.repeat(np.arange(pairs.shape[1]), np.diff(routes.start))
        assert (np.bincount(owner, between) == crossed).all()
        assert (topology.link_src[routes.links[routes.start[:-1]]] == pairs[0]).all()
        assert (topology.link_dst[routes.links[routes.start[1:] - 1]] == pairs[1]).all()
        inner = np.delete(np.arange(len(routes.links)), routes.start[:-1])
        assert (topology.link_src[routes.links[inner]] == topology.link_dst[routes.links[inner - 1]]).all()


def test_valiant_spreads_the_worst_pattern() -> None:
    """All chips of a group sending to the next group share one global link minimally, and many by Valiant."""
    spec = Dragonfly(9, 4, 2, LINK, chips=2)
    first = 2 * spec.plan.first_global_edge
    carried = {kind: loads(spec.build(RoutingSpec(kind=kind)), shift(72, 8))[first:] for kind in ("minimal", "valiant")}
    assert carried["minimal"].max() == 8
    assert carried["valiant"].max() < 8
    assert np.count_nonzero(carried["valiant"]) > 5 * np.count_nonzero(carried["minimal"])
    assert carried["valiant"].sum() == 2 * carried["minimal"].sum()


def test_groq_rack() -> None:
    """Nine nodes of eight chips: 7 local and 4 global links per chip, three hops at most."""
    rack = Dragonfly(9, 8, 4, LINK).build(RoutingSpec())
    assert np.bincount(rack.link_src).tolist() == [11] * 72
    assert diameter_hops(rack) == 3
    pairs = np.array(list(itertools.permutations(range(72), 2))).T
    assert np.diff(rack.routes(*pairs).start).max() == 3
