"""Graphs from networkx."""

import networkx as nx
import pytest

from configs.errors import ConfigError
from configs.spec.topology import LinkSpec, RoutingSpec
from topology import FullyConnected, Ring, Switch
from topology.networkx_io import from_networkx, to_networkx

LINK = LinkSpec(bandwidth_bytes_per_s=10e9, latency_ps=1_000, count=2)


def test_generators_are_the_oracle() -> None:
    """Rings, complete graphs and switches are isomorphic to those of networkx."""
    ring = to_networkx(Ring((7,), LINK).build(RoutingSpec())).to_undirected()
    complete = to_networkx(FullyConnected(6, LINK).build(RoutingSpec())).to_undirected()
    planes = to_networkx(Switch(8, LINK, planes=(5, 4, 4, 5)).build(RoutingSpec())).to_undirected()
    assert nx.is_isomorphic(ring, nx.cycle_graph(7))
    assert nx.is_isomorphic(complete, nx.complete_graph(6))
    assert nx.is_isomorphic(planes, nx.complete_bipartite_graph(8, 4))


def test_nodes_of_any_name_are_numbered_in_order() -> None:
    """Chips come first, then switches, each in the order of the graph; names need not sort."""
    graph = nx.Graph()
    graph.add_node("leaf", kind="switch")
    graph.add_edge("b", "leaf")
    graph.add_edge(("a", 1), "leaf")
    topology = from_networkx(graph, LINK)
    assert (topology.n_chips, topology.n_switches, topology.kind) == (2, 1, "graph")
    assert [topology.link_name(link) for link in topology.route(0, 1).links] == [
        "chip0→switch0",
        "switch0→chip1",
    ]


def test_own_figures_come_before_the_default_link() -> None:
    """An edge with attributes keeps them."""
    graph = nx.Graph()
    graph.add_edge(0, 1, bandwidth_bytes_per_s=5e9, latency_ps=7)
    graph.add_edge(1, 2)
    topology = from_networkx(graph, LINK)
    assert topology.link_bandwidth_bytes_per_s.tolist() == [5e9, 5e9, 20e9, 20e9]
    assert topology.link_latency_ps.tolist() == [7, 7, 1_000, 1_000]
    assert topology.link_count.tolist() == [1, 1, 2, 2]
    assert topology.route(0, 2).latency_ps == 1_007


@pytest.mark.parametrize("kind", [nx.MultiGraph, nx.MultiDiGraph])
def test_parallel_edges_become_one_pipe(kind: type[nx.MultiGraph]) -> None:
    """Parallel links sum up to one edge of more lanes."""
    graph = kind([(0, 1), (0, 1), (1, 2)])
    if graph.is_directed():
        graph.add_edges_from([(1, 0), (1, 0), (2, 1)])
    topology = from_networkx(graph, LINK)
    assert topology.link_count.tolist() == [4, 4, 2, 2]
    assert topology.link_bandwidth_bytes_per_s.tolist() == [40e9, 40e9, 20e9, 20e9]


def one_edge(**data: float) -> nx.Graph:
    """Return a graph of two chips and one edge with these attributes."""
    graph = nx.Graph()
    graph.add_edge("a", "b", **data)
    return graph


WRONG = [
    (nx.Graph(), "at least one chip"),
    (one_edge(), "edge 'a'-'b': needs bandwidth_bytes_per_s above 0"),
    (one_edge(bandwidth_bytes_per_s=0, latency_ps=1), "edge 'a'-'b': needs bandwidth_bytes_per_s above 0"),
    (one_edge(bandwidth_bytes_per_s=1e9, latency_ps=-1), "latency_ps of at least 0"),
    (one_edge(bandwidth_bytes_per_s=1e9), "edge 'a'-'b': needs bandwidth_bytes_per_s above 0"),
    (one_edge(bandwidth_bytes_per_s=1e9, latency_ps=1, count=0), "count of at least 1"),
    (nx.Graph([(0, 0)]), "edge 0-0: a node cannot be linked to itself"),
    (nx.DiGraph([(0, 1)]), "edge 0-1: needs"),
    (nx.Graph(dims=(2, 2)), "at least one chip"),
]


@pytest.mark.parametrize(("graph", "message"), WRONG)
def test_wrong_graphs(graph: nx.Graph, message: str) -> None:
    """Each problem names the edge."""
    with pytest.raises(ConfigError, match=message):
        from_networkx(graph)


def test_links_must_be_alike_both_ways() -> None:
    """A one-way link, or one that is slower one way, is not an edge."""
    with pytest.raises(ConfigError, match="edge 0-1: the link back is missing or differs"):
        from_networkx(nx.DiGraph([(0, 1)]), LINK)
    graph = nx.DiGraph([(0, 1)])
    graph.add_edge(1, 0, bandwidth_bytes_per_s=1e9, latency_ps=1)
    with pytest.raises(ConfigError, match="the link back is missing or differs"):
        from_networkx(graph, LINK)


def test_parallel_links_must_be_equally_long() -> None:
    """Lanes of different latency are not one pipe."""
    graph = nx.MultiGraph([(0, 1)])
    graph.add_edge(0, 1, bandwidth_bytes_per_s=1e9, latency_ps=1)
    with pytest.raises(ConfigError, match="parallel links must have the same latency_ps"):
        from_networkx(graph, LINK)


def test_coordinates_must_fit() -> None:
    """Dims, axes and wraps come together and number the chips."""
    for attributes in (
        {"dims": (4,)},
        {"dims": (5,), "axes": ("x",), "wraps": (True,)},
        {"dims": (2, 2), "axes": ("x",), "wraps": (True, True)},
    ):
        graph = nx.cycle_graph(4)
        graph.graph.update(attributes)
        with pytest.raises(ConfigError, match="do not fit 4 chips"):
            from_networkx(graph, LINK)
