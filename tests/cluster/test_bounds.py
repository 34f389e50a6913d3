"""No schedule of any algorithm is faster than the slowest cut of the network allows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.prediction import predict_ps
from cluster.records import Collective
from collectives import GroupView, cut
from configs.spec.communication import CommunicationSpec
from configs.spec.system import SystemSpec
from configs.spec.topology import RoutingSpec
from tests.cluster.machines import CHIP
from tests.collectives.rows import ROWS, detail_of, schedule_of
from tests.strategies import switches_that_add, topologies

MOST_CUTS = 2**13


def inside(ranks, parts):
    """Return the sum of the parts of the ranks on a side, for every cut."""
    return ranks @ np.array(parts)


def moved(side, size, moves):
    """Return what leaves the side of every cut by moves (from, to, how many of this size)."""
    return sum(size * many * (side[:, src] & ~side[:, dst]) for src, dst, many in moves)


def rows_of(n):
    """Return the rows of an all_to_all_v as moves."""
    table = detail_of("all_to_all_v", n)
    return [(i, j, table[i][j]) for i in range(n) for j in range(n)]


MUST_CROSS = {
    # operation: from (cut: is rank i on this side? the parts that a rank gives or gets, the whole) what must leave it
    "all_gather": lambda side, part, _whole: inside(side, [part] * side.shape[1]),
    "reduce_scatter": lambda side, _part, whole: inside(~side, cut(whole, side.shape[1])),
    "all_reduce": lambda _side, _part, whole: whole,
    "all_to_all": lambda side, _part, whole: side.sum(axis=1) * inside(~side, cut(whole, side.shape[1])),
    "broadcast": lambda side, _part, whole: whole * side[:, 0],
    "reduce": lambda side, _part, whole: whole * ~side[:, 0],
    "gather": lambda side, part, _whole: inside(side, [part] * side.shape[1]) * ~side[:, 0],
    "scatter": lambda side, _part, whole: inside(~side, cut(whole, side.shape[1])) * side[:, 0],
    "permute": lambda side, part, _whole: moved(
        side, part, [(i, j, 1) for i, j in detail_of("permute", side.shape[1])]
    ),
    "all_to_all_v": lambda side, row, _whole: moved(side, row, rows_of(side.shape[1])),
    "barrier": lambda side, _part, _whole: np.zeros(len(side)),
}
"""A sum over one side of a cut needs no less room than one of its terms. The root is rank 0."""


def cuts(topology, seed):
    """Return [cut, node]: is the node on the sending side; all ways to place chips and switches, or many of them."""
    n = topology.n_nodes
    if 2**n <= MOST_CUTS:
        sides = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        sides = np.random.default_rng(seed).integers(0, 2, (MOST_CUTS, n))
        sides[: 2 * n] = np.concatenate([np.eye(n, dtype=int), 1 - np.eye(n, dtype=int)])
    sides = sides.astype(bool)
    chips = sides[:, : topology.n_chips]
    return sides[chips.any(axis=1) & ~chips.all(axis=1)]


def least_ps(topology, sides, n_bytes):
    """Return the longest time that any cut asks for: the least latency across it and what must cross at full rate."""
    crosses = sides[:, topology.link_src] & ~sides[:, topology.link_dst]
    capacity = crosses @ topology.link_bandwidth_bytes_per_s
    latency_ps = np.where(crosses, topology.link_latency_ps, np.iinfo(np.int64).max).min(axis=1)
    needed = np.broadcast_to(n_bytes, capacity.shape) > 0
    return (latency_ps + np.broadcast_to(n_bytes, capacity.shape) / capacity * 1e12)[needed].max(initial=0.0)


@pytest.mark.parametrize(("op", "name"), ROWS)
@given(data=st.data(), n_elements=st.integers(1, 20_000), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_no_algorithm_beats_the_slowest_cut(op, name, data, n_elements, seed):
    """On random topologies and routings, for every cut: its latency, and what must cross it at its bandwidth."""
    topology = data.draw(switches_that_add() if name == "in_network" else topologies())
    n, ranks = topology.n_chips, tuple(range(topology.n_chips))
    if schedule_of(op, name, GroupView(topology, ranks)) is None:
        return
    detail = detail_of(op, n)
    root, table = (detail, ()) if isinstance(detail, int) else (0, detail)
    shape = (0 if op == "barrier" else n_elements,)
    call = Collective(op, name, "all", ranks, root, shape, np.dtype(np.float32), table=table)
    system = SystemSpec("test", CHIP, None, RoutingSpec(), CommunicationSpec())
    sides = cuts(topology, seed)
    n_bytes = 4 * MUST_CROSS[op](sides[:, :n], n_elements, n_elements)
    assert root == 0
    assert predict_ps(system, topology, call) >= least_ps(topology, sides, n_bytes) * (1 - 1e-9) - 100 * n
