"""Fat trees and dragonflies: the counts of published machines, and how evenly their routings spread."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.spec.topology import LinkSpec, RoutingSpec
from topology import Dragonfly, FatTree, Switch, Topology, bisection_bytes_per_s, diameter_hops
from topology.bisection import searched_bisection_bytes_per_s
from topology.metrics import searched_diameter_hops

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


@st.composite
def fat_trees(draw: st.DrawFn) -> FatTree:
    """Draw a small fat tree of any shape that can be built."""
    rails = draw(st.integers(1, 3))
    down, up = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    radix = draw(st.integers(down + up, 10))
    uplink = draw(st.sampled_from([None, LinkSpec(5e9, 500), LinkSpec(20e9, 2_000)]))
    try:
        return FatTree(
            rails * draw(st.integers(1, 16 // rails)), radix, LINK, tiers=draw(st.sampled_from([2, 3])), rails=rails,
            down=down, up=up, uplink=uplink,
        )  # fmt: skip
    except ConfigError:
        assume(condition=False)
        raise


@given(spec=fat_trees(), spread=st.sampled_from(["modulo", "hash"]))
def test_any_fat_tree(spec: FatTree, spread: str) -> None:
    """Ports suffice, formulas are what searches find, and all routes lead up and down to where they should."""
    tree = spec.build(RoutingSpec(spread=spread))
    ports = np.bincount(tree.link_src, tree.link_count, minlength=tree.n_nodes)
    assert ports[: tree.n_chips].max() == 1
    assert ports[tree.n_chips :].max() <= spec.radix
    assert tree.known_diameter_hops == searched_diameter_hops(tree)
    if tree.known_bisection_bytes_per_s is not None and tree.n_chips > 1 and tree.n_switches <= 12:
        assert tree.known_bisection_bytes_per_s == pytest.approx(searched_bisection_bytes_per_s(tree))
    for src, dst in itertools.permutations(range(tree.n_chips), 2):
        links = tree.route(src, dst).links
        nodes = [src, *tree.link_dst[links].tolist()]
        assert nodes[:-1] == tree.link_src[links].tolist()
        assert nodes[-1] == dst
        assert len(links) == tree.hops_from(src)[dst]


@given(
    groups=st.integers(1, 5), routers=st.integers(1, 4), global_links=st.integers(0, 4), chips=st.integers(0, 2),
    kind=st.sampled_from(["minimal", "valiant"]), spread=st.sampled_from(["modulo", "hash"]),
)  # fmt: skip
def test_any_dragonfly(groups: int, routers: int, global_links: int, chips: int, kind: str, spread: str) -> None:
    """All pairs of groups have equally many links, routers have ports for theirs, and all routes arrive."""
    assume(routers * global_links >= groups - 1)
    spec = Dragonfly(groups, routers, global_links, LINK, chips=chips)
    fly = spec.build(RoutingSpec(kind=kind, spread=spread))
    ports = np.bincount(fly.link_src, fly.link_count, minlength=fly.n_nodes)
    assert ports[fly.n_chips if chips else 0 :].max() <= chips + routers - 1 + global_links
    copies = routers * global_links // (groups - 1) if groups > 1 else 0
    assert fly.link_count[2 * spec.plan.first_global_edge :: 2].sum() == copies * groups * (groups - 1) // 2
    for src, dst in itertools.permutations(range(0, fly.n_chips, 1 + fly.n_chips // 12), 2):
        links = fly.route(src, dst).links
        nodes = [src, *fly.link_dst[links].tolist()]
        assert nodes[:-1] == fly.link_src[links].tolist()
        assert nodes[-1] == dst
        assert len(set(nodes)) == len(nodes) or kind == "valiant"
