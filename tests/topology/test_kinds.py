"""The common suite of the kinds of topology: a new kind adds one row to ROWS."""

import functools
import itertools
import pickle

import networkx as nx
import numpy as np
import pytest
from attrs import frozen

import topology as topologies
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError
from configs.loader import load_system
from configs.spec.topology import LinkSpec, RoutingSpec, TopologySpec
from configs.yaml_source import parse_yaml
from tests.topology.halves import bisection_of_all_halves
from topology import (
    TOPOLOGY_KINDS,
    Cable,
    Compose,
    Dragonfly,
    FatTree,
    FullyConnected,
    Graph,
    GraphLink,
    Line,
    Mesh,
    Nodes,
    Ocs,
    Ring,
    Switch,
    Topology,
    Torus,
    bisection_bytes_per_s,
    degree,
    diameter_hops,
    ports,
)
from topology.bisection import searched_bisection_bytes_per_s
from topology.kinds.ocs import CubeFailure
from topology.metrics import searched_diameter_hops
from topology.networkx_io import from_networkx, to_networkx

LINK = LinkSpec(bandwidth_bytes_per_s=10e9, latency_ps=1_000)
FOUR = LinkSpec(bandwidth_bytes_per_s=10e9, latency_ps=1_000, count=4)
TWO = LinkSpec(bandwidth_bytes_per_s=10e9, latency_ps=1_000, count=2)

CUBE_MESH = (
    (0, 1), (0, 2), (0, 3, 2), (0, 4, 2), (1, 2, 2), (1, 3), (1, 5, 2), (2, 3, 2),
    (2, 6), (3, 7), (4, 5), (4, 6), (4, 7, 2), (5, 6, 2), (5, 7), (6, 7, 2),
)  # fmt: skip
STAR = tuple((f"chip{c}", f"switch{s}", 2) for c in range(4) for s in range(2))
EIGHT = LinkSpec(bandwidth_bytes_per_s=10e9, latency_ps=1_000, count=8)
SEAMS = tuple(
    Cable(((2 * i + j, here), (other, there)))
    for i in range(2)
    for j in range(2)
    for here, there, other in (("x=3", "x=0", 2 * (1 - i) + j), ("y=1", "y=0", 2 * i + 1 - j))
)
GATEWAYS = tuple(Cable(((0, f"x={2 * k},y=0"), (1 + k, 0))) for k in range(2))
BOARD = Switch(4, LINK, planes=(1, 2))


@frozen
class Row:
    """A topology and what is known about it.

    cut: the bisection in physical links, None if it is not known.
    detours: whether the natural routing is not always a shortest path.
    """

    name: str
    spec: TopologySpec
    n_chips: int
    n_links: int
    degree: int
    ports: int
    diameter_hops: int
    cut: int | None
    n_switches: int = 0
    detours: bool = False


ROWS = [
    Row("one chip", Mesh((1,), LINK), 1, 0, 0, 0, 0, 0),
    Row("line of 1", Line((1,), LINK), 1, 0, 0, 0, 0, 0),
    Row("line of 5", Line((5,), LINK), 5, 4, 2, 2, 4, 1),
    Row("ring of 1", Ring((1,), LINK), 1, 0, 0, 0, 0, 0),
    Row("ring of 2 has one edge", Ring((2,), LINK), 2, 1, 1, 1, 1, 1),
    Row("ring of 3", Ring((3,), LINK), 3, 3, 2, 2, 1, 2),
    Row("ring of 8", Ring((8,), TWO), 8, 16, 2, 4, 4, 4),
    Row("galaxy mesh: 52 edges", Mesh((8, 4), FOUR), 32, 208, 4, 16, 10, 16),
    Row("galaxy torus: 64 edges", Torus((8, 4), FOUR), 32, 256, 4, 16, 6, 32),
    Row("t3000: 10 edges", Mesh((4, 2), TWO), 8, 20, 3, 6, 4, 4),
    Row("p150 x8: a cube", Torus((2, 4), TWO, wrap=(False, True)), 8, 24, 3, 6, 3, 8),
    Row("quad galaxy", Torus((16, 8), TWO), 128, 512, 4, 8, 12, 32),
    Row("tpu v4 cube", Torus((4, 4, 4), LINK), 64, 192, 6, 6, 6, 32),
    Row("tpu v4 cube, no wrap", Mesh((4, 4, 4), LINK), 64, 144, 6, 6, 9, 16),
    Row("tpu v6e 8x16", Torus((8, 16), LINK, wrap=(False, True)), 128, 240, 4, 4, 15, 16),
    Row("3x3 mesh", Mesh((3, 3), LINK), 9, 12, 4, 4, 4, 4),
    Row("3x5 torus", Torus((3, 5), LINK), 15, 30, 4, 4, 3, 8),
    Row("twisted 3x6", Torus((3, 6), LINK, twist=True), 18, 36, 4, 4, 3, 12),
    Row("twisted 4x4x8", Torus((4, 4, 8), LINK, twist=True), 128, 384, 6, 6, 6, None),
    Row("twisted 4x8x8", Torus((4, 8, 8), LINK, twist=True), 256, 768, 6, 6, 6, None),
    Row("twisted by rows", Torus((4, 3), LINK, twist=((0, 1), (0, 0))), 12, 24, 4, 4, 3, 6),
    Row("superpod slice", Ocs(64, "4x4x4", LINK), 64, 192, 6, 6, 6, 32),
    Row("twisted superpod slice", Ocs(64, "4x4x8", LINK, twist=True), 128, 384, 6, 6, 6, None),
    Row("part of a cube", Ocs(64, (2, 2, 4), LINK), 16, 28, 4, 4, 5, 4),
    Row("hypercube", Torus((2, 2, 2, 2), LINK), 16, 32, 4, 4, 4, 8),
    Row("mi300x", FullyConnected(8, LINK), 8, 28, 7, 7, 1, 16),
    Row("gaudi 2", FullyConnected(8, LinkSpec(12.5e9, 1_000, count=3)), 8, 84, 7, 21, 1, 48),
    Row("all of 5", FullyConnected(5, LINK), 5, 10, 4, 4, 1, 6),
    Row("alone", FullyConnected(1, LINK), 1, 0, 0, 0, 0, 0),
    Row("one switch", Switch(8, LINK), 8, 8, 1, 1, 2, 4, n_switches=1),
    Row("dgx h100", Switch(8, LINK, planes=(5, 4, 4, 5)), 8, 144, 4, 18, 2, 72, n_switches=4),
    Row("dgx a100", Switch(8, LINK, planes=(2,) * 6), 8, 96, 6, 12, 2, 48, n_switches=6),
    Row("nvl72", Switch(72, LINK, planes=(1,) * 18), 72, 1296, 18, 18, 2, 648, n_switches=18),
    Row("switch of lanes", Switch(5, TWO, planes=(1, 2)), 5, 30, 2, 6, 2, 12, n_switches=2),
    Row("dgx-1 v100", Graph(8, CUBE_MESH, link=LINK, dims=(2, 4)), 8, 24, 4, 6, 2, 6),
    Row("graph of lanes", Graph(2, ((1, 0),), link=FOUR), 2, 4, 1, 4, 1, 4),
    Row("star", Graph(4, STAR, switches=2, link=LINK), 4, 16, 2, 4, 2, 8, n_switches=2),
    Row("no links", Graph(1, (), link=LINK), 1, 0, 0, 0, 0, 0),
    Row("switch of one chip", Switch(1, LINK), 1, 1, 1, 1, 0, 0, n_switches=1),
    Row("one leaf", FatTree(4, 8, LINK), 4, 4, 1, 1, 2, 2, n_switches=1),
    Row("two tiers", FatTree(8, 4, LINK), 8, 16, 1, 1, 4, 4, n_switches=6),
    Row("three tiers, k = 4", FatTree(16, 4, LINK, tiers=3), 16, 48, 1, 1, 6, 8, n_switches=20),
    Row("3:1 taper", FatTree(12, 4, LINK, taper=3), 12, 16, 1, 1, 4, 2, n_switches=5),
    Row("rails", FatTree(8, 8, LINK, rails=4), 8, 24, 1, 1, 4, 4, n_switches=6),
    Row("odd fat tree", FatTree(7, 6, TWO, down=3, up=2), 7, 26, 1, 2, 4, 4, n_switches=4),
    Row("dragonfly", Dragonfly(3, 2, 1, LINK, chips=2), 12, 18, 1, 1, 5, 2, n_switches=6),
    Row("balanced dragonfly", Dragonfly(9, 4, 2, LINK, chips=2), 72, 162, 1, 1, 5, 20, n_switches=36, detours=True),
    Row("groq rack", Dragonfly(9, 8, 4, LINK), 72, 396, 11, 11, 3, None, detours=True),
    Row("one group", Dragonfly(1, 4, 0, LINK), 4, 6, 3, 3, 1, 4),
    Row("lanes between groups", Dragonfly(2, 2, 3, LINK), 4, 8, 2, 4, 2, 2),
]
RINGS = Compose(BOARD, 3, network=Ring((3,), LINK), each_nic=True, link=LINK)
DGX_2 = Compose(Switch(8, LINK, (1,) * 6), 2, network=Line((2,), EIGHT), nics="switches", each_nic=True, link=LINK)
ULTRA = Compose(Torus((4, 4), LINK), 4, ("z",), network=Ring((4,), LINK), each_nic=True, link=LINK)
GATED = Compose(parts=(Nodes(Mesh((3, 2), LINK)), Nodes(Mesh((1,), LINK), 2)), cables=GATEWAYS, link=LINK)
SHARED = Compose(FullyConnected(4, LINK), 2, network=Switch(4, TWO), nics=2, nic_link=LINK, link=LINK)
POD = Compose(Switch(2, FOUR), 2, network=Line((2,), TWO), nics=("switch0",))
RAILS = Compose(Switch(4, FOUR), 4, network=FatTree(16, 8, LINK, rails=4), link=LINK)
ROWS += [
    Row("one node", Compose(Mesh((2, 2), LINK), link=LINK), 4, 4, 2, 2, 2, 2),
    Row("pod", Compose(Switch(4, FOUR), 2, network=Switch(8, LINK), link=LINK), 8, 40, 2, 5, 2, 4, n_switches=3),
    Row("nodes on rails", RAILS, 16, 96, 2, 5, 4, 8, n_switches=10),
    Row("dgx-2", DGX_2, 16, 144, 6, 6, 3, 48, n_switches=12),
    Row("ultraserver", ULTRA, 64, 192, 6, 6, 6, 32),
    Row("rings through boards", RINGS, 12, 48, 4, 5, 3, 12, n_switches=6),
    Row("seams", Compose(Mesh((4, 2), LINK), (2, 2), cables=SEAMS, link=LINK), 32, 64, 4, 4, 6, 8),
    Row("gateways", GATED, 8, 9, 3, 3, 4, 3),
    Row("shared NICs", SHARED, 8, 28, 4, 4, 4, 4, n_switches=5),
    Row("two NICs", Compose(Line((2,), LINK), 2, network=Switch(8, LINK), nics=4, link=LINK), 4, 10, 2, 3, 2, 4, 1),
    Row("one NIC", Compose(Line((3,), LINK), 2, network=Line((2,), LINK), nics=(1,), link=LINK), 6, 5, 3, 3, 3, 1),
    Row(
        "rack of pods", Compose(POD, 3, ("rack",), network=Switch(12, LINK), link=LINK),
        12, 66, 2, 5, 2, 8, n_switches=7, detours=True,
    ),
]  # fmt: skip
ROUTINGS = {
    "natural": RoutingSpec(),
    "alternate": RoutingSpec(ties="alternate"),
    "shortest": RoutingSpec(kind="shortest"),
    "ecmp": RoutingSpec(kind="ecmp"),
    "ecmp by hash": RoutingSpec(kind="ecmp", spread="hash"),
    "natural by hash": RoutingSpec(spread="hash", planes="hash"),
}


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Row:
    """Give each row in turn."""
    return request.param


@pytest.fixture(params=ROUTINGS.values(), ids=ROUTINGS)
def routing(request: pytest.FixtureRequest) -> RoutingSpec:
    """Give each routing in turn."""
    return request.param


def build(row: Row) -> Topology:
    """Build a row with the default routing."""
    return row.spec.build(RoutingSpec())


def pairs(topology: Topology) -> list[tuple[int, int]]:
    """Return up to some 200 ordered pairs of chips."""
    every = list(itertools.permutations(range(topology.n_chips), 2))
    return every[:: 1 + len(every) // 200]


def test_every_kind_has_a_row() -> None:
    """A kind of the table that is not in ROWS is untested."""
    assert {type(row.spec) for row in ROWS} == set(TOPOLOGY_KINDS.values())


def test_kind_is_its_name_in_the_table(row: Row) -> None:
    """A topology knows the name under which files call its kind."""
    assert TOPOLOGY_KINDS[build(row).kind] is type(row.spec)


def test_counts(row: Row) -> None:
    """Chips, switches, physical links and lanes are as the formula of the kind says."""
    topology = build(row)
    assert (topology.n_chips, topology.n_switches) == (row.n_chips, row.n_switches)
    assert topology.n_nodes == row.n_chips + row.n_switches
    assert topology.n_links == row.n_links
    assert (degree(topology), ports(topology)) == (row.degree, row.ports)


def test_links_are_symmetric_and_unique(row: Row) -> None:
    """Link 2e + 1 is link 2e backwards, and no two links join the same nodes in the same direction."""
    topology = build(row)
    ends = list(zip(topology.link_src.tolist(), topology.link_dst.tolist(), strict=True))
    assert ends[1::2] == [(dst, src) for src, dst in ends[0::2]]
    assert len(set(ends)) == len(ends)
    assert all(src != dst for src, dst in ends)
    assert topology.link_bandwidth_bytes_per_s == pytest.approx(
        topology.link_count * row.spec.link.bandwidth_bytes_per_s
    )


def test_building_twice_numbers_links_alike(row: Row) -> None:
    """Link numbers depend on the parameters alone."""
    first, second = build(row), build(row)
    assert np.array_equal(first.link_src, second.link_src)
    assert np.array_equal(first.link_dst, second.link_dst)


def test_diameter_and_bisection(row: Row) -> None:
    """The closed formulas give the known figures."""
    topology = build(row)
    assert diameter_hops(topology) == row.diameter_hops
    cut = None if row.cut is None else row.cut * row.spec.link.bandwidth_bytes_per_s
    assert bisection_bytes_per_s(topology) == cut


def test_search_agrees_with_closed_formulas(row: Row) -> None:
    """Searches find the same, where they are not too much work: breadth first, node by node, and all halves."""
    topology = build(row)
    assert searched_diameter_hops(topology) == row.diameter_hops
    cuts = [searched_bisection_bytes_per_s(topology)]
    if topology.n_chips <= 16 and topology.n_switches <= 6:
        cuts.append(bisection_of_all_halves(topology))
    for cut in cuts:
        if row.cut is not None and cut is not None:
            assert cut == pytest.approx(row.cut * row.spec.link.bandwidth_bytes_per_s)


def test_routes_lead_from_src_to_dst(row: Row, routing: RoutingSpec) -> None:
    """Every chain of links of a route starts at src, ends at dst, and the weights of the chains sum to 1."""
    topology = row.spec.build(routing)
    for src, dst in pairs(topology):
        route = topology.route(src, dst)
        here, arrived = src, 0.0
        latencies_ps, latency_ps = [], 0
        for link, weight in zip(route.links, route.weights, strict=True):
            assert topology.link_src[link] == here
            here = topology.link_dst[link]
            latency_ps += topology.link_latency_ps[link]
            if here == dst:
                latencies_ps.append(latency_ps)
                here, arrived, latency_ps = src, arrived + weight, 0
        assert here == src
        assert arrived == pytest.approx(1)
        assert route.latency_ps == max(latencies_ps)


@functools.cache
def nx_hops(name: str) -> dict[int, dict[int, int]]:
    """Return networkx's hops between all nodes of a row's topology."""
    graph = to_networkx(build(next(row for row in ROWS if row.name == name)))
    return dict(nx.all_pairs_shortest_path_length(graph))


def test_routes_are_shortest_paths(row: Row, routing: RoutingSpec) -> None:
    """No chain of a route is longer than networkx's shortest path."""
    topology, hops, chosen = row.spec.build(routing), nx_hops(row.name), pairs(row.spec.build(routing))
    if not chosen or (row.detours and routing.kind == "dimension_order"):
        return
    routes = topology.routes(*np.array(chosen).T)
    for (src, dst), first, end in zip(chosen, routes.start[:-1], routes.start[1:], strict=True):
        chains = np.count_nonzero(topology.link_dst[routes.links[first:end]] == dst)
        assert end - first == chains * hops[src][dst]


def test_many_routes_are_the_single_ones(row: Row, routing: RoutingSpec) -> None:
    """Routes of many pairs at once are those found one by one."""
    topology = row.spec.build(routing)
    chosen = pairs(topology)[::7]
    if chosen:
        many, single = topology.routes(*np.array(chosen).T), [topology.route(*pair) for pair in chosen]
        assert np.array_equal(many.links, np.concatenate([route.links for route in single]))
        assert np.array_equal(many.weights, np.concatenate([route.weights for route in single]))
        assert many.latency_ps.tolist() == [route.latency_ps for route in single]
        assert np.diff(many.start).tolist() == [len(route.links) for route in single]


def test_routes_survive_pickling(row: Row) -> None:
    """A pickled topology forgets what it cached and finds the same routes."""
    topology = build(row)
    before = [topology.route(src, dst).links.tolist() for src, dst in pairs(topology)]
    copy = pickle.loads(pickle.dumps(topology))
    assert not copy._routes
    assert [copy.route(src, dst).links.tolist() for src, dst in pairs(copy)] == before


def test_coordinates_and_ranks_are_inverse(row: Row) -> None:
    """Ranks number the grid row-major."""
    topology = build(row)
    coords = [topology.coords(rank) for rank in range(topology.n_chips)]
    assert coords == list(itertools.product(*map(range, topology.dims)))
    assert [topology.rank_of(c) for c in coords] == list(range(topology.n_chips))


def test_axis_ranks_partition_the_chips(row: Row) -> None:
    """Lines along an axis hold the chips that differ in that coordinate only, in its order."""
    topology = build(row)
    for k, axis in enumerate(topology.axes):
        for rank in range(topology.n_chips):
            line = topology.axis_ranks(rank, axis)
            coords = [topology.coords(other) for other in line]
            assert rank in line
            assert [c[k] for c in coords] == list(range(topology.dims[k]))
            assert len({c[:k] + c[k + 1 :] for c in coords}) == 1


def test_networkx_round_trip(row: Row) -> None:
    """A topology comes back from networkx the same, down to the figures of every link."""
    topology = build(row)
    graph = to_networkx(topology)
    back = from_networkx(graph)
    again = to_networkx(back)
    assert back.n_links == topology.n_links
    assert (back.dims, back.axes, back.wraps) == (topology.dims, topology.axes, topology.wraps)
    assert dict(graph.nodes) == dict(again.nodes)
    assert {edge: graph.edges[edge] for edge in graph.edges} == {edge: again.edges[edge] for edge in again.edges}


def test_link_names(row: Row) -> None:
    """Names say both ends, and `link_between` finds the link by its ends."""
    topology = build(row)
    for link, (src, dst) in enumerate(zip(topology.link_src, topology.link_dst, strict=True)):
        assert topology.link_name(link) == f"{topology.node_name(src)}→{topology.node_name(dst)}"
        assert topology.link_between(src, dst) == link


WRONG = [
    (lambda: Mesh((), LINK), "dims: at least one number is needed, got none"),
    (lambda: Mesh((4, 0), LINK), "dims: every length must be at least 1, got [4, 0]"),
    (lambda: Mesh((1001, 1000), LINK), "dims: at most 250,000 chips, got 1,001,000"),
    (lambda: Mesh((4, 4), LINK, axes=("x",)), "axes: 1 names ['x'] for 2 dims [4, 4]"),
    (lambda: Mesh((4, 4), LINK, axes=("x", "x")), "axes: names must be different and not empty"),
    (lambda: Torus((4, 4), LINK, wrap=(True,)), "wrap: 1 values [True] for 2 dims"),
    (lambda: Torus((4, 4, 4), LINK, twist=True), "twist: dims [4, 4, 4]; accepted: axes of two lengths, k and 2k"),
    (lambda: Torus((2, 4), LINK, twist=True), "twist: dims [2, 4], wrap [True, True]; accepted: axes of at least 3"),
    (lambda: Torus((4, 8), LINK, wrap=(True, False), twist=True), "accepted: axes of at least 3 that are all wrapped"),
    (lambda: Torus((4, 8), LINK, twist=((0, 4),)), "twist: [[0, 4]]; accepted: true, or 2 rows of 2 shifts"),
    (lambda: Torus((4, 8), LINK, twist=((0, 8), (0, 0))), "twist[0]: [0, 8]; accepted: shifts of 0 to [3, 7]"),
    (lambda: Torus((4, 8), LINK, twist=((0, 4), (2, 0))), "twist[0]: [0, 4]; accepted: shifts along axes that are not"),
    (lambda: Ocs(64, "4x4x6", LINK), "slice: 4x4x6 is not possible; accepted: sides that are multiples of 4x4x4"),
    (lambda: Ocs(64, "16x16x32", LINK), "at most 64 cubes, or 2x2x1, 2x2x2, 2x2x4, 2x4x4"),
    (lambda: Ocs(64, "4x4", LINK), "slice: 4x4 has 2 sides"),
    (lambda: Ocs(64, "4*4*4", LINK), "slice: '4*4*4' is not a shape; accepted: sides such as 4x4x8"),
    (lambda: Ocs(64, "4x4x4", LINK, twist=True), "twist: not possible for 4x4x4; accepted: slices of k×k×2k"),
    (lambda: Ocs(0, "4x4x4", LINK), "cubes: 0; accepted: 1 to 3906"),
    (lambda: Ocs(64, "4x4x4", LINK, cube=(2, 4, 4)), "cube: [2, 4, 4]; accepted: sides of at least 3"),
    (lambda: Ocs(64, "4x4x4", LINK, switch_ports=64), "switch_ports: 64; accepted: 2 for each of 64 cubes, or more"),
    (lambda: Ocs(2, "4x4x8", LINK, failed_cubes=(1,)), "slice: 4x4x8 needs 2 cubes; 1 of 2 are free, 1 have failed"),
    (lambda: Ocs(2, "4x4x4", LINK, failed_cubes=(2,)), "failed_cubes[0]: cube 2 does not exist; accepted: 0 to 1"),
    (lambda: Ocs(2, "4x4x4", LINK, failures=(CubeFailure(0, 1),)), "reconfiguration: missing, and cubes fail"),
    (
        lambda: Ocs(2, "4x4x4", LINK, reconfiguration_ps=1, failures=(CubeFailure(1, 1),)),
        "failures[0].cube: 1; accepted",
    ),
    (lambda: Line((4, 4), LINK), "dims: exactly one number is needed, got [4, 4]"),
    (lambda: Ring((), LINK), "dims: exactly one number is needed, got []"),
    (lambda: Ring((0,), LINK), "dims: every length must be at least 1, got [0]"),
    (lambda: FullyConnected(0, LINK), "chips: at least one chip is needed, got 0"),
    (lambda: FullyConnected(10_000, LINK), "chips: at most 1,000,000 edges, got 49,995,000"),
    (lambda: Switch(-1, LINK), "chips: at least one chip is needed, got -1"),
    (lambda: Switch(8, LINK, planes=()), "planes: at least one plane of at least one link is needed, got []"),
    (lambda: Switch(8, LINK, planes=(1, 0)), "planes: at least one plane of at least one link is needed"),
    (lambda: Graph(0, ()), "chips: at least one chip is needed, got 0"),
    (lambda: Graph(2, (), switches=-1), "switches: 0 to 250,000, got -1"),
    (lambda: Graph(2, ((0,),)), "links[0]: [0]; accepted: two nodes"),
    (lambda: Graph(2, ((0, 1, 0),)), "links[0]: [0, 1, 0]; accepted: two nodes"),
    (lambda: Graph(2, ((0, 2),), link=LINK), "links[0]: no node 2; accepted: chip0…chip1 (there are no switches)"),
    (lambda: Graph(2, (("chip01", 1),), 3, LINK), "no node 'chip01'; accepted: chip0…chip1 or switch0…switch2"),
    (lambda: Graph(2, ((1, "chip1"),), link=LINK), "links[0]: 1 cannot be linked to itself"),
    (lambda: Graph(2, ((0, 1), (1, 0)), link=LINK), "links[1]: joins the same nodes as links[0]"),
    (lambda: Graph(2, (GraphLink((0, 1), bandwidth_bytes_per_s=1.0),)), "links[0]: has no latency"),
    (lambda: Graph(2, (GraphLink((0, 1), latency_ps=-1),), link=LINK), "links[0].latency: must not be negative"),
    (lambda: Graph(6, (), dims=(2, 4)), "dims: [2, 4] are 8 chips, but chips is 6"),
    (lambda: Graph(6, (), axes=("x",)), "axes: names for no dims"),
    (lambda: Compose(link=LINK), "neither of node and parts given; accepted: one of them"),
    (lambda: Compose(BOARD, parts=(Nodes(BOARD),)), "both of node and parts given"),
    (lambda: Compose(BOARD, ()), "count: at least one number is needed, got none"),
    (lambda: Compose(BOARD, (2, 0)), "count: 0; accepted: at least 1"),
    (lambda: Compose(BOARD, 2, ("a", "b")), "axes: 2 names ['a', 'b'] for a count of [2]"),
    (lambda: Compose(BOARD, 2, ("chips",)), "axes: chips, chips: names must be different; accepted: names for the"),
    (lambda: Compose(BOARD, 100_000), "count: at most 250,000 chips, got 400,000"),
    (lambda: Compose(parts=(Nodes(BOARD),), axes=("a",)), "axes: are for equal nodes; accepted: node and count"),
    (lambda: Compose(parts=(Nodes(BOARD),), each_nic=True), "each_nic: needs equal nodes"),
    (lambda: Compose(BOARD, 2, nics=4), "network: is missing; accepted: a network for the NICs"),
    (lambda: Compose(BOARD, 2, network=Switch(9, LINK)), "network: has 9 end points; accepted: 8, the NICs of all 2"),
    (
        lambda: Compose(BOARD, 2, network=Ring((3,), LINK), each_nic=True),
        "network: has 3 end points; accepted: 2, the 2 nodes",
    ),
    (lambda: Compose(BOARD, 2, network=Switch(4, LINK), nics=2), "nics: 2 for 4 chips: several chips share one"),
    (lambda: Compose(BOARD, 2, network=Switch(6, LINK), nics=3), "nics: 3 cannot be dealt out evenly among 4 chips"),
    (lambda: Compose(BOARD, 2, network=BOARD, nics=((0, 1), (2, 3))), "nics: one NIC serves several chips; accepted"),
    (lambda: Compose(BOARD, 2, network=BOARD, nics=(0, "switch1")), "nics: some are chips' and some are switches'"),
    (lambda: Compose(BOARD, 2, network=BOARD, nics=()), "nics: is empty"),
    (lambda: Compose(BOARD, 2, network=BOARD, nics=(0, ())), "nics[1]: is empty"),
    (lambda: Compose(BOARD, 2, network=BOARD, nics=(0, 4)), "nics[1]: 4: accepted: chips, chip0 to chip3, coordinates"),
    (lambda: Compose(BOARD, 2, network=BOARD, nics="racks"), "nics: 'racks': accepted: chips, chip0 to chip3"),
    (
        lambda: Compose(Line((2,), LINK), cables=(Cable(((0, 0), (0, 1))),), link=LinkSpec(1e9, 1)),
        "1 edges join nodes that have another edge of a different latency",
    ),
    (lambda: Compose(BOARD, 2, network=Line((4,), LINK), nics=(0, 0)), "network: joins a chip or switch to itself"),
    (lambda: Compose(BOARD, 2, cables=(Cable(((0, 0), (1, 0))),)), "cables[0]: has no link; accepted: one here or in"),
    (lambda: Compose(BOARD, 2, link=LinkSpec(0, 1)), "link.bandwidth: must be above zero"),
    (lambda: Compose(BOARD, 2, cables=(Cable(((0, 0), (2, 0))),), link=LINK), "cables[0]: no node 2; accepted: 0 to 1"),
    (
        lambda: Compose(BOARD, 2, cables=(Cable(((0, "chips"), (1, "switches"))),), link=LINK),
        "cables[0]: joins 4 to 2; accepted: as many at both ends",
    ),
    (lambda: Compose(BOARD, 2, cables=(Cable(((0, "z=1"), (1, 0))),), link=LINK), "cables[0]: 'z=1': accepted: chips,"),
    (lambda: FatTree(0, 8, LINK), "chips: at least one chip is needed, got 0"),
    (lambda: FatTree(64, 4, LINK), "chips: 32 leaves of 2 chips; 2 tiers reach at most 4; accepted: tiers: 3, or"),
    (lambda: FatTree(64, 4, LINK, tiers=3), "chips: 32 leaves of 2 chips; 3 tiers reach at most 8"),
    (lambda: FatTree(8, 4, LINK, tiers=4), "tiers: 4 is not possible; accepted: 2, 3"),
    (lambda: FatTree(8, 5, LINK, tiers=3), "radix: 5 ports; accepted: 2 to 4096, even for three tiers"),
    (lambda: FatTree(8, 4, LINK, rails=3), "rails: 8 chips are no whole number of nodes of 3"),
    (lambda: FatTree(8, 4, LINK, taper=2), "taper: 4 ports cannot be shared out 2:1; accepted: down and up"),
    (lambda: FatTree(8, 4, LINK, taper=float("nan")), "taper: nan is out of range"),
    (lambda: FatTree(8, 4, LINK, down=3), "down: is given together with up or not at all"),
    (
        lambda: FatTree(8, 4, LINK, down=3, up=2),
        "down: 3 and up: 2 ports of a leaf; accepted: at least 1 each, at most 4",
    ),
    (lambda: FatTree(8, 4, LINK, down=2, up=2, taper=3), "taper: 3 is given beside down and up"),
    (lambda: FatTree(8, 4, LINK, uplink=LinkSpec(1e9, -1)), "uplink.latency: must not be negative"),
    (lambda: FatTree(8, 4, LINK, axes=("a", "b")), "axes: ['a', 'b']; accepted: 1 names"),
    (lambda: Dragonfly(0, 4, 2, LINK), "groups: must be at least 1, got 0"),
    (lambda: Dragonfly(9, 4, 1, LINK), "global_links: 4 routers of 1 links reach 4 other groups; accepted: enough"),
    (lambda: Dragonfly(2, 4, 1, LINK, chips=-1), "chips: must be at least 0, got -1"),
    (lambda: Dragonfly(2, 2, 1, LINK, global_link=LinkSpec(0, 1)), "global_link.bandwidth: must be above zero"),
    (lambda: Dragonfly(2, 600_000, 1, LINK), "groups: at most 250,000 chips, got 1,200,000"),
    (lambda: Mesh((4,), LinkSpec(0, 1)), "link.bandwidth: must be above zero, got 0"),
    (lambda: Mesh((4,), LinkSpec(1e9, -1)), "link.latency: must not be negative, got -1 ps"),
    (lambda: Mesh((4,), LinkSpec(1e9, 1, count=0)), "link.count: must be at least 1, got 0"),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_parameters(make: object, message: str) -> None:
    """A wrong parameter is named with its value and what is accepted."""
    with pytest.raises(ConfigError) as error:
        make()
    assert message in str(error.value)


def test_pairs_that_a_graph_does_not_join_are_named() -> None:
    """A graph may leave chips apart; a route between them is refused, and no figure is made up."""
    topology = Graph(4, ((0, 1), (2, 3)), link=LINK).build(RoutingSpec())
    assert topology.route(2, 3).links.tolist() == [2]
    assert diameter_hops(topology) is None
    with pytest.raises(ConfigError, match="no path from chip0 to chip3"):
        topology.route(0, 3)


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("{between: [0, 1], bandwidth: 25}", "topology.links[1].bandwidth: 25 has no unit"),
        (
            "{between: [0, 1], wide: 1}",
            "topology.links[1].wide: unknown key; accepted: between, count",
        ),
        ("[0, chip7]", "topology.links[1]: no node 'chip7'; accepted: chip0…chip2"),
        ("0-1", "topology.links[1]: '0-1' is not one of these; accepted: a mapping with the keys between"),
    ],
)
def test_a_wrong_link_in_a_file_is_named_by_its_keys(link: str, message: str) -> None:
    """A link may be a list or a mapping; what is wrong with it is said in the terms of the form that was used."""
    text = f"{{kind: graph, chips: 3, links: [[1, 2], {link}], link: {{bandwidth: 1GB/s, latency: 1us}}}}"
    with pytest.raises(ConfigError) as error:
        load_system({"name": "s", "chip": "h100-sxm", "topology": parse_yaml(text, "x")}, (), VOCABULARY)
    assert message in str(error.value)
    assert len(error.value.problems) == 1


def test_links_of_a_graph_may_differ() -> None:
    """A link's own figures come before those of `link`, and say one link of the count."""
    links = (GraphLink((0, 1), count=3, bandwidth_bytes_per_s=5e9), GraphLink((1, 2), latency_ps=7), (2, 3, 1))
    topology = Graph(4, links, link=TWO).build(RoutingSpec())
    assert topology.link_bandwidth_bytes_per_s[::2].tolist() == [15e9, 20e9, 10e9]
    assert topology.link_latency_ps[::2].tolist() == [1_000, 7, 1_000]
    assert topology.link_count[::2].tolist() == [3, 2, 1]


def test_axes_of_a_graph_wrap_where_it_has_the_edges() -> None:
    """A ring written as a graph wraps; a line, and a grid with one edge round, do not."""
    ring = tuple((c, (c + 1) % 4) for c in range(4))
    assert Graph(4, ring, link=LINK, dims=(4,)).build(RoutingSpec()).wraps == (True,)
    assert Graph(4, ring[:3], link=LINK, dims=(4,)).build(RoutingSpec()).wraps == (False,)
    assert Graph(8, ring, link=LINK, dims=(2, 4)).build(RoutingSpec()).wraps == (False, False)


def test_all_problems_are_reported_at_once() -> None:
    """One message lists everything that is wrong."""
    with pytest.raises(ConfigError) as error:
        Torus((4, 0), LinkSpec(0, -1), axes=("x",), wrap=(True,))
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "dims",
        "axes",
        "link.bandwidth",
        "link.latency",
        "wrap",
    ]


def test_routing_that_does_not_fit(row: Row) -> None:
    """Every kind builds with each routing that it names, and refuses the others with those."""
    for kind in ("dimension_order", "shortest", "ecmp", "up_down", "minimal", "valiant"):
        if kind in row.spec.routings:
            assert row.spec.build(RoutingSpec(kind=kind)).n_chips == row.n_chips
        else:
            with pytest.raises(
                ConfigError, match=f"'{kind}' does not fit here; accepted: dimension_order, shortest, ecmp"
            ):
                row.spec.build(RoutingSpec(kind=kind))


def test_public_names_exist_and_are_sorted() -> None:
    """`__all__` is the surface: it names what is there."""
    assert sorted(set(topologies.__all__)) == sorted(topologies.__all__)
    assert all(hasattr(topologies, name) for name in topologies.__all__)
