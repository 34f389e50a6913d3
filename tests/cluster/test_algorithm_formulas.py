"""Closed formulas on other machines and with other parameters than the one of every row (`test_closed_forms`)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.bench import bench
from cluster.prediction import predict_ps
from cluster.records import Collective
from collectives import OFFERED
from collectives.algorithms.hierarchical import FLAT
from configs.spec.topology import LinkSpec
from tests.cluster import machines
from tests.cluster.test_formulas import WHOLE_PS, total_ps
from tests.collectives.rows import TOPOLOGIES, all_of, nodes, schedule_of
from topology import FullyConnected, Switch

GATHERS = ("all_gather", "reduce_scatter", "all_reduce")
POWERS = st.sampled_from([2, 4, 8, 16])

latencies = st.integers(0, 5_000_000)
ranks = st.integers(2, 9)
bandwidths = st.sampled_from(WHOLE_PS)
parts = st.integers(1, 300).map(lambda k: 48 * k)
"""Elements of a part that fall into equal halves, quarters, sixths and sixteenths."""


def part_ps(n_elements, bandwidth):
    """Return the time of so many float32 on a link, a whole number."""
    return round(4 * n_elements / bandwidth * 1e12)


def gather_ps(system, op, algorithm, n, part):
    """Return the time of an operation with parts of `part` elements."""
    return total_ps(system, op, algorithm, (part if op == "all_gather" else part * n,))


def times(op):
    """An all-reduce is a reduce-scatter and an all-gather."""
    return 2 if op == "all_reduce" else 1


@pytest.mark.parametrize("op", GATHERS)
@given(n=st.integers(3, 9), part=parts, latency_ps=latencies, bandwidth=bandwidths)
@settings(max_examples=10, deadline=None)
def test_one_axis(op, n, part, latency_ps, bandwidth):
    """The multi-axis algorithm on a ring takes (n-1) (α + m/(2B)), on a line (n-1) (α + m/B)."""
    for make, piece in ((machines.torus, part // 2), (machines.mesh, part)):
        want = times(op) * (n - 1) * (latency_ps + part_ps(piece, bandwidth))
        assert gather_ps(make(n, bandwidth=bandwidth, latency_ps=latency_ps), op, "torus", n, part) == want


@given(n=st.integers(2, 17), part=parts, latency_ps=latencies, bandwidth=bandwidths)
@settings(max_examples=15, deadline=None)
def test_folded_ranks_on_a_switch(n, part, latency_ps, bandwidth):
    """Any number of ranks: two more steps of a whole buffer, exact without contention, and never less with it."""
    system, alpha = machines.switch(n, bandwidth, latency_ps), 2 * latency_ps
    p = 1 << (n.bit_length() - 1)
    m, log, fold = part_ps(part, bandwidth), p.bit_length() - 1, 2 * (n > p)
    doubling = (log + fold) * (alpha + m)
    rabenseifner = (2 * log + fold) * alpha + (2 * (p - 1) + fold * p) * m
    for algorithm, size, want in (("recursive_doubling", part, doubling), ("halving_doubling", p * part, rabenseifner)):
        assert total_ps(system, "all_reduce", algorithm, (size,), contention="none") == want
        assert total_ps(system, "all_reduce", algorithm, (size,)) >= want
    gather = (log + fold) * alpha + (n - 1) * m * (2 if fold else 1)
    assert total_ps(system, "all_gather", "recursive_doubling", (part,)) >= gather
    assert total_ps(system, "reduce_scatter", "recursive_halving", (n * part,)) >= gather


@given(n=st.integers(2, 17), part=parts, latency_ps=latencies, bandwidth=bandwidths)
@settings(max_examples=15, deadline=None)
def test_rooted_with_any_number_of_ranks(n, part, latency_ps, bandwidth):
    """A binomial gather or reduce is no slower than that of the next power of two; ends are rounded once each."""
    system, alpha, m = machines.switch(n, bandwidth, latency_ps), 2 * latency_ps, part_ps(part, bandwidth)
    log = (n - 1).bit_length()
    assert total_ps(system, "gather", "binomial", (part,)) <= log * alpha + (n - 1) * m + n
    assert total_ps(system, "reduce", "binomial", (part,)) <= log * (alpha + m) + n


@pytest.mark.parametrize("dims", [(3, 3), (4, 4), (3, 3, 3), (2, 2), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("op", GATHERS)
@given(part=parts, latency_ps=latencies, bandwidth=bandwidths)
@settings(max_examples=5, deadline=None)
def test_all_axes_of_a_torus(op, dims, part, latency_ps, bandwidth):
    """K (L-1) α + (n-1) m/(2kB) on a torus; half the bandwidth where nothing wraps."""
    n, k, side = math.prod(dims), len(dims), dims[0]
    latency = k * (side - 1) * latency_ps
    lanes = {"torus": 2 * k if side > 2 else k, "mesh": k}
    for kind, make in (("torus", machines.torus), ("mesh", machines.mesh)):
        want = times(op) * (latency + (n - 1) * part_ps(part // lanes[kind], bandwidth))
        assert gather_ps(make(*dims, bandwidth=bandwidth, latency_ps=latency_ps), op, "torus", n, part) == want


@pytest.mark.parametrize("dims", [(3,), (5,), (7,), (3, 3), (5, 5), (3, 5), (3, 3, 3)], ids=str)
@given(part=parts, latency_ps=latencies, bandwidth=bandwidths)
@settings(max_examples=5, deadline=None)
def test_dimension_wise(dims, part, latency_ps, bandwidth):
    """Axis by axis, max over h of h α + Σ_{g≥h} g b/B; messages that end meanwhile are rounded once each."""
    n = math.prod(dims)
    want = 0
    for side in dims:
        b, half = part_ps(n // side * part, bandwidth), side // 2
        want += max(h * latency_ps + sum(g * b for g in range(h, half + 1)) for h in range(1, half + 1))
    system = machines.torus(*dims, bandwidth=bandwidth, latency_ps=latency_ps)
    assert abs(total_ps(system, "all_to_all", "dimension_wise", (n * part,)) - want) <= 2 * sum(dims)


@pytest.mark.parametrize("dims", [(3, 4), (4, 3), (2, 5), (6, 2)], ids=str)
@pytest.mark.parametrize("op", GATHERS)
@given(part=parts, latency_ps=latencies, bandwidth=bandwidths)
@settings(max_examples=5, deadline=None)
def test_hierarchical_rings(op, dims, part, latency_ps, bandwidth):
    """(r-1) (α + m/B) over the rails and (l-1) (α + r m/B) in the nodes."""
    (r, length), m = dims, part_ps(part, bandwidth)
    want = times(op) * ((r - 1) * (latency_ps + m) + (length - 1) * (latency_ps + r * m))
    system = machines.torus(*dims, bandwidth=bandwidth, latency_ps=latency_ps)
    assert gather_ps(system, op, "hierarchical", r * length, part) == want


@pytest.mark.parametrize("dims", [(3, 3), (4, 2), (5, 3), (2, 2)], ids=str)
@pytest.mark.parametrize("op", GATHERS)
@given(part=parts, latency_ps=latencies, bandwidth=bandwidths)
@settings(max_examples=5, deadline=None)
def test_hierarchical_with_direct_nodes(op, dims, part, latency_ps, bandwidth):
    """(r-1) (α + m/B) over the rails and α + r m/B in nodes whose chips are all joined."""
    (r, length), m = dims, part_ps(part, bandwidth)
    want = times(op) * ((r - 1) * (latency_ps + m) + latency_ps + r * m)
    system = machines.torus(*dims, bandwidth=bandwidth, latency_ps=latency_ps)
    assert gather_ps(system, op, "hierarchical_direct", r * length, part) == want


@pytest.mark.parametrize("kind", ["ring", "torus", "grid"])
@pytest.mark.parametrize("op", GATHERS)
@given(n=st.integers(3, 9), part=parts, latency_ps=latencies, bandwidth=bandwidths)
@settings(max_examples=5, deadline=None)
def test_synthesised_on_equal_links(op, kind, n, part, latency_ps, bandwidth):
    """Steps x (α + m/B), with as many steps as the schedule has."""
    link = LinkSpec(bandwidth, latency_ps)
    system = machines.system(evolve(TOPOLOGIES[kind](n), link=link))
    steps = schedule_of(op, "synthesised", all_of(kind, n)).n_steps
    assert gather_ps(system, op, "synthesised", n, part) == steps * (latency_ps + part_ps(part, bandwidth))


@given(n=st.sampled_from([3, 5, 6, 7, 9]), data=st.data(), latency_ps=latencies, bandwidth=bandwidths)
@settings(max_examples=15, deadline=None)
def test_uneven_exchanges_on_a_switch(n, data, latency_ps, bandwidth):
    """Rows of m_s to the rank s further on: direct α + Σ m_s/B, pairwise Σ (α + m_s/B); parts of no size need none."""
    rows = data.draw(st.lists(st.integers(1, 50), min_size=n - 1, max_size=n - 1))
    table = tuple(tuple(rows[(j - i) % n - 1] if i != j else 0 for j in range(n)) for i in range(n))
    system, alpha = machines.switch(n, bandwidth, latency_ps), 2 * latency_ps
    topology = system.topology.build(system.routing)
    m = [part_ps(row, bandwidth) for row in rows]
    for algorithm, want, slack in (("direct", alpha + sum(m), n), ("pairwise", (n - 1) * alpha + sum(m), 0)):
        call = Collective("all_to_all_v", algorithm, "all", tuple(range(n)), 0, (1,), np.dtype(np.float32), table=table)
        assert abs(predict_ps(system, topology, call) - want) <= slack


@pytest.mark.parametrize("op", ["all_reduce", "broadcast", "reduce", "reduce_scatter", "all_gather"])
@given(n=st.integers(3, 9), units=st.integers(1, 40), k=st.integers(1, 5), latency_ps=latencies)
@settings(max_examples=10)
def test_in_network(op, n, units, k, latency_ps):
    """The chips send each byte up once: (k+1) (α + S/(kB)), and what the docstring says of the others."""
    topology = Switch(chips=n, link=LinkSpec(1e9, latency_ps), planes=(2, 1), in_network=True)
    part = 3 * k * units  # every lane of every piece has whole elements
    count = {"all_gather": part, "reduce_scatter": part * n}.get(op, part)
    piece_ps = part_ps(part // k, 3e9)
    up = latency_ps + piece_ps
    want = {
        "reduce_scatter": k * (latency_ps + n * piece_ps) + up,
        "all_gather": up + k * (latency_ps + (n - 1) * piece_ps),
    }.get(op, (k + 1) * up)
    got = total_ps(machines.system(topology), op, f"in_network:pieces={k}", (count,))
    assert abs(got - want) <= 4 * (k + 1)  # a third of a byte is no whole picosecond


@pytest.mark.parametrize("op", GATHERS)
@given(k=st.integers(1, 6), part=parts, latency_ps=latencies)
@settings(max_examples=10)
def test_channels_of_a_ring(op, k, part, latency_ps):
    """Where every pair has a link of its own, k channels of 7 ranks take (n-1) (α + m/(kB))."""
    system = machines.system(FullyConnected(chips=7, link=LinkSpec(1e9, latency_ps)))
    part *= 5
    want = times(op) * 6 * (latency_ps + part_ps(-(-part // k), 1e9))
    assert gather_ps(system, op, f"ring:channels={k}", 7, part) == want


def test_hierarchies_of_any_two():
    """Node and rail take any flat family; every pair of them is proven and right on real data."""
    for node, rail in itertools.product(FLAT, FLAT):
        algorithm = f"hierarchical:node={node},rail={rail}"
        [row] = bench(machines.torus(3, 4), "all_reduce", algorithm=algorithm, sizes_bytes=[4800])
        assert row.wrong == 0


@pytest.mark.parametrize(("n_nodes", "length"), [(2, 2), (4, 3), (8, 2)])
@pytest.mark.parametrize(("inside", "hops"), [("chain", None), ("switch", 2)])
def test_a_small_buffer_over_rail_trees(n_nodes, length, inside, hops):
    """One piece goes up and down once: through the chain, or over the switch by two links, and h levels of nodes."""
    system = machines.system(nodes(n_nodes * length, length, LinkSpec(1e15, 500_000)))
    height = 1_000_000 * (n_nodes - 1).bit_length()
    want = 2 * (height + (1_000_000 * (length - 1) if hops is None else hops * 500_000))
    got = total_ps(system, "all_reduce", f"rail_tree:inside={inside},pieces=1", (length,))
    assert got == pytest.approx(want, rel=1e-3)
    [row] = bench(system, "all_reduce", algorithm=f"rail_tree:inside={inside}", sizes_bytes=[4800])
    assert row.wrong == 0


@pytest.mark.parametrize(("op", "pieces"), [("broadcast", 1), ("broadcast", 5), ("reduce", 3), ("all_reduce", 2)])
def test_pieces_are_a_parameter(op, pieces):
    """Trees and lines are right in any number of pieces."""
    for name in OFFERED[op]:
        if "pieces" in OFFERED[op][name] and name not in {"in_network", "rail_tree"}:
            [row] = bench(machines.ring(6), op, algorithm=f"{name}:pieces={pieces}", sizes_bytes=[4000])
            assert row.wrong == 0
