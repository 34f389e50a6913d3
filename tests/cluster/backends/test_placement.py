"""Where actors go: groups stay together, shares follow cores, memory is a limit, and what does not fit is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.backends.options import RayOptions, check_options
from cluster.backends.placement import ACTOR_BYTES, Node, place_actors, room
from configs.errors import ConfigError


def nodes_of(*cpus, memory_bytes=None):
    """Return nodes with these free cores."""
    return [Node(f"n{i}", f"10.0.0.{i}", n, memory_bytes) for i, n in enumerate(cpus)]


def chips_by_node(places):
    """Return the chips of every node that is used."""
    found = {}
    for place in places:
        found.setdefault(place.node.id, []).extend(place.ranks)
    return found


def test_groups_stay_together():
    """Three nodes of one size, four groups of four: no group is cut, although 16 is not 3 times anything."""
    groups = [tuple(range(i, i + 4)) for i in range(0, 16, 4)]
    found = chips_by_node(place_actors(groups, nodes_of(2, 2, 2), 1))
    assert list(map(len, found.values())) == [4, 8, 4] or sorted(map(len, found.values())) == [4, 4, 8]
    assert all(len([n for n in found.values() if set(group) <= set(n)]) == 1 for group in groups)


def test_groups_need_not_be_neighbours():
    """The order is that of the groups, not of the chips' numbers."""
    groups = [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert chips_by_node(place_actors(groups, nodes_of(1, 1), 2)) == {"n0": [0, 4, 1, 5], "n1": [2, 6, 3, 7]}


def test_shares_follow_free_cores():
    """A node with three times the cores gets three times the chips; each actor takes its part of them, at most one."""
    places = place_actors([(i,) for i in range(8)], nodes_of(6, 2), 1)
    assert {node: len(chips) for node, chips in chips_by_node(places).items()} == {"n0": 6, "n1": 2}
    assert [place.cpus for place in places] == [1.0] * 8
    assert place_actors([(i,) for i in range(3)], nodes_of(1), 1)[0].cpus == 0.3333


def test_memory_is_a_limit():
    """A node without room gets less than its share."""
    tight = Node("tight", "10.0.0.9", 8, 3 * ACTOR_BYTES)
    places = place_actors([(i,) for i in range(8)], [tight, *nodes_of(1)], 1)
    assert {node: len(chips) for node, chips in chips_by_node(places).items()} == {"tight": 3, "n0": 5}


def test_more_chips_to_an_actor_where_memory_is_short():
    """By default one chip an actor; as few more as it takes to fit."""
    places = place_actors([(i,) for i in range(64)], nodes_of(2, memory_bytes=20 * ACTOR_BYTES), None)
    assert {len(place.ranks) for place in places} == {4}
    assert len(place_actors([(i,) for i in range(64)], nodes_of(2, memory_bytes=64 * ACTOR_BYTES), None)) == 64


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (1, r"8 chips in 8 actors need .* of memory, 1 nodes have .* free; accepted: more --chips-per-actor, fewer"),
        (None, r"8 chips in 1 actors need .*; accepted: fewer chips, more nodes"),
    ],
)
def test_what_does_not_fit_is_refused(asked, words):
    """The figures are said, and what would help."""
    with pytest.raises(ConfigError, match=words):
        place_actors([(i,) for i in range(8)], nodes_of(2, memory_bytes=2 * ACTOR_BYTES), asked, chip_bytes=10**9)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(1, 64), st.none() | st.integers(0, 40)), min_size=1, max_size=5),
    st.none() | st.integers(1, 5),
    st.sampled_from([0, 10**7]),
)
def test_every_chip_has_one_place_with_room(sizes, hosts, asked, chip_bytes):
    """Whatever the nodes: all chips, each once, in order, never more to a node than it has memory for; or a refusal."""
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    groups = [tuple(range(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    nodes = [
        Node(f"n{i}", "10.0.0.1", cpus, None if actors is None else actors * ACTOR_BYTES)
        for i, (cpus, actors) in enumerate(hosts)
    ]
    try:
        places = place_actors(groups, nodes, asked, chip_bytes)
    except ConfigError:
        return
    assert [rank for place in places for rank in place.ranks] == list(range(ends[-1]))
    k = asked or max(len(place.ranks) for place in places)
    assert max(len(place.ranks) for place in places) <= k
    for node in nodes:
        here = [place for place in places if place.node.id == node.id]
        if node.memory_bytes is not None:
            assert len(here) * ACTOR_BYTES + sum(len(p.ranks) for p in here) * chip_bytes <= node.memory_bytes
            assert sum(len(p.ranks) for p in here) <= (room(node, k, chip_bytes) or 0)
        assert sum(place.cpus for place in here) <= node.cpus


def test_groups_and_the_rest():
    """Chips that no group names follow."""
    assert RayOptions(groups=((2, 1),)).all_groups(4) == [(2, 1), (0,), (3,)]


@pytest.mark.parametrize(
    ("options", "backend", "words"),
    [
        (RayOptions(address="auto"), "local", "--ray-address: the backend is 'local'; accepted: together with"),
        (RayOptions(address="ray://host:10001"), "ray", "--ray-address: 'ray://host:10001'; accepted: auto, or HOST"),
        (RayOptions(address="host"), "ray", "--ray-address: 'host'; accepted"),
        (RayOptions(address="host:port"), "ray", "--ray-address: 'host:port'; accepted"),
        (RayOptions(chips_per_actor=0), "ray", "--chips-per-actor: 0; accepted: an integer ≥ 1"),
        (RayOptions(start_deadline_s=0), "ray", "start_deadline_s: 0; accepted"),
    ],
)
def test_options_that_mean_nothing(options, backend, words):
    """Each is refused before anything starts."""
    with pytest.raises(ConfigError, match=words):
        check_options(options, backend)
