"""Rings of neighbours."""

import itertools
import math

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.spec.topology import LinkSpec, RoutingSpec
from topology import FullyConnected, Line, Mesh, Ring, Switch, Topology, Torus, hamiltonian_cycle
from topology.networkx_io import from_networkx
from topology.rings import is_ring

LINK = LinkSpec(bandwidth_bytes_per_s=10e9, latency_ps=1_000)


def build(spec: Mesh | Torus | Line | Ring | Switch | FullyConnected) -> Topology:
    """Build with the default routing."""
    return spec.build(RoutingSpec())


def assert_ring(topology: Topology, ranks: list[int]) -> None:
    """Check that a ring of exactly these ranks is found and that each step is one link."""
    ring = hamiltonian_cycle(topology, ranks)
    assert ring is not None
    assert sorted(ring) == sorted(ranks)
    assert ring[0] == ranks[0]
    assert all(len(topology.route(a, b).links) == 1 for a, b in zip(ring, ring[1:] + ring[:1], strict=True))


def test_mesh_snake() -> None:
    """The way back is the first column."""
    ring = hamiltonian_cycle(build(Mesh((4, 3), LINK)), range(12))
    assert ring == (0, 1, 2, 5, 4, 7, 8, 11, 10, 9, 6, 3)


@given(
    grid=st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=4).filter(
        lambda grid: 3 <= math.prod(length for length, _ in grid) <= 300
    )
)
def test_grids_have_a_ring_exactly_where_one_exists(grid: list[tuple[int, bool]]) -> None:
    """A grid has a ring if an axis is wrapped, or if it has two axes and an even number of chips."""
    dims, wrap = zip(*grid, strict=True)
    torus = build(Torus(dims, LINK, wrap=wrap))
    two_axes = sum(length > 1 for length in dims) > 1
    ranks = list(range(torus.n_chips))
    if any(torus.wraps) or (two_axes and torus.n_chips % 2 == 0):
        assert_ring(torus, ranks)
    else:
        assert hamiltonian_cycle(torus, ranks) is None


@pytest.mark.parametrize("dims", [(3, 3), (3, 1, 3), (2, 1), (2, 2), (5,), (2, 3)])
def test_small_meshes_against_all_orders(dims: tuple[int, ...]) -> None:
    """None is said only where no order at all is a ring."""
    mesh = build(Mesh(dims, LINK))
    orders = itertools.permutations(range(1, mesh.n_chips))
    exists = any(is_ring(mesh, (0, *order)) for order in orders)
    assert (hamiltonian_cycle(mesh, range(mesh.n_chips)) is not None) == exists


def test_blocks_of_a_mesh() -> None:
    """A part of the grid that fills a block has its own ring; its order may be given in any way."""
    mesh = build(Mesh((8, 4), LINK))
    assert_ring(mesh, [mesh.rank_of((x, y)) for x in (3, 4, 5) for y in (1, 2)])
    assert_ring(mesh, [mesh.rank_of((x, y)) for y in (3, 0, 2, 1) for x in (7, 6)])
    assert hamiltonian_cycle(mesh, mesh.axis_ranks(0, "x")) is None
    assert hamiltonian_cycle(mesh, [0, 2, 8, 10]) is None
    assert hamiltonian_cycle(mesh, [0, 1, 2, 3, 4]) is None


def test_lines_of_a_torus() -> None:
    """A whole wrapped axis is a ring in the order of its coordinate; a part of it is not."""
    torus = build(Torus((8, 4), LINK, wrap=(True, False)))
    line = torus.axis_ranks(1, "x")
    assert hamiltonian_cycle(torus, line) == line
    assert_ring(torus, [line[k] for k in (3, 0, 1, 7, 2, 4, 6, 5)])
    assert hamiltonian_cycle(torus, line[:4]) is None
    assert hamiltonian_cycle(torus, torus.axis_ranks(1, "y")) is None


def test_line_has_no_ring_but_for_two_chips() -> None:
    """Two neighbours are next to each other both ways."""
    line = build(Line((5,), LINK))
    assert hamiltonian_cycle(line, range(5)) is None
    assert hamiltonian_cycle(line, [2, 1]) == (2, 1)
    assert hamiltonian_cycle(line, [2, 4]) is None
    assert hamiltonian_cycle(line, [3]) == (3,)


def test_switches_and_complete_graphs_keep_the_order() -> None:
    """Where all chips are neighbours, the order given is a ring."""
    order = (4, 1, 3, 0)
    assert hamiltonian_cycle(build(Switch(5, LINK, planes=(2, 1))), order) == order
    assert hamiltonian_cycle(build(FullyConnected(5, LINK)), order) == order


def test_repeated_ranks_are_no_ring() -> None:
    """Each chip stands in a ring once."""
    assert hamiltonian_cycle(build(FullyConnected(5, LINK)), (0, 1, 0, 1)) is None


def test_claimed_grid_is_checked_against_the_links() -> None:
    """A graph that calls itself a 2x2 grid but misses an edge has no ring."""
    graph = nx.path_graph(4)
    graph.graph.update(dims=(2, 2), axes=("x", "y"), wraps=(False, False))
    assert hamiltonian_cycle(from_networkx(graph, LINK), range(4)) is None
