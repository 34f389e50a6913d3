"""Routes: dimension order and its ties, planes, shortest paths, and the cache."""

import itertools
import math
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.spec.topology import LinkSpec, RoutingSpec
from topology import FullyConnected, Mesh, Ring, Switch, Topology, Torus, graph
from topology.networkx_io import from_networkx

LINK = LinkSpec(bandwidth_bytes_per_s=10e9, latency_ps=1_000)
Ends = list[tuple[int, int]]


def ends(topology: Topology, src: int, dst: int) -> Ends:
    """Return the nodes at both ends of each link of a route."""
    links = topology.route(src, dst).links
    return list(zip(topology.link_src[links].tolist(), topology.link_dst[links].tolist(), strict=True))


def step_by_step(topology: Topology, ties: str, src: int, dst: int) -> Ends:
    """Walk in dimension order, one step at a time (the slow reference)."""
    here, goal, steps = list(topology.coords(src)), topology.coords(dst), []
    for k, length in enumerate(topology.dims):
        up = (goal[k] - here[k]) % length
        if not topology.wraps[k]:
            direction = 1 if goal[k] > here[k] else -1
        elif 2 * up == length:
            direction = 1 if ties == "positive" or here[k] % 2 == 0 else -1
        else:
            direction = 1 if 2 * up < length else -1
        while here[k] != goal[k]:
            rank = topology.rank_of(tuple(here))
            here[k] = (here[k] + direction) % length
            steps.append((rank, topology.rank_of(tuple(here))))
    return steps


@st.composite
def tori(draw: st.DrawFn) -> tuple[Topology, str]:
    """Draw a grid of up to four axes, each wrapped or not, and its ties."""
    dims = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4).filter(lambda d: math.prod(d) < 400)))
    wrap = tuple(draw(st.lists(st.booleans(), min_size=len(dims), max_size=len(dims))))
    ties = draw(st.sampled_from(["positive", "alternate"]))
    return Torus(dims, LINK, wrap=wrap).build(RoutingSpec(ties=ties)), ties


@given(torus=tori(), data=st.data())
def test_dimension_order_is_the_slow_walk(torus: tuple[Topology, str], data: st.DataObject) -> None:
    """The arithmetic gives the links of a walk step by step."""
    topology, ties = torus
    src, dst = (data.draw(st.integers(0, topology.n_chips - 1)) for _ in range(2))
    if src != dst:
        assert ends(topology, src, dst) == step_by_step(topology, ties, src, dst)
        assert topology.route(src, dst).latency_ps == 1_000 * len(ends(topology, src, dst))


@given(torus=tori())
def test_shortest_path_is_as_short_as_dimension_order(torus: tuple[Topology, str]) -> None:
    """The diameter by formula is the longest route of either routing, from chip 0 or any other."""
    topology, _ = torus
    tree = topology.search_tree(0)
    assert (tree[1:] >= 0).all()
    for dst in range(1, min(topology.n_chips, 50)):
        assert len(topology.route(0, dst).links) <= topology.known_diameter_hops


TIES = [
    ("positive", 0, [(0, 1), (1, 2)]),
    ("positive", 1, [(1, 2), (2, 3)]),
    ("positive", 3, [(3, 0), (0, 1)]),
    ("alternate", 0, [(0, 1), (1, 2)]),
    ("alternate", 1, [(1, 0), (0, 3)]),
    ("alternate", 2, [(2, 3), (3, 0)]),
    ("alternate", 3, [(3, 2), (2, 1)]),
]


@pytest.mark.parametrize(("ties", "src", "expected"), TIES)
def test_ties_half_way_round_a_ring(ties: str, src: int, expected: Ends) -> None:
    """Half way round a ring of 4: always up, or up from even and down from odd chips."""
    ring = Ring((4,), LINK).build(RoutingSpec(ties=ties))
    assert ends(ring, src, (src + 2) % 4) == expected


def test_tie_looks_at_the_coordinate_of_its_own_axis() -> None:
    """On the second axis the parity is that of the second coordinate."""
    torus = Torus((4, 4), LINK).build(RoutingSpec(ties="alternate"))
    src, dst = torus.rank_of((1, 0)), torus.rank_of((3, 2))
    assert [torus.coords(chip) for _, chip in ends(torus, src, dst)] == [(0, 0), (3, 0), (3, 1), (3, 2)]


def test_positive_ties_load_a_torus_unevenly_and_alternate_evenly() -> None:
    """All-to-all on a 4x4 torus: 12 transfers per link up and 4 down, or 8 on each."""
    for ties, expected in (("positive", {12, 4}), ("alternate", {8})):
        torus = Torus((4, 4), LINK).build(RoutingSpec(ties=ties))
        routes = [torus.route(src, dst).links for src, dst in itertools.permutations(range(16), 2)]
        assert set(np.bincount(np.concatenate(routes)).tolist()) == expected


def test_first_listed_axis_goes_first() -> None:
    """On a 2x3 mesh chip 0 reaches chip 5 through chip 3."""
    assert ends(Mesh((2, 3), LINK).build(RoutingSpec()), 0, 5) == [(0, 3), (3, 4), (4, 5)]


def test_switch_planes_carry_their_share() -> None:
    """A transfer puts links_p / 18 of its bytes on the up-link and the down-link of plane p."""
    dgx = Switch(8, LINK, planes=(5, 4, 4, 5)).build(RoutingSpec())
    route = dgx.route(2, 6)
    names = [dgx.link_name(link) for link in route.links]
    assert names == [f"chip2→switch{p}" if up else f"switch{p}→chip6" for p in range(4) for up in (1, 0)]
    assert route.weights * 18 == pytest.approx([5, 5, 4, 4, 4, 4, 5, 5])
    assert route.latency_ps == 2_000
    # every plane takes the same time, so that a pair can use all of its 18 links
    seconds = route.weights / dgx.link_bandwidth_bytes_per_s[route.links]
    assert seconds == pytest.approx([1 / 180e9] * 8)


def test_shortest_path_behind_switches_is_plane_0() -> None:
    """A path is never split: asked for the shortest one, a transfer takes the first plane."""
    dgx = Switch(8, LINK, planes=(5, 4)).build(RoutingSpec(kind="shortest"))
    assert [dgx.link_name(link) for link in dgx.route(2, 6).links] == ["chip2→switch0", "switch0→chip6"]


def test_direct_link_whatever_the_routing() -> None:
    """Where all chips are joined a route is one link."""
    for kind in ("dimension_order", "shortest"):
        topology = FullyConnected(5, LINK).build(RoutingSpec(kind=kind))
        assert all(ends(topology, *pair) == [pair] for pair in itertools.permutations(range(5), 2))


@given(n_chips=st.integers(2, 12), seed=st.integers(0, 1000))
def test_shortest_path_is_the_first_of_all(n_chips: int, seed: int) -> None:
    """Of all shortest paths that networkx lists, the route is the first in lexicographic order."""
    random = nx.gnp_random_graph(n_chips, 0.4, seed=seed)
    topology = from_networkx(random, LINK)
    for src, dst in itertools.permutations(range(n_chips), 2):
        if not nx.has_path(random, src, dst):
            with pytest.raises(ConfigError, match=f"no path from chip{src} to chip{dst}"):
                topology.route(src, dst)
            continue
        nodes = [src] + [node for _, node in ends(topology, src, dst)]
        assert nodes == min(nx.all_shortest_paths(random, src, dst))


def test_routes_are_cached_and_read_only() -> None:
    """The same pair gives the same object, which nobody can change."""
    ring = Ring((4,), LINK).build(RoutingSpec())
    route = ring.route(0, 2)
    assert ring.route(0, 2) is route
    with pytest.raises(ValueError, match="read-only"):
        route.links[0] = 3
    with pytest.raises(ValueError, match="read-only"):
        ring.link_src[0] = 3


def test_cache_starts_afresh_when_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache never holds more than its limit, and forgetting changes no route."""
    monkeypatch.setattr(graph, "ROUTE_MEMO_SIZE", 5)
    monkeypatch.setattr(graph, "TREE_MEMO_NODES", 20)
    ring = Ring((8,), LINK).build(RoutingSpec(kind="shortest"))
    other = Ring((8,), LINK).build(RoutingSpec(kind="shortest"))
    for src, dst in itertools.permutations(range(8), 2):
        assert np.array_equal(ring.route(src, dst).links, other.route(src, dst).links)
        assert len(ring._routes) <= 5
        assert len(ring._trees) <= 2


@pytest.mark.parametrize(
    ("src", "dst", "message"),
    [
        (-1, 0, "no chip -1; the chips are 0…3"),
        (0, 4, "no chip 4; the chips are 0…3"),
        (2, 2, "chip2 needs no route to itself"),
    ],
)
def test_wrong_ranks(src: int, dst: int, message: str) -> None:
    """A rank that does not exist is named, also where a switch has that node number."""
    with pytest.raises(ConfigError, match=message):
        Switch(4, LINK).build(RoutingSpec()).route(src, dst)


def test_wrong_coordinates_axes_and_links() -> None:
    """Each look-up names what was asked for and what exists."""
    mesh = Mesh((4, 2), LINK).build(RoutingSpec())
    for coords in ((4, 0), (-1, 0), (0,), (0, 0, 0)):
        with pytest.raises(ConfigError, match="outside of dims"):
            mesh.rank_of(coords)
    with pytest.raises(ConfigError, match="no axis 'z'; the axes are x, y"):
        mesh.axis_ranks(0, "z")
    with pytest.raises(ConfigError, match="no link chip0→chip7"):
        mesh.link_between(0, 7)
    with pytest.raises(ConfigError, match="no chip 8"):
        mesh.coords(8)


def test_wrap_of_two_has_no_second_edge() -> None:
    """A wrapped axis of 2 or 1 does not count as wrapped."""
    torus = Torus((2, 1, 4), LINK).build(RoutingSpec())
    assert torus.wraps == (False, False, True)
    assert torus.n_links == 4 + 8
    assert ends(torus, 0, 4) == [(0, 4)]
    assert ends(torus, 4, 0) == [(4, 0)]


def test_hundred_thousand_chips_route_without_search() -> None:
    """A torus of 102,400 chips builds at once and routes without a search tree."""
    torus = Torus((64, 64, 25), LINK).build(RoutingSpec())
    assert torus.n_links == 3 * 102_400
    assert len(torus.route(0, torus.rank_of((32, 32, 12))).links) == torus.known_diameter_hops == 76
    assert not torus._trees


def test_importing_topology_leaves_networkx_alone() -> None:
    """Workers import `topology`; networkx is slow to import."""
    code = "import sys, topology; sys.exit('networkx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
