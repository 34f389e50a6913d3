"""Diameter and bisection: closed formulas against search and against networkx."""

import math

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.spec.topology import LinkSpec, RoutingSpec
from tests.topology.halves import bisection_of_all_halves
from topology import Torus, bisection_bytes_per_s, diameter_hops, metrics
from topology.bisection import searched_bisection_bytes_per_s
from topology.metrics import searched_diameter_hops
from topology.networkx_io import from_networkx, to_networkx

UNIT = LinkSpec(bandwidth_bytes_per_s=1, latency_ps=0)
GRIDS = st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=4)


@given(grid=GRIDS.filter(lambda grid: math.prod(length for length, _ in grid) <= 12))
def test_grid_bisection_is_the_least_of_all_halves(grid: list[tuple[int, bool]]) -> None:
    """The formula for grids, also with odd sides and some axes wrapped, is what trying all halves finds."""
    dims, wrap = zip(*grid, strict=True)
    torus = Torus(dims, UNIT, wrap=wrap).build(RoutingSpec())
    assert torus.known_bisection_bytes_per_s == searched_bisection_bytes_per_s(torus)
    assert torus.known_bisection_bytes_per_s == bisection_of_all_halves(torus)


@given(n_chips=st.integers(1, 9), n_switches=st.integers(0, 3), edges=st.integers(0, 30), seed=st.integers(0, 1000))
def test_searched_bisection_is_the_least_of_all_halves(n_chips: int, n_switches: int, edges: int, seed: int) -> None:
    """On random graphs of chips and switches, also with several islands and links of different bandwidth."""
    random = nx.gnm_random_graph(n_chips + n_switches, edges, seed=seed)
    nx.set_node_attributes(random, {n: "switch" if n >= n_chips else "chip" for n in random}, "kind")
    figures = {e: {"bandwidth_bytes_per_s": 1 + (sum(e) * seed) % 5, "latency_ps": 0} for e in random.edges}
    nx.set_edge_attributes(random, figures)
    topology = from_networkx(random, UNIT)
    assert searched_bisection_bytes_per_s(topology) == bisection_of_all_halves(topology)


@given(grid=GRIDS.filter(lambda grid: math.prod(length for length, _ in grid) <= 200))
def test_grid_figures_are_those_of_networkx(grid: list[tuple[int, bool]]) -> None:
    """Edges and diameter are those of networkx's grid graph."""
    dims, wrap = zip(*grid, strict=True)
    torus = Torus(dims, UNIT, wrap=wrap).build(RoutingSpec())
    lattice = nx.grid_graph(dims[::-1], periodic=torus.wraps[::-1])
    assert torus.n_links == lattice.number_of_edges()
    assert torus.known_diameter_hops == nx.diameter(lattice)
    chips = {torus.coords(rank) if len(dims) > 1 else rank: rank for rank in range(torus.n_chips)}
    assert nx.utils.graphs_equal(nx.relabel_nodes(lattice, chips), nx.Graph(plain(torus)))


def plain(torus: object) -> list[tuple[int, int]]:
    """Return the edges of a topology, or one node without any."""
    return nx.empty_graph(1) if torus.n_chips == 1 else list(to_networkx(torus).edges)


@given(n_chips=st.integers(2, 40), degree=st.integers(1, 4), seed=st.integers(0, 100))
def test_searched_diameter_is_that_of_networkx(n_chips: int, degree: int, seed: int) -> None:
    """On random graphs, in blocks of sources, the search finds networkx's diameter or that there is none."""
    random = nx.gnm_random_graph(n_chips, n_chips * degree // 2, seed=seed)
    topology = from_networkx(random, UNIT)
    expected = nx.diameter(random) if nx.is_connected(random) else None
    assert diameter_hops(topology) == expected


def test_search_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """More chips than a block holds are searched in several."""
    monkeypatch.setattr(metrics, "SEARCH_BLOCK_CHIPS", 64)
    assert searched_diameter_hops(Torus((10, 20), UNIT).build(RoutingSpec())) == 15


def test_distance_to_switches_does_not_count() -> None:
    """The diameter is between chips: switches at the rim add nothing, one between chips adds its links."""
    graph = nx.path_graph(5)
    nx.set_node_attributes(graph, {0: "switch", 2: "switch", 4: "switch"}, "kind")
    assert diameter_hops(from_networkx(graph, UNIT)) == 2


def test_bisection_puts_switches_on_the_better_side() -> None:
    """Two leaf switches of 3 chips each, joined by one edge: only that edge is cut."""
    graph = nx.Graph([("a", 0), ("a", 1), ("a", 2), ("a", "b"), ("b", 3), ("b", 4), ("b", 5)])
    nx.set_node_attributes(graph, {"a": "switch", "b": "switch"}, "kind")
    assert bisection_bytes_per_s(from_networkx(graph, UNIT)) == 1


def test_bisection_of_a_wide_graph_is_unknown() -> None:
    """A long ring is narrow, however many halves it has; for a wide graph there is no figure without a formula."""
    assert bisection_bytes_per_s(from_networkx(nx.cycle_graph(101), UNIT)) == 2
    assert bisection_bytes_per_s(from_networkx(nx.complete_graph(60), UNIT)) is None
    assert bisection_bytes_per_s(from_networkx(nx.star_graph(3000), UNIT)) is None


def test_bisection_of_tpu_v5e() -> None:
    """A pod of 16x16 chips with 50 GB/s links has 1.6 TB/s, as its vendor says."""
    pod = Torus((16, 16), LinkSpec(50e9, 1_000_000)).build(RoutingSpec())
    assert bisection_bytes_per_s(pod) == 1.6e12
