"""Composed topologies: files, ways through doors and networks, and that a product of grids is that grid."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import yaml

from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError
from configs.loader import load_system
from configs.spec.topology import LinkSpec, RoutingSpec
from topology import (
    Cable,
    Compose,
    FatTree,
    Graph,
    Line,
    Mesh,
    Ring,
    Switch,
    Topology,
    Torus,
    bisection_bytes_per_s,
    build_topology,
    diameter_hops,
    hamiltonian_cycle,
)

LINK = LinkSpec(bandwidth_bytes_per_s=10e9, latency_ps=1_000)
FAST = LinkSpec(bandwidth_bytes_per_s=100e9, latency_ps=100)
COMPOSED = {
    "chip": "h100-sxm",
    "topology": {
        "kind": "compose",
        "node": "dgx-h100",
        "count": 4,
        "network": {"kind": "switch", "chips": 32, "link": {"bandwidth": "50GB/s", "latency": "1us"}},
    },
}


def built(*args: object, **kwargs: object) -> Topology:
    """Build a composition."""
    return Compose(*args, **kwargs).build(RoutingSpec())


def ways(topology: Topology, src: int, dst: int) -> list[tuple[float, list[str]]]:
    """Return the ways of a route: what each carries, and the names of the nodes after the first."""
    found, here = [], []
    route = topology.route(src, dst)
    for link, weight in zip(route.links.tolist(), route.weights.tolist(), strict=True):
        here.append(topology.node_name(int(topology.link_dst[link])))
        if topology.link_dst[link] == dst:
            found.append((round(weight, 12), here))
            here = []
    return found


def test_a_torus_of_rings_is_the_torus() -> None:
    """Four 4x4 tori whose equal chips form rings have the links, names and routes of the 4x4x4 torus."""
    composed = built(Torus((4, 4), LINK), 4, ("z",), network=Ring((4,), LINK), each_nic=True)
    torus = Torus((4, 4, 4), LINK, axes=("z", "x", "y")).build(RoutingSpec())
    assert (composed.dims, composed.axes, composed.wraps) == (torus.dims, torus.axes, torus.wraps)
    pairs = np.array(list(itertools.permutations(range(64), 2))[::17]).T
    for src, dst in pairs.T.tolist():
        names = [composed.link_name(link) for link in composed.route(src, dst).links]
        assert names == [torus.link_name(link) for link in torus.route(src, dst).links]
    assert hamiltonian_cycle(composed, composed.axis_ranks(5, "z")) == (5, 21, 37, 53)


def test_four_boards_joined_at_their_seams_are_a_torus() -> None:
    """Four 8x4 meshes with cables from the last to the first rows and columns: a 16x8 torus, 256 edges, 12 hops."""
    seams = [
        Cable(((2 * i + j, here), (other, there)))
        for i, j in itertools.product(range(2), repeat=2)
        for here, there, other in (("x=7", "x=0", 2 * (1 - i) + j), ("y=3", "y=0", 2 * i + 1 - j))
    ]
    quad = built(Mesh((8, 4), LINK), (2, 2), ("row", "column"), cables=tuple(seams), link=LINK)
    torus = Torus((16, 8), LINK).build(RoutingSpec())
    assert (quad.dims, quad.axes) == ((2, 2, 8, 4), ("row", "column", "x", "y"))
    at = [torus.rank_of((8 * i + x, 4 * j + y)) for i, j, x, y in itertools.product(*map(range, quad.dims))]
    edges = {frozenset((at[a], at[b])) for a, b in zip(quad.link_src.tolist(), quad.link_dst.tolist(), strict=True)}
    assert edges == {frozenset(ends) for ends in zip(torus.link_src.tolist(), torus.link_dst.tolist(), strict=True)}
    assert diameter_hops(quad) == 12


def test_two_boards_of_switches() -> None:
    """DGX-2: between boards a transfer goes over all six planes, each over its own eight links."""
    eight = LinkSpec(10e9, 1_000, count=8)
    dgx_2 = built(Switch(8, LINK, (1,) * 6), 2, network=Line((2,), eight), nics="switches", each_nic=True)
    assert ways(dgx_2, 0, 9) == [(round(1 / 6, 12), [f"switch{p}", f"switch{6 + p}", "chip9"]) for p in range(6)]
    assert ways(dgx_2, 8, 9)[1] == (round(1 / 6, 12), ["switch7", "chip9"])
    assert bisection_bytes_per_s(dgx_2) == 48 * 10e9


def test_planes_of_unequal_width_share_by_their_links() -> None:
    """Over switches with 1 and 3 links to a chip a quarter and three quarters of a transfer leave the board."""
    pair = built(Switch(2, LINK, (1, 3)), 2, network=Line((2,), FAST), nics="switches", each_nic=True)
    assert ways(pair, 0, 3) == [(0.25, ["switch0", "switch2", "chip3"]), (0.75, ["switch1", "switch3", "chip3"])]


def test_rails() -> None:
    """Below rail leaves equal chips of two nodes are two links apart, others four; inside a node nothing leaves."""
    pod = built(Switch(4, FAST), 4, network=FatTree(16, 8, LINK, rails=4))
    assert ways(pod, 1, 13) == [(1.0, ["switch5", "chip13"])]
    assert len(ways(pod, 1, 12)[0][1]) == 4
    assert ways(pod, 1, 2) == [(1.0, ["switch0", "chip2"])]
    assert pod.axis_ranks(6, "node") == (2, 6, 10, 14)
    assert pod.axis_ranks(6, "chips") == (4, 5, 6, 7)


def test_a_board_of_one_gateway() -> None:
    """Chips without a NIC go to the nearest one that has, by the node's own routing."""
    pair = built(Line((3,), LINK), 2, network=Switch(2, LINK), nics=("chip1",))
    assert ways(pair, 0, 5) == [(1.0, ["chip1", "switch0", "chip4", "chip5"])]


def test_two_gateways_share_where_they_are_equally_near() -> None:
    """The middle chip of three sends half over each end; NIC k goes to NIC k."""
    pair = built(Line((3,), LINK), 2, network=Switch(4, LINK), nics=(0, 2))
    assert ways(pair, 1, 4) == [
        (0.5, ["chip0", "switch0", "chip3", "chip4"]),
        (0.5, ["chip2", "switch0", "chip5", "chip4"]),
    ]
    assert ways(pair, 0, 5) == [(1.0, ["switch0", "chip5"])]


def test_several_nics_of_a_chip() -> None:
    """A chip of two NICs is joined to both planes, and sends half over each."""
    pair = built(Mesh((1,), LINK), 2, network=FatTree(4, 4, LINK, rails=2), nics=2)
    assert ways(pair, 0, 1) == [(0.5, ["switch0", "chip1"]), (0.5, ["switch1", "chip1"])]


def test_nics_of_their_own() -> None:
    """With a nic_link the NIC is a switch between its chips and the network."""
    pair = built(Switch(4, FAST), 2, network=Switch(4, LINK), nics=((0, 1), (2, 3)), nic_link=FAST)
    assert ways(pair, 1, 6) == [(1.0, ["switch1", "switch6", "switch5", "chip6"])]
    assert ways(pair, 0, 1) == [(1.0, ["switch0", "chip1"])]
    assert pair.route(1, 6).latency_ps == 2 * 100 + 2 * 1_000


def test_every_nic_number_its_own_network_and_then_inside() -> None:
    """Chip 0 reaches chip 3 of the other board over its own ring, then over both planes of that board."""
    pair = built(Switch(4, FAST, (1, 1)), 2, network=Line((2,), LINK), each_nic=True)
    assert ways(pair, 0, 7) == [(0.5, ["chip4", "switch2", "chip7"]), (0.5, ["chip4", "switch3", "chip7"])]


def test_boards_without_links_inside() -> None:
    """Cards that only the network joins reach each other through it, also on one board."""
    board = Compose(Mesh((1,), LINK), 2)
    assert ways(built(board, 2, ("rack",), network=Switch(4, LINK)), 0, 1) == [(1.0, ["switch0", "chip1"])]


def test_nics_that_the_network_does_not_join() -> None:
    """Cables join what the network does not; where nothing does, the chips are named as the whole names them."""
    network = Graph(chips=3, links=((0, 1),), link=LINK)
    cables = (Cable(between=((1, 1), (2, 1)), link=FAST),)
    args = {"node": Ring(dims=(3,), link=LINK), "count": 3, "nics": (0,), "network": network}
    assert ways(built(**args, cables=cables), 0, 6) == [(1.0, ["chip3", "chip4", "chip7", "chip6"])]
    with pytest.raises(ConfigError, match="no path from chip1 to chip8"):
        built(**args).route(1, 8)


@pytest.mark.filterwarnings("error")
def test_a_network_of_one_node() -> None:
    """It has no links, and nothing needs one."""
    alone = Compose(node=Ring(dims=(4,), link=LINK), count=1, each_nic=True, network=Ring(dims=(1,), link=LINK))
    assert diameter_hops(alone.build(RoutingSpec())) == 2


@pytest.mark.parametrize("kind", ["shortest", "ecmp"])
def test_other_routings_are_for_the_whole(kind: str) -> None:
    """The shortest path may leave a node where the network is shorter."""
    spec = Compose(Line((4,), LINK), 2, network=Switch(8, LINK))
    assert ways(spec.build(RoutingSpec()), 0, 3) == [(1.0, ["chip1", "chip2", "chip3"])]
    assert ways(spec.build(RoutingSpec(kind=kind)), 0, 3) == [(1.0, ["switch0", "chip3"])]


def test_a_superpod_of_4096() -> None:
    """512 nodes of 8 on a rail-optimised fat tree: routes by arrays, and the full bisection of its NICs."""
    ib = LinkSpec(50e9, 1_000)
    pod = built(Switch(8, FAST), 512, network=FatTree(4096, 64, ib, tiers=3, rails=8))
    assert (pod.n_chips, bisection_bytes_per_s(pod), diameter_hops(pod)) == (4096, 2048 * 50e9, 6)
    src, dst = np.arange(4096), (np.arange(4096) * 5 + 9) % 4096
    src, dst = src[src != dst], dst[src != dst]
    routes = pod.routes(src, dst)
    assert (pod.link_dst[routes.links[routes.start[1:] - 1]] == dst).all()
    assert (pod.link_src[routes.links[routes.start[:-1]]] == src).all()


def test_a_node_by_the_name_of_a_system(tmp_path) -> None:
    """`node` takes a system with its routing; --set reaches into it; its own parts may be systems too."""
    topology = build_topology(load_system(COMPOSED, [], VOCABULARY))
    assert (topology.n_chips, topology.n_switches) == (32, 17)
    faster = load_system(COMPOSED, ["topology.node.topology.link.bandwidth=50GB/s"], VOCABULARY)
    assert build_topology(faster).link_bandwidth_bytes_per_s[0] == 2 * topology.link_bandwidth_bytes_per_s[0]
    pod = tmp_path / "pod.yaml"
    pod.write_text(yaml.safe_dump(COMPOSED))
    hall = {"chip": "h100-sxm", "topology": {"kind": "compose", "parts": [{"node": str(pod)}]}}
    assert build_topology(load_system(hall, [], VOCABULARY)).n_chips == 32


WRONG = [
    ("topology.node=dgx-h101", "did you mean 'dgx-h100'?"),
    ("topology.node=3", "topology.node: 3 is not a topology; accepted: a mapping with the key kind"),
    ("topology.node={kind: foo}", "topology.node.kind: 'foo' is not a topology kind"),
    ("topology.node.faults.chips=[1]", "node: system dgx-h100 has faults; accepted: faults of the composed system"),
    ("topology.network.chips=31", "network: has 31 end points; accepted: 32, the NICs of all 4 nodes"),
    ("topology.cables=[{between: [0, 1]}]", "topology.cables[0].between"),
    ("topology.nics={a: 1}", "topology.nics: {'a': 1} is not one of these; accepted: an integer or text"),
    ("topology.parts=[{nod: dgx-h100}]", "topology.parts[0].nod: unknown key; accepted: node, count"),
    ("topology.parts=[1]", "topology.parts[0]: 1 is not a mapping"),
    ("topology.network_routing.kind=valiant", "'valiant' does not fit"),
]


@pytest.mark.parametrize(("override", "message"), WRONG)
def test_wrong_files(override: str, message: str) -> None:
    """What is wrong in a composed topology is named by its place."""
    with pytest.raises(ConfigError) as error:
        load_system(COMPOSED, [override], VOCABULARY)
    assert message in str(error.value)


def test_a_system_in_itself(tmp_path) -> None:
    """A cycle of nodes is refused."""
    path = tmp_path / "loop.yaml"
    path.write_text("chip: h100-sxm\ntopology: {kind: compose, parts: [{node: ./loop.yaml}]}\n")
    with pytest.raises(ConfigError, match="a cycle: "):
        load_system(path, [], VOCABULARY)
