"""Topologies written for other programs, and read again."""

import io
import json

import networkx as nx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError
from configs.loader import load_system
from configs.spec.faults import FaultsSpec
from configs.spec.system import SystemSpec
from configs.spec.topology import LinkSpec, RoutingSpec
from configs.yaml_source import parse_yaml
from topology import (
    FullyConnected,
    Graph,
    GraphLink,
    Line,
    Mesh,
    Ring,
    Switch,
    Topology,
    Torus,
    build_topology,
)
from topology.export import to_astra_sim, to_node_link_json
from topology.importers import IMPORTERS, Options
from topology.importers.base import Source
from topology.importers.system import system
from topology.networkx_io import to_networkx

LINK = LinkSpec(12.5e9, 711_000, 4)
links = st.builds(
    LinkSpec,
    st.floats(1.0, 1e15, allow_subnormal=False) | st.sampled_from([12.5e9, 1e9 / 3, 45e9]),
    st.integers(0, 10**12),
    st.integers(1, 40),
)
lengths = st.integers(1, 5)
dims = st.lists(lengths, min_size=1, max_size=4).map(tuple)


@st.composite
def tori(draw: st.DrawFn) -> Torus:
    """Return a torus, some of whose axes wrap."""
    shape = draw(dims)
    wrap = tuple(draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape))))
    return Torus(shape, draw(links), wrap=wrap)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Return any graph of a few chips and switches, its links alike or not."""
    n, n_switches = draw(st.integers(1, 6)), draw(st.integers(0, 3))
    nodes = [*range(n), *(f"switch{s}" for s in range(n_switches))]
    pairs = [(a, b) for k, a in enumerate(nodes) for b in nodes[k + 1 :]]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    alike = draw(st.booleans())
    figures = [draw(links)] * len(chosen) if alike else [draw(links) for _ in chosen]
    entries = tuple(
        GraphLink(pair, link.count, link.bandwidth_bytes_per_s, link.latency_ps)
        for pair, link in zip(chosen, figures, strict=True)
    )
    return Graph(n, entries, n_switches)


specs = st.one_of(
    st.builds(Mesh, dims, links), tori(), graphs(),
    st.builds(FullyConnected, st.integers(1, 7), links),
    st.builds(Switch, st.integers(1, 7), links, st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)),
    st.builds(Ring, st.tuples(st.integers(1, 8)), links), st.builds(Line, st.tuples(st.integers(1, 8)), links),
)  # fmt: skip


def imported(form: str, text: str) -> Topology:
    """Return what a text becomes: imported, written as a system file, read and built."""
    found = IMPORTERS[form].read(Source("exported", text.encode()))
    mapping = parse_yaml(system(found, "exported", "a test", Options()).to_yaml(), "system.yaml")
    return build_topology(load_system(mapping, (), VOCABULARY))


def same_links(a: Topology, b: Topology) -> bool:
    """Return whether the same nodes are joined by links of the same figures."""
    return dict(to_networkx(a).adj) == dict(to_networkx(b).adj)


@settings(max_examples=150, deadline=None)
@given(specs)
def test_node_link_json_gives_the_same_topology(spec: object) -> None:
    """Chips, switches, every link's figures and the coordinates come back, to the last bit."""
    topology = spec.build(RoutingSpec())
    again = imported("networkx", to_node_link_json(topology))
    assert (again.n_chips, again.n_switches) == (topology.n_chips, topology.n_switches)
    assert same_links(again, topology)
    if len(topology.link_src):
        assert (again.dims, again.wraps) == (topology.dims, topology.wraps)
        assert again.axes == topology.axes


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.builds(Torus, st.lists(st.integers(2, 5), min_size=1, max_size=4).map(tuple), links),
        st.builds(FullyConnected, st.integers(2, 7), links),
        st.builds(Switch, st.integers(2, 7), links),
    )
)
def test_astra_sim_gives_the_same_topology(spec: object) -> None:
    """Parallel links come back as one of their bandwidth, as the format has no count; all else is the same."""
    topology = spec.build(RoutingSpec())
    again = imported("astra-sim", to_astra_sim(topology))
    before, after = to_networkx(topology).edges, to_networkx(again).edges
    assert set(before) == set(after)
    for edge in before:
        assert after[edge]["latency_ps"] == before[edge]["latency_ps"]
        same = pytest.approx(before[edge]["bandwidth_bytes_per_s"], rel=1e-15)  # a GB/s has its own last bit
        assert after[edge]["bandwidth_bytes_per_s"] == same
    assert again.dims == topology.dims


def test_astra_sim_file_is_yaml_of_four_lists() -> None:
    """An independent YAML reader finds the lists that the simulator's own examples have."""
    text = to_astra_sim(Torus((4, 8), LinkSpec(80e9, 1_000_000)).build(RoutingSpec()))
    assert yaml.safe_load(text) == {
        "topology": ["Ring", "Ring"], "npus_count": [4, 8], "bandwidth": [80, 80], "latency": [1000, 1000],
    }  # fmt: skip


def test_switch_planes_are_one_switch_of_their_bandwidth() -> None:
    """ASTRA-sim has one link to a switch: that of all planes together."""
    text = to_astra_sim(Switch(8, LinkSpec(25e9, 936_250), planes=(5, 4, 4, 5)).build(RoutingSpec()))
    assert yaml.safe_load(text) == {
        "topology": ["Switch"], "npus_count": [8], "bandwidth": [450], "latency": [936.25],
    }  # fmt: skip


REFUSED = [
    (Mesh((4, 4), LINK), "axis x is neither a ring nor fully connected (a line has no word)"),
    (Graph(3, ((0, 1), (1, 2)), link=LINK), "axis chips is neither a ring nor fully connected"),
    (Graph(4, ((0, 3), (1, 2)), link=LINK, dims=(2, 2)), "some edges are not along one of its axes"),
    (Graph(4, ((0, 1), (0, 2)), link=LINK, dims=(2, 2)), "the lines along axis x are not all alike"),
    (Graph(2, (GraphLink((0, 1)), ("switch0", 1)), 1, link=LINK), "switches that not every chip is joined to"),
    (Graph(3, ((0, 1), (1, 2), GraphLink((0, 2), latency_ps=1)), link=LINK), "axis chips differ in bandwidth"),
]


@pytest.mark.parametrize(("spec", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_astra_sim_cannot_say(spec: object, why: str) -> None:
    """The reason is given, and nothing is written that is not the same."""
    with pytest.raises(ConfigError) as error:
        to_astra_sim(spec.build(RoutingSpec()))
    assert "an ASTRA-sim network file cannot say this topology: " in str(error.value)
    assert why in str(error.value)


def test_node_link_json_is_what_networkx_reads() -> None:
    """`networkx.node_link_graph` finds the graph that `to_networkx` makes."""
    topology = Mesh((2, 3), LINK).build(RoutingSpec())
    graph = nx.node_link_graph(json.load(io.StringIO(to_node_link_json(topology))), edges="links")
    assert dict(graph.adj) == dict(to_networkx(topology).adj)


def test_a_topology_with_dead_chips_can_be_exported(dead_mesh: SystemSpec) -> None:
    """Dead chips have no rank, so that what is left has no grid; its links come back."""
    topology = build_topology(dead_mesh)
    again = imported("networkx", to_node_link_json(topology))
    assert again.n_chips == topology.n_chips == 5
    assert again.n_links == topology.n_links


@pytest.fixture
def dead_mesh() -> SystemSpec:
    """Give a mesh of 2 x 3 in which chip 4 is dead."""
    mapping = {"name": "m", "chip": "wormhole-n150", "topology": {"kind": "mesh", "dims": [2, 3], "link": {
        "bandwidth": "12.5GB/s", "latency": "1us"}}, "faults": {"chips": [4]}}  # fmt: skip
    spec = load_system(mapping, (), VOCABULARY)
    assert spec.faults == FaultsSpec(chips=(4,))
    return spec
