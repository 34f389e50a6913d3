"""The closed form of every row of ALGORITHMS, to the picosecond, on an idle network that the algorithm is made for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.prediction import predict_ps, predict_together_ps
from cluster.records import Collective
from configs.spec.system import SystemSpec
from configs.spec.topology import LinkSpec
from tests.cluster import machines
from tests.cluster.test_formulas import WHOLE_PS
from tests.collectives.rows import ROWS
from topology import Compose, Switch

K = 8
"""Pieces of the algorithms that have them, by default; the buffer of a broadcast or reduce is K parts."""
POWERS, ANY = (2, 4, 8, 16), tuple(range(2, 18))


def ring(n, bandwidth, latency_ps):
    """Return a ring of neighbours; α is a link's."""
    return machines.ring(n, bandwidth, latency_ps)


def line(n, bandwidth, latency_ps):
    """Return a line of neighbours."""
    return machines.mesh(n, bandwidth=bandwidth, latency_ps=latency_ps)


def switch(n, bandwidth, latency_ps):
    """Return chips behind a switch; α is that of the route, up and down."""
    return machines.switch(n, bandwidth, latency_ps // 2)


def adding(n, bandwidth, latency_ps):
    """Return chips behind a switch that adds; α is a link's."""
    return machines.system(Switch(chips=n, link=LinkSpec(bandwidth, latency_ps), in_network=True))


def square(n, bandwidth, latency_ps):
    """Return a square torus."""
    side = round(n**0.5)
    return machines.torus(side, side, bandwidth=bandwidth, latency_ps=latency_ps)


def three_nodes(n, bandwidth, latency_ps):
    """Return three nodes: r = 3 rings of l = n/3 chips."""
    return machines.torus(3, n // 3, bandwidth=bandwidth, latency_ps=latency_ps)


def nodes_of_three(n, bandwidth, latency_ps):
    """Return r = n/3 nodes of three chips, each joined to the others."""
    return machines.torus(n // 3, 3, bandwidth=bandwidth, latency_ps=latency_ps)


def two_nodes(n, bandwidth, latency_ps):
    """Return two nodes of l = n/2 chips; α is that of a route, in a node and between them."""
    link = LinkSpec(bandwidth, latency_ps // 2)
    inside = Switch(chips=n // 2, link=link)
    return machines.system(Compose(node=inside, count=2, network=Switch(chips=n, link=link)))


def log2(n):
    """Return ⌈log2 n⌉."""
    return (n - 1).bit_length()


@frozen
class Form:
    """A closed form: on this machine of n chips, the time by n, the latency α and the time m of a part, both in ps.

    slack_ps: of messages that end while others go on, each rounded once.
    """

    machine: Callable[[int, float, int], SystemSpec]
    ranks: tuple[int, ...]
    time_ps: Callable[[int, int, int], int]
    slack_ps: int = 0


def twice(form: Form) -> Form:
    """Return the form of an all-reduce made of a reduce-scatter and an all-gather."""
    return Form(form.machine, form.ranks, lambda n, a, m: 2 * form.time_ps(n, a, m))


RING = Form(ring, ANY, lambda n, a, m: (n - 1) * (a + m))
BOTH_WAYS = Form(ring, ANY[1:], lambda n, a, m: (n - 1) * (a + m // 2))
LINE = Form(line, ANY, lambda n, a, m: (n - 1) * (a + m))
DIRECT = Form(switch, ANY, lambda n, a, m: a + (n - 1) * m)
LOG_STEPS = Form(switch, ANY, lambda n, a, m: log2(n) * a + (n - 1) * m)
LOG_STEPS_OF_POWERS = Form(switch, POWERS, LOG_STEPS.time_ps)
TORUS = Form(square, (9, 16, 25), lambda n, a, m: 2 * (round(n**0.5) - 1) * a + (n - 1) * (m // 4))
HIERARCHICAL = Form(three_nodes, (9, 12, 15), lambda n, a, m: 2 * (a + m) + (n // 3 - 1) * (a + 3 * m))
DIRECT_NODES = Form(nodes_of_three, (9, 12, 15), lambda n, a, m: (n // 3 - 1) * (a + m) + a + n // 3 * m)
RAIL_RING = Form(two_nodes, (4, 8), lambda n, a, m: (n - 1) * (a + m * (n // 2 - 1) // (n // 2)))
SYNTHESISED = Form(ring, ANY, lambda n, a, m: n // 2 * (a + m))
PAIRWISE = Form(switch, ANY, lambda n, a, m: (n - 1) * (a + m))
WHOLE_LINE = Form(line, ANY, lambda n, a, m: (n - 1 + K - 1) * (a + m))
IN_NETWORK = Form(adding, ANY, lambda _n, a, m: (K + 1) * (a + m))


def tree(n, a, m):
    """Return the time of K pieces down a binary tree of 2^h ranks, or up it."""
    return K * (a + m) if n == 2 else a + m + (K + log2(n) - 2) * (a + 2 * m)


def two_trees(n, a, m):
    """Return the time of an all-reduce over two trees, each with half of S = n m in K pieces."""
    piece = n * m // K
    return (K + 1) * a + K * piece if n == 2 else (2 * log2(n) + K - 1) * a + (2 * log2(n) + 2 * K - 3) * piece


def bruck(n, a, m):
    """Return the sum over the bits of n-1 of α and as many parts as there are numbers below n with this bit."""
    return sum(a + sum(k >> bit & 1 for k in range(n)) * m for bit in range(log2(n)))


def round_a_ring(n, a, m):
    """Return the time of an exchange round a ring of an odd number of chips: messages of h hops load h links."""
    return max(h * a + sum(range(h, n // 2 + 1)) * m for h in range(1, n // 2 + 1))


FORMS: dict[tuple[str, str], Form] = {
    ("all_gather", "ring"): RING,
    ("all_gather", "ring_neighbours"): RING,
    ("all_gather", "ring_bidirectional"): BOTH_WAYS,
    ("all_gather", "line"): LINE,
    ("all_gather", "direct"): DIRECT,
    ("all_gather", "recursive_doubling"): LOG_STEPS_OF_POWERS,
    ("all_gather", "bruck"): LOG_STEPS,
    ("all_gather", "torus"): TORUS,
    ("all_gather", "rail_ring"): RAIL_RING,
    ("all_gather", "hierarchical"): HIERARCHICAL,
    ("all_gather", "hierarchical_direct"): DIRECT_NODES,
    ("all_gather", "in_network"): Form(adding, ANY[1:], lambda n, a, m: a + m // K + K * a + (n - 1) * m),
    ("all_gather", "synthesised"): SYNTHESISED,
    ("reduce_scatter", "ring"): RING,
    ("reduce_scatter", "ring_neighbours"): RING,
    ("reduce_scatter", "ring_bidirectional"): BOTH_WAYS,
    ("reduce_scatter", "line"): LINE,
    ("reduce_scatter", "direct"): DIRECT,
    ("reduce_scatter", "recursive_halving"): LOG_STEPS_OF_POWERS,
    ("reduce_scatter", "torus"): TORUS,
    ("reduce_scatter", "rail_ring"): RAIL_RING,
    ("reduce_scatter", "hierarchical"): HIERARCHICAL,
    ("reduce_scatter", "hierarchical_direct"): DIRECT_NODES,
    ("reduce_scatter", "in_network"): Form(adding, ANY, lambda n, a, m: K * a + n * m + a + m // K),
    ("reduce_scatter", "synthesised"): SYNTHESISED,
    ("all_reduce", "ring"): twice(RING),
    ("all_reduce", "ring_neighbours"): twice(RING),
    ("all_reduce", "ring_bidirectional"): twice(BOTH_WAYS),
    ("all_reduce", "line"): twice(LINE),
    ("all_reduce", "one_shot"): Form(switch, ANY, lambda n, a, m: a + (n - 1) * n * m),
    ("all_reduce", "two_shot"): twice(DIRECT),
    ("all_reduce", "recursive_doubling"): Form(switch, POWERS, lambda n, a, m: log2(n) * (a + n * m)),
    ("all_reduce", "halving_doubling"): twice(LOG_STEPS_OF_POWERS),
    ("all_reduce", "double_binary_tree"): Form(switch, POWERS, two_trees),
    ("all_reduce", "torus"): twice(TORUS),
    ("all_reduce", "rail_ring"): twice(RAIL_RING),
    ("all_reduce", "rail_tree"): Form(two_nodes, (2,), lambda _n, a, m: (K + 1) * (a + 2 * m // K)),
    ("all_reduce", "hierarchical"): twice(HIERARCHICAL),
    ("all_reduce", "hierarchical_direct"): twice(DIRECT_NODES),
    ("all_reduce", "in_network"): Form(adding, ANY, lambda n, a, m: (K + 1) * (a + n * m // K)),
    ("all_reduce", "synthesised"): twice(SYNTHESISED),
    ("all_to_all", "direct"): DIRECT,
    ("all_to_all", "pairwise"): PAIRWISE,
    ("all_to_all", "bruck"): Form(switch, ANY, bruck),
    ("all_to_all", "dimension_wise"): Form(ring, (3, 5, 7, 9), round_a_ring, slack_ps=18),
    ("all_to_all_v", "direct"): DIRECT,
    ("all_to_all_v", "pairwise"): PAIRWISE,
    ("broadcast", "binomial"): Form(switch, ANY, lambda n, a, m: log2(n) * (a + K * m)),
    ("broadcast", "binary_tree"): Form(switch, POWERS, tree),
    ("broadcast", "line"): WHOLE_LINE,
    ("broadcast", "in_network"): IN_NETWORK,
    ("reduce", "binomial"): Form(switch, POWERS, lambda n, a, m: log2(n) * (a + K * m)),
    ("reduce", "binary_tree"): Form(switch, POWERS, tree),
    ("reduce", "line"): WHOLE_LINE,
    ("reduce", "in_network"): IN_NETWORK,
    ("gather", "binomial"): LOG_STEPS_OF_POWERS,
    ("gather", "direct"): DIRECT,
    ("scatter", "binomial"): LOG_STEPS,
    ("scatter", "direct"): DIRECT,
    ("permute", "direct"): Form(switch, ANY, lambda _n, a, m: a + m),
    ("barrier", "dissemination"): Form(switch, ANY, lambda n, a, _m: log2(n) * a),
}
"""What the docstrings of the algorithms say, row by row."""

SHAPES = {
    # elements of a rank's input, of n ranks with parts of m elements
    "all_gather": lambda _n, m: m,
    "gather": lambda _n, m: m,
    "permute": lambda _n, m: m,
    "broadcast": lambda _n, m: K * m,
    "reduce": lambda _n, m: K * m,
    "all_to_all_v": lambda _n, _m: 1,  # of a row
    "barrier": lambda _n, _m: 0,
}
TABLES = {
    "permute": lambda n, _m: tuple((rank, (rank + 1) % n) for rank in range(n)),
    "all_to_all_v": lambda n, m: ((m,) * n,) * n,
}


@pytest.mark.parametrize(("op", "name"), ROWS)
@given(data=st.data(), latency_ps=st.integers(0, 2_500_000).map(lambda a: 2 * a), bandwidth=st.sampled_from(WHOLE_PS))
@settings(max_examples=12, deadline=None)
def test_closed_form(op, name, data, latency_ps, bandwidth):
    """Every row has its form; played in full, and by the short way where there is one, it takes that time."""
    form = FORMS[op, name]
    n = data.draw(st.sampled_from(form.ranks))
    part = data.draw(st.integers(1, 100).map(lambda k: 48 * k))  # parts fall into equal halves, quarters and eighths
    shape = (SHAPES.get(op, lambda n, m: n * m)(n, part),)
    table = TABLES.get(op, lambda _n, _m: ())(n, part)
    call = Collective(op, name, "all", tuple(range(n)), 0, shape, np.dtype(np.float32), table=table)
    system = form.machine(n, bandwidth, latency_ps)
    topology = system.topology.build(system.routing)
    want = form.time_ps(n, latency_ps, round(4 * part / bandwidth * 1e12))
    got = predict_together_ps(system, topology, [call])
    assert abs(got - want) <= form.slack_ps
    assert predict_ps(system, topology, call) == got


def test_no_form_is_left_over():
    """The table has the rows of ALGORITHMS and no others."""
    assert set(FORMS) == set(ROWS)
