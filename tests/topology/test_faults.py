"""Dead links and chips: what is left, the ways around, what is cut off, and what is refused."""

from __future__ import annotations

import itertools
import pickle

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.spec.faults import FaultsSpec, LinkFault
from configs.spec.topology import LinkSpec, RoutingSpec
from tests.topology.test_kinds import ROWS, Row
from topology import (
    FatTree,
    Mesh,
    Switch,
    Topology,
    Torus,
    bisection_bytes_per_s,
    diameter_hops,
    hamiltonian_cycle,
    islands,
    n_cut_off_pairs,
    with_faults,
)
from topology.metrics import searched_diameter_hops
from topology.networkx_io import to_networkx

LINK = LinkSpec(bandwidth_bytes_per_s=10e9, latency_ps=1_000)
FOUR = LinkSpec(bandwidth_bytes_per_s=10e9, latency_ps=1_000, count=4)


def broken(spec: object, *links: object, chips: tuple[int, ...] = ()) -> Topology:
    """Return a topology with these faults."""
    return with_faults(spec.build(RoutingSpec()), FaultsSpec(links, chips))


def names(topology: Topology, src: int, dst: int) -> list[str]:
    """Return the names of a route's links."""
    return [topology.link_name(link) for link in topology.route(src, dst).links]


def some_faults(topology: Topology, draw: np.random.Generator) -> FaultsSpec:
    """Return a few faults of a topology, at random: dead edges, edges that lose a link, a dead chip."""
    n_edges = len(topology.link_src) // 2
    edges = draw.choice(n_edges, min(3, n_edges), replace=False) if n_edges else []
    links = []
    for edge in edges:
        name = topology.link_name(2 * int(edge)).replace("→", "-")
        links.append(LinkFault(name, int(draw.integers(1, topology.link_count[2 * edge] + 1))))
    chips = (int(draw.integers(topology.n_chips)),) if topology.n_chips > 2 else ()
    return FaultsSpec(tuple(links), chips)


@pytest.mark.parametrize("row", [row for row in ROWS if row.n_chips <= 64], ids=lambda row: row.name)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.heavy) for seed in (1, 2))])
def test_every_kind_with_faults(row: Row, seed: int) -> None:
    """Routes use live links from end to end, their ways carry all; metrics are those of the graph that is left."""
    whole = row.spec.build(RoutingSpec())
    topology = with_faults(whole, some_faults(whole, np.random.default_rng(seed)))
    graph = to_networkx(topology)
    assert searched_diameter_hops(topology) == diameter_hops(topology)
    pieces = [c for c in nx.strongly_connected_components(graph) if min(c) < topology.n_chips]
    assert sorted(map(len, islands(topology))) == sorted(len([n for n in c if n < topology.n_chips]) for c in pieces)
    pairs = list(itertools.permutations(range(topology.n_chips), 2))[:: 1 + topology.n_chips**2 // 500]
    whole_pairs = [pair for pair in pairs if nx.has_path(graph, *pair)]
    assert (len(whole_pairs) < len(pairs)) <= (n_cut_off_pairs(topology) > 0)
    for src, dst in whole_pairs:
        route, here, arrived = topology.route(src, dst), src, 0.0
        for link, weight in zip(route.links, route.weights, strict=True):
            assert topology.link_src[link] == here
            here = topology.link_dst[link]
            if here == dst:
                here, arrived = src, arrived + weight
        assert here == src
        assert arrived == pytest.approx(1)
    src, dst = np.array(whole_pairs, np.int64).reshape(-1, 2).T
    many = topology.routes(src, dst)
    alone = [topology.route(a, b) for a, b in whole_pairs]
    assert many.links.tolist() == [link for route in alone for link in route.links.tolist()]
    assert many.latency_ps.tolist() == [route.latency_ps for route in alone]
    again = pickle.loads(pickle.dumps(topology))
    assert all(np.array_equal(again.route(*pair).links, topology.route(*pair).links) for pair in whole_pairs[:5])


def test_no_faults_change_nothing() -> None:
    """The very topology comes back, with its closed formulas and its short ways."""
    whole = Mesh((4, 4), LINK).build(RoutingSpec())
    assert with_faults(whole, FaultsSpec()) is whole


def test_only_broken_ways_change() -> None:
    """On a 4x4 mesh without 5-6, 5 reaches 6 round the next row; all others go in dimension order as before."""
    whole = Mesh((4, 4), LINK).build(RoutingSpec())
    topology = with_faults(whole, FaultsSpec(("chip5-chip6",)))
    assert names(topology, 5, 6) == ["chip5→chip1", "chip1→chip2", "chip2→chip6"]
    for pair in itertools.permutations(range(16), 2):
        before = names(whole, *pair)
        if not {"chip5→chip6", "chip6→chip5"} & set(before):
            assert names(topology, *pair) == before


def test_a_dead_chip_has_no_rank() -> None:
    """Ranks number the live chips; names, coordinates and axes are those of the whole grid."""
    topology = broken(Mesh((3, 3), LINK), chips=(4,))
    assert (topology.n_chips, topology.n_links) == (8, 8)
    assert [topology.node_name(rank) for rank in range(8)] == [f"chip{n}" for n in (0, 1, 2, 3, 5, 6, 7, 8)]
    assert (topology.coords(4), topology.rank_of((1, 2))) == ((1, 2), 4)
    assert topology.axis_ranks(1, "x") == (1, 6)
    assert topology.axis_ranks(0, "y") == (0, 1, 2)
    assert names(topology, 3, 4) == ["chip3→chip0", "chip0→chip1", "chip1→chip2", "chip2→chip5"]
    assert hamiltonian_cycle(topology, (0, 1, 2, 4, 7, 6, 5, 3)) == (0, 1, 2, 4, 7, 6, 5, 3)
    with pytest.raises(ConfigError, match=r"chip4, at \(1, 1\), is dead"):
        topology.rank_of((1, 1))


def test_figures_of_what_is_left() -> None:
    """A ring of 8 without a link is a line; a wrapped 4x4 torus without a chip has four links less."""
    line = broken(Torus((8,), LINK), (0, 7))
    assert (diameter_hops(line), bisection_bytes_per_s(line)) == (7, 10e9)
    torus = broken(Torus((4, 4), LINK), chips=(0,))
    assert (torus.n_links, diameter_hops(torus)) == (28, 4)


def test_some_of_the_parallel_links() -> None:
    """An edge of 4 links that loses 1 has 3/4 of the bandwidth, and routes stay."""
    topology = broken(Mesh((2, 2), FOUR), LinkFault("chip0-chip1", 1))
    link = topology.link_between(0, 1)
    assert (topology.link_count[link], topology.link_bandwidth_bytes_per_s[link]) == (3, 30e9)
    assert names(topology, 0, 1) == ["chip0→chip1"]
    assert topology.n_links == 15


def test_switch_planes_share_what_is_left() -> None:
    """Planes of 2 and 4 links: one dead link halves its plane's share, two leave all to the other plane."""
    spec = Switch(3, LINK, planes=(2, 4))
    half = broken(spec, LinkFault("chip0-switch0", 1))
    assert half.route(0, 1).weights == pytest.approx([1 / 5, 1 / 5, 4 / 5, 4 / 5])
    assert half.route(1, 2).weights == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    none = broken(spec, "chip0-switch0")
    assert none.route(0, 1).weights.tolist() == [1, 1]
    assert names(none, 2, 0) == ["chip2→switch1", "switch1→chip0"]


def test_a_dead_switch_is_one_without_links() -> None:
    """It is as if all its links were dead, the other switches keep their names, and it adds nothing any more."""
    spec = Switch(chips=8, link=FOUR, planes=(1, 2, 1), in_network=True)
    whole = spec.build(RoutingSpec())
    dead = with_faults(whole, FaultsSpec(switches=(1,)))
    cut = broken(spec, *(f"chip{chip}-switch1" for chip in range(8)))
    assert (dead.n_switches, dead.n_links) == (3, 2 * 8 * 4)
    assert dead.adding_switches == whole.adding_switches - {1}
    assert names(dead, 0, 1) == names(cut, 0, 1)
    assert "switch1" not in "".join(names(dead, 0, 1))
    assert "switch2" in "".join(names(dead, 0, 1))
    assert bisection_bytes_per_s(dead) == bisection_bytes_per_s(cut) == 4 * 2 * 40e9
    spines = FatTree(chips=16, radix=8, link=LINK).build(RoutingSpec("up_down"))
    leafs = with_faults(spines, FaultsSpec(switches=(0,)))
    assert n_cut_off_pairs(leafs) == 4 * 12 + 6
    spine = with_faults(spines, FaultsSpec(switches=(4,)))
    src, dst = np.array(list(itertools.permutations(range(16), 2))).T
    found = spine.routes(src, dst)
    ends = {spine.node_name(int(node)) for node in spine.link_dst[found.links]}
    assert "switch5" in ends
    assert "switch4" not in ends
    assert n_cut_off_pairs(spine) == 0


def test_pairs_that_are_cut_off_are_named() -> None:
    """A corner without its two links reaches nobody; all others still reach each other."""
    topology = broken(Mesh((2, 3), LINK), (0, 1), (0, 3))
    assert [island.tolist() for island in islands(topology)] == [[0], [1, 2, 3, 4, 5]]
    assert (n_cut_off_pairs(topology), diameter_hops(topology)) == (5, None)
    assert bisection_bytes_per_s(topology) == 20e9, "chips 0, 3 and 4 on one side"
    with pytest.raises(ConfigError, match="no path is left; cut off: chip0 from chip5"):
        topology.route(0, 5)
    src, dst = np.array(list(itertools.permutations(range(6), 2))).T
    with pytest.raises(ConfigError, match=r"chip0 from chip1, chip0 from chip2, .*, … \(10 pairs in all\)"):
        topology.routes(src, dst)


WRONG = [
    ((("chip0-chip5",), ()), "faults.links[0]: no link chip0-chip5; chip0 is linked to chip1, chip3"),
    ((((0, 6),), ()), "faults.links[0]: no chip 6; accepted: chip0 to chip5"),
    ((("switch0-chip1",), ()), "no switch 0; accepted: none, there are no switches here"),
    ((("chip0",), ()), "'chip0' is no link; accepted: two neighbours such as chip0-chip3"),
    ((("a-b",), ()), "'a' is no end of a link; accepted: two neighbours such as chip0-chip3"),
    (((LinkFault("chip0-chip1", 2),), ()), "chip0-chip1: 2 links dead; accepted: 1 to 1, which this edge has"),
    ((((0, 1), "chip1→chip0"), ()), "faults.links[1]: chip1→chip0: is there twice"),
    (((), (1, 6)), "faults.chips[1]: 6; accepted: 0 to 5"),
    (((), tuple(range(6))), "faults.chips: all 6 chips are dead"),
    (((), (1, 1)), "faults.chips[1]: 1 is there twice; accepted: once"),
    (((), (), (0,)), "faults.switches[0]: 0; accepted: none, there are no switches here"),
]


@pytest.mark.parametrize(("faults", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_faults(faults: tuple[tuple[object, ...], tuple[int, ...]], message: str) -> None:
    """A fault of what is not there is named, with what is there."""
    with pytest.raises(ConfigError) as error:
        with_faults(Mesh((2, 3), LINK).build(RoutingSpec()), FaultsSpec(*faults))
    assert message in str(error.value)


def test_all_wrong_faults_at_once() -> None:
    """One message lists them."""
    with pytest.raises(ConfigError) as error:
        with_faults(Mesh((2, 3), LINK).build(RoutingSpec()), FaultsSpec(("x", (0, 5), (0, 1)), (9,)))
    assert len(error.value.problems) == 3


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), n_dead=st.integers(1, 12))
def test_detours_are_shortest_paths_of_what_is_left(seed: int, n_dead: int) -> None:
    """A pair whose way is broken takes the first of all shortest paths of the graph that is left."""
    whole = Mesh((4, 4), LINK).build(RoutingSpec())
    dead = np.random.default_rng(seed).choice(24, n_dead, replace=False)
    topology = with_faults(whole, FaultsSpec(tuple(whole.link_name(2 * int(edge)).replace("→", "-") for edge in dead)))
    graph = to_networkx(topology)
    for src, dst in list(itertools.permutations(range(16), 2))[::7]:
        usual = names(whole, src, dst)
        if not nx.has_path(graph, src, dst):
            with pytest.raises(ConfigError, match=f"chip{src} from chip{dst}"):
                topology.route(src, dst)
        elif {whole.link_name(2 * int(e) + way) for e in dead for way in (0, 1)} & set(usual):
            ends = topology.link_dst[topology.route(src, dst).links].tolist()
            assert [src, *ends] == min(nx.all_shortest_paths(graph, src, dst))
        else:
            assert names(topology, src, dst) == usual
