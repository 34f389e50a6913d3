"""Times of rings at any bandwidth, overheads, planes, sizes that are uneven, and messages, to the picosecond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import launch
from configs.units import round_ps
from tests.cluster import machines
from tests.cluster.machines import array

WHOLE_PS = (1e9, 2e9, 4e9, 5e9, 10e9, 12.5e9, 25e9, 50e9, 100e9, 125e9, 250e9, 500e9, 1e12)
"""Bandwidths at which a byte takes a whole number of ps."""

latencies = st.integers(0, 5_000_000)
parts = st.integers(1, 5000)
ranks = st.integers(2, 9)


def total_ps(system, op, algorithm, shape, *, contention="fluid", dtype=np.float32):
    """Return the simulated time of one collective among all chips."""

    async def program(chip):
        await getattr(chip, op)(array(chip, shape, dtype=dtype))

    collectives = {op: algorithm}
    with launch(system, numerics="shapes", contention=contention, collectives=collectives) as cluster:
        return cluster.run(program).timeline.total_ps


def ring_shape(op, n, part):
    """Return the input whose parts have `part` elements each."""
    return (part,) if op == "all_gather" else (part * n,)


RINGS = [(op, name) for op in ("all_gather", "reduce_scatter", "all_reduce") for name in ("ring", "ring_neighbours")]


@pytest.mark.parametrize(("op", "algorithm"), RINGS)
@given(n=ranks, part=parts, latency_ps=latencies, bandwidth=st.floats(1e8, 1e12))
@settings(max_examples=25, deadline=None)
def test_ring_on_a_ring(op, algorithm, n, part, latency_ps, bandwidth):
    """(n-1) (α + m/B), twice that for an all-reduce; every step is rounded once, at any bandwidth."""
    steps = (n - 1) * (2 if op == "all_reduce" else 1)
    want = steps * (latency_ps + round_ps(4 * part / bandwidth * 1e12))
    system = machines.ring(n, bandwidth, latency_ps)
    assert total_ps(system, op, algorithm, ring_shape(op, n, part)) == want


@pytest.mark.parametrize(("op", "algorithm"), RINGS)
@given(rows=st.integers(2, 4), part=parts, latency_ps=latencies, bandwidth=st.sampled_from(WHOLE_PS))
@settings(max_examples=15, deadline=None)
def test_ring_on_a_ring_through_a_grid(op, algorithm, rows, part, latency_ps, bandwidth):
    """Where neighbours form a ring through a mesh, `ring_neighbours` takes the time of a ring; `ring` at least it."""
    steps = (2 * rows - 1) * (2 if op == "all_reduce" else 1)
    want = steps * (latency_ps + round(4 * part / bandwidth * 1e12))
    system = machines.mesh(rows, 2, bandwidth=bandwidth, latency_ps=latency_ps)
    got = total_ps(system, op, algorithm, ring_shape(op, 2 * rows, part))
    assert got == want if algorithm == "ring_neighbours" else got >= want


@pytest.mark.parametrize(("op", "algorithm"), RINGS)
@given(n=ranks, part=parts, latency_ps=latencies, bandwidth=st.sampled_from(WHOLE_PS))
@settings(max_examples=15, deadline=None)
def test_ring_on_a_switch(op, algorithm, n, part, latency_ps, bandwidth):
    """Behind a switch a hop is two links: α counts up and down, the bandwidth is each chip's own."""
    steps = (n - 1) * (2 if op == "all_reduce" else 1)
    want = steps * (2 * latency_ps + round(4 * part / bandwidth * 1e12))
    assert total_ps(machines.switch(n, bandwidth, latency_ps), op, algorithm, ring_shape(op, n, part)) == want


@given(n=ranks, part=parts, launch_ps=latencies, step_ps=latencies, efficiency=st.sampled_from([0.5, 0.25, 0.8, 1.0]))
@settings(max_examples=30, deadline=None)
def test_overheads_are_added(n, part, launch_ps, step_ps, efficiency):
    """A launch once, a cost for every step, and a part of the link: launch + (n-1) (step + α + m/(B e))."""
    system = machines.ring(n, 1e9, 7, launch_ps=launch_ps, step_ps=step_ps, link_efficiency=efficiency)
    want = launch_ps + (n - 1) * (step_ps + 7 + round_ps(4 * part / (1e9 * efficiency) * 1e12))
    assert total_ps(system, "all_gather", "ring", (part,)) == want


@pytest.mark.parametrize("n", [2, 3, 8])
def test_planes_add_up(n):
    """All planes together are one link of their sum: 18 links of 25 GB/s over four planes are 450 GB/s."""
    system = machines.switch(n, 25e9, 500_000, planes=(5, 4, 4, 5))
    want = (n - 1) * (1_000_000 + round(4_500_000 / 450e9 * 1e12))
    assert abs(total_ps(system, "all_gather", "ring", (1_125_000,)) - want) <= n - 1
    direct = 1_000_000 + round((n - 1) * 4_500_000 / 450e9 * 1e12)
    assert abs(total_ps(system, "all_gather", "direct", (1_125_000,)) - direct) <= 1


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
def test_bytes_not_elements(itemsize):
    """The dtype's size counts."""
    dtype = np.dtype(f"i{itemsize}")
    system = machines.ring(4, 1e9, 0)
    assert total_ps(system, "all_gather", "ring", (1000,), dtype=dtype) == 3 * 1000 * itemsize * 1000


@given(n=ranks, size=st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_uneven_parts_take_the_slowest_way_round(n, size):
    """An uneven all-reduce on a ring takes no less than its smallest chunk everywhere, no more than its largest."""
    small, large = (4000 * (size // n), 4000 * -(-size // n))
    got = total_ps(machines.ring(n, 1e9, 100), "all_reduce", "ring", (size,))
    steps = 2 * (n - 1)
    assert steps * (100 + small) <= got <= steps * (100 + large)
    assert got == slowest_way(n, size)


def slowest_way(n, size):
    """Return the time of a ring all-reduce by its recurrence: a step begins when the rank's last one is over."""
    sizes = [size // n + (c < size % n) for c in range(n)]
    ready = [0] * n  # when each rank may begin its next step
    for s in range(2 * (n - 1)):
        chunk = [(i - s - 1) % n if s < n - 1 else (i - (s - (n - 1))) % n for i in range(n)]
        ends = [ready[i] + 100 + 4000 * sizes[chunk[i]] for i in range(n)]
        ready = [max(ends[i], ends[i - 1]) for i in range(n)]
    return max(ready)


@pytest.mark.parametrize(("op", "algorithm"), [*RINGS, ("broadcast", "binomial")])
def test_without_contention_an_idle_network_is_the_same(op, algorithm):
    """Where no two transfers meet on a link, `contention: none` gives the same time."""
    system = machines.switch(8, 25e9, 300_000)
    times = {total_ps(system, op, algorithm, (8000,), contention=c) for c in ("fluid", "none")}
    assert len(times) == 1


def test_without_contention_messages_do_not_share():
    """With `contention: none` the direct all-gather takes the time of one message."""
    system = machines.switch(8, 1e9, 300_000)
    assert total_ps(system, "all_gather", "direct", (1000,), contention="none") == 600_000 + 4_000_000
    assert total_ps(system, "all_gather", "direct", (1000,)) == 600_000 + 28_000_000


def test_point_to_point():
    """A message takes launch + α + S/B, and its receiver has it then."""
    system = machines.mesh(3, 1, bandwidth=1e9, latency_ps=500, launch_ps=70)

    async def program(chip):
        if chip.rank == 0:
            await chip.send(array(chip, 250), 2, "x")
        if chip.rank == 2:
            await chip.recv(0, "x")

    timeline = launch(system).run(program).timeline
    assert [(e.chip, e.operation, e.end_ps) for e in timeline.events()] == [
        (0, "send x", 70 + 1000 + 1_000_000),
        (2, "recv x", 70 + 1000 + 1_000_000),
    ]


def test_a_late_rank_holds_up_the_others():
    """The ring waits for a rank that computes first; the others' collectives begin at 0 and end with its."""
    system = machines.ring(4, 1e9, 1000)

    async def program(chip):
        x = array(chip, 100)
        if chip.rank == 2:
            chip.apply(machines.BURN, x, flops=5_000_000)
        await chip.all_gather(x)

    timeline = launch(system, numerics="shapes", collectives={"all_gather": "ring"}).run(program).timeline
    burn = next(e for e in timeline.events() if e.operation == "burn")
    ends = {e.chip: e.end_ps for e in timeline.events() if e.operation == "all_gather"}
    step = 1000 + 400_000
    assert burn.end_ps == 5_000_000
    assert max(ends.values()) == burn.end_ps + 3 * step
    assert {e.start_ps for e in timeline.events() if e.operation == "all_gather"} == {0, burn.end_ps}
