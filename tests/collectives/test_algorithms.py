"""The common suite: every algorithm of the table ALGORITHMS passes it, newcomers by their row alone."""

from __future__ import annotations

import numpy as np
import pytest

from collectives import ALGORITHMS, OPERATIONS, ScheduleError, check
from collectives.schedule import Schedule, by_step
from tests.collectives.rows import (
    ROWS,
    VIEWS,
    all_of,
    detail_of,
    fitting,
    fitting_schedule,
    ring_of,
    schedule_of,
    switch_of,
)

FEW = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17)
ALL = range(1, 34)
NEED_MORE = {"hierarchical", "hierarchical_direct", "in_network", "rail_ring", "rail_tree"}
"""Algorithms that do not fit all rings and switches."""


VIEWS_OF = {
    "in_network": {"nvswitch"},
    "rail_ring": {"nodes"},
    "rail_tree": {"nodes"},
    "hierarchical": {"torus", "grid", "block"},
    "hierarchical_direct": {"torus", "grid", "block"},
}
"""Where algorithms with a need fit at least half of all sizes; all others fit so everywhere."""


def roots(op: str, n: int) -> tuple[int, ...]:
    """Every root where the operation has one."""
    return tuple(range(n)) if OPERATIONS[op].detail == "root" else (0, 1)


@pytest.mark.parametrize("ranks", [pytest.param(FEW, id="few"), pytest.param(ALL, id="all", marks=pytest.mark.heavy)])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("op", "name"), ROWS)
def test_proven_for_1_to_33_ranks(op, name, view, ranks):
    """Every algorithm keeps its operation's promise for every number of ranks and every root."""
    proven = 0
    for n in ranks:
        for root in roots(op, n)[:: 1 + n // 9]:
            schedule = schedule_of(op, name, VIEWS[view](n), root)
            if schedule is not None:
                check(schedule, detail_of(op, n, root))
                proven += 1
    fits = VIEWS_OF.get(name, set(VIEWS))
    assert proven >= len(ranks) // 2 or view not in fits, "an algorithm that hardly ever fits proves nothing here"


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_fits_every_ring_and_switch(op, name):
    """All algorithms but those that need a grid or a switch that adds fit all chips of a ring and of a switch."""
    for n in FEW[1:]:
        for group in (ring_of(n), switch_of(n)):
            assert (schedule_of(op, name, group) is None) == (name in NEED_MORE)


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_says_what_it_is(op, name):
    """A schedule carries its operation, its algorithm's name and its number of ranks."""
    schedule, n = fitting_schedule(op, name, 5), fitting(op, name, 5)[1]
    assert (schedule.op, schedule.algorithm, schedule.n_ranks) == (op, name, n)
    assert schedule.n_chunks % OPERATIONS[op].n_parts(n) == 0


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_the_same_each_time(op, name):
    """A builder is a pure function."""
    first, second = (fitting_schedule(op, name, 6) for _ in range(2))
    assert first.transfers == second.transfers


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_one_rank_has_nothing_to_send(op, name):
    """A group of one needs no transfer and no step."""
    schedule = schedule_of(op, name, switch_of(1))
    assert (schedule.transfers, schedule.n_steps) == ((), 0)
    check(schedule, detail_of(op, 1))


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_plans_are_the_transfers(op, name):
    """The ranks' plans hold every transfer once as a send and once as a receive, in the order of the steps."""
    schedule = fitting_schedule(op, name, 7)
    sent = [(r, dst, c) for r, plan in enumerate(schedule.plans) for step in plan for dst, c in step.sends]
    taken = [
        (src, r, c, red) for r, plan in enumerate(schedule.plans) for step in plan for src, c, red in step.receives
    ]
    assert sorted(sent) == sorted((t.src, t.dst, t.chunks) for t in schedule.transfers)
    assert sorted(taken) == sorted((t.src, t.dst, t.chunks, t.reduce) for t in schedule.transfers)


def bytes_sent(schedule: Schedule, chunk_bytes: int) -> list[int]:
    """Return the bytes that each rank sends."""
    sent = [0] * schedule.n_ranks
    for t, size in zip(schedule.transfers, schedule.sizes([chunk_bytes] * schedule.n_chunks), strict=True):
        sent[t.src] += int(size)
    return sent


@pytest.mark.parametrize("n", [2, 3, 8, 13])
def test_the_traffic_of_a_ring_is_the_least_possible(n):
    """Each rank sends (n-1)/n of the buffer for a gather or reduce-scatter, twice that for an all-reduce."""
    for op, times in (("all_gather", 1), ("reduce_scatter", 1), ("all_reduce", 2)):
        for name in ("ring", "ring_neighbours"):
            schedule = ALGORITHMS[op][name](ring_of(n), 0)
            assert schedule.n_steps == times * (n - 1)
            assert bytes_sent(schedule, 10) == [times * (n - 1) * 10] * n


@pytest.mark.parametrize("n", range(2, 18))
def test_a_binomial_tree_doubles(n):
    """A broadcast takes ceil(log2 n) steps and n-1 messages of the whole buffer."""
    schedule = ALGORITHMS["broadcast"]["binomial"](switch_of(n), n // 2)
    assert schedule.n_steps == (n - 1).bit_length()
    assert len(schedule.transfers) == n - 1


@pytest.mark.parametrize("n", [2, 5, 9])
def test_direct_takes_one_step(n):
    """Every pair exchanges one part at once."""
    for op in ("all_gather", "all_to_all"):
        schedule = ALGORITHMS[op]["direct"](switch_of(n), 0)
        assert schedule.n_steps == 1
        assert len({(t.src, t.dst) for t in schedule.transfers}) == len(schedule.transfers) == n * (n - 1)


def test_ring_neighbours_crosses_single_links():
    """On a mesh with an even side every transfer goes between chips that are joined."""
    group = VIEWS["mesh"](8)
    schedule = schedule_of("all_reduce", "ring_neighbours", group)
    hops = [len(group.topology.route(group.ranks[t.src], group.ranks[t.dst]).links) for t in schedule.transfers]
    assert set(hops) == {1}


def test_ring_neighbours_refuses_what_has_no_ring():
    """Nine chips of 3 x 3 have no Hamiltonian cycle; the error names the algorithm and a way out."""
    assert schedule_of("all_gather", "ring_neighbours", VIEWS["mesh"](9)) is None


def test_every_operation_has_an_algorithm():
    """The tables of operations and algorithms have the same rows."""
    assert set(ALGORITHMS) == set(OPERATIONS)
    assert all(ALGORITHMS.values())


def test_steps_must_be_in_order():
    """A schedule whose transfers go back in time is refused when it is made."""
    transfers = ALGORITHMS["all_gather"]["ring"](ring_of(4), 0).transfers
    with pytest.raises(ValueError, match="order of their steps"):
        Schedule("all_gather", "ring", 4, 4, transfers[::-1])
    assert by_step(transfers[::-1])[0].step == 0


@pytest.mark.parametrize(("field", "value"), [("src", 4), ("dst", -1), ("chunks", (4,)), ("chunks", ()), ("dst", 0)])
def test_transfers_must_exist(field, value):
    """A transfer to oneself, from a rank that is not there or of a chunk that is not there is refused."""
    first, *rest = ALGORITHMS["all_gather"]["ring"](ring_of(4), 0).transfers
    with pytest.raises(ValueError, match="ring: transfer"):
        Schedule("all_gather", "ring", 4, 4, (first._replace(**{field: value}), *rest))


def test_a_schedule_for_another_operation_is_refused():
    """A reduce-scatter is no all-reduce."""
    scatter = ALGORITHMS["reduce_scatter"]["ring"](ring_of(4), 0)
    with pytest.raises(ScheduleError, match="rank 0 ends with chunk"):
        check(Schedule("all_reduce", "ring", 4, 4, scatter.transfers))


def as_uniform(schedule: Schedule, dims: tuple[int, ...]) -> list[tuple[int, int, int, int, set[int]]]:
    """Return (step, src, dst, number of chunks, their pieces) of all transfers, from what every rank does."""
    uniform = schedule.uniform(dims)
    coords = np.stack(np.unravel_index(np.arange(schedule.n_ranks), dims))
    columns, rows = (uniform.step, uniform.offset, uniform.n_chunks, uniform.piece), []
    for step, offset, n_chunks, piece in zip(*(column.tolist() for column in columns), strict=True):
        ahead = np.array(np.unravel_index(offset, dims))[:, None]
        dst = np.ravel_multi_index(tuple((coords + ahead) % np.array(dims)[:, None]), dims)
        rows += [(step, src, int(to), n_chunks, {piece}) for src, to in enumerate(dst)]
    return sorted(rows, key=str)


@pytest.mark.parametrize("kind", ["ring", "switch", "torus"])
@pytest.mark.parametrize(("op", "name"), ROWS)
def test_what_every_rank_does_is_what_all_do(op, name, kind):
    """Where a schedule says that all ranks do the same, its transfers are those, step by step."""
    for n in (2, 3, 4, 8, 9, 12, 16, 27):
        group = all_of(kind, n)
        schedule = schedule_of(op, name, group)
        uniform = schedule and schedule.uniform(group.topology.dims)
        if uniform:
            parts = max(OPERATIONS[op].n_parts(n), n if schedule.n_chunks % n == 0 else 1)
            k = schedule.n_chunks // parts
            transfers = [(t.step, t.src, t.dst, len(t.chunks), {c % k for c in t.chunks}) for t in schedule.transfers]
            assert as_uniform(schedule, group.topology.dims) == sorted(transfers, key=str)
            assert list(uniform.step) == sorted(uniform.step)


UNIFORM = {
    "ring": {"ring", "ring_bidirectional", "direct", "one_shot", "two_shot", "bruck", "torus", "dimension_wise"},
    "torus": {"direct", "one_shot", "two_shot", "torus", "dimension_wise"},
}


@pytest.mark.parametrize("kind", UNIFORM)
@pytest.mark.parametrize(("op", "name"), ROWS)
def test_where_all_ranks_do_the_same(op, name, kind):
    """On a whole ring or torus these algorithms say so; then thousands of chips are timed by looking at one."""
    group = all_of(kind, 9)
    if name in UNIFORM[kind] and OPERATIONS[op].detail == "none":
        assert ALGORITHMS[op][name](group, 0).uniform(group.topology.dims) is not None
