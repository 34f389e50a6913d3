"""Started operations: the values of blocking ones, and times that add up by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import launch
from tests.cluster.machines import BURN, US, array, beside, layers, mesh, ring, switch

RINGS = {"all_reduce": "ring", "all_gather": "ring"}
T = 12 * US
"""A ring all-reduce of 4,000 bytes among four chips: 6 steps of 1 us latency and 1 us at 1 GB/s."""


def run(program, *args, machine=None, **how):
    """Run without data and return the timeline."""
    return launch(machine or ring(4), numerics="shapes", collectives=RINGS, **how).run(program, *args).timeline


def burn(chip, time_ps):
    """Compute for so long."""
    chip.apply(BURN, array(chip, 1), flops=time_ps)


@pytest.mark.parametrize("compute_us", [0, 5, 12, 30])
def test_compute_beside_an_all_reduce_takes_the_longer_of_the_two(compute_us):
    """max(C, T) where the program starts it early, C + T where it does not."""

    async def program(chip, early):
        reduced = chip.all_reduce(array(chip, 1000))
        handle = chip.start(reduced) if early else reduced
        burn(chip, compute_us * US)
        await handle

    assert run(program, True).total_ps == max(compute_us * US, T)
    assert run(program, False).total_ps == compute_us * US + T


def test_launch_and_steps_are_hidden_too():
    """The overheads belong to the communication: T + launch + 6 steps beside the kernel."""

    async def program(chip, compute_ps):
        handle = chip.start(chip.all_reduce(array(chip, 1000)))
        burn(chip, compute_ps)
        await handle

    machine = ring(4, launch_ps=5 * US, step_ps=US)
    assert run(program, US, machine=machine).total_ps == T + 11 * US
    assert run(program, 30 * US, machine=machine).total_ps == 30 * US


def test_operations_of_one_group_follow_one_another():
    """The second begins when the first has ended on the chip, whether it is started or blocks."""

    async def program(chip, *, blocks):
        first = chip.start(chip.all_reduce(array(chip, 1000)))
        second = chip.all_reduce(array(chip, 1000))
        if blocks:
            await second
        else:
            second = chip.start(second)
            burn(chip, 3 * US)
            await second
        await first

    async def blocking(chip):
        await program(chip, blocks=True)

    async def starting(chip):
        await program(chip, blocks=False)

    for both in (blocking, starting):
        timeline = run(both)
        assert timeline.total_ps == 2 * T
    started = [(e.start_ps, e.end_ps) for e in timeline.events() if (e.chip, e.engine) == (0, "communication")]
    assert started == [(0, T), (T, 2 * T)]


def test_different_groups_run_at_the_same_time():
    """Rows and columns of a mesh have links of their own: the longer of the two; the sum when they block."""

    async def program(chip, early):
        x = chip.all_gather(array(chip, 1000), axis="x")
        if not early:
            await x
            return await chip.all_gather(array(chip, 500), axis="y")
        x, y = chip.start(x), chip.start(chip.all_gather(array(chip, 500), axis="y"))
        await y
        return await x

    assert run(program, True, machine=mesh(2, 2)).total_ps == 5 * US
    assert run(program, False, machine=mesh(2, 2)).total_ps == 5 * US + 3 * US


def test_different_groups_share_their_links():
    """Two groups of the same two chips in opposite orders send the same way at once, each at half the rate."""

    async def program(chip):
        one, two = chip.group("one", (0, 1)), chip.group("two", (1, 0))
        handles = [chip.start(chip.all_gather(array(chip, 250), group=g)) for g in (one, two)]
        for handle in handles:
            await handle

    assert run(program, machine=mesh(2, 1)).total_ps == US + 2 * US
    assert run(program, machine=mesh(2, 1), contention="none").total_ps == US + US


def test_messages_to_one_chip_follow_one_another_and_others_do_not():
    """Two messages to one chip take two latencies; messages to two chips over separate links take one."""

    async def program(chip, to):
        if chip.rank == 0:
            handles = [chip.start(chip.send(array(chip, 250), dst, "on")) for dst in to]
            burn(chip, US)
            for handle in handles:
                await handle
        else:
            for _ in range(to.count(chip.rank)):
                await chip.recv(0, "on")

    assert run(program, (1, 1), machine=switch(3, latency_ps=US)).total_ps == 2 * 3 * US
    assert run(program, (1, 3)).total_ps == 2 * US


def test_a_receive_started_early_costs_nothing():
    """The message comes while the chip computes."""

    async def program(chip):
        if chip.rank == 1:
            burn(chip, 4 * US)
            await chip.send(array(chip, 250), 0)
        elif chip.rank == 0:
            handle = chip.start(chip.recv(1))
            burn(chip, 10 * US)
            await handle
            burn(chip, US)

    timeline = run(program)
    assert timeline.total_ps == 11 * US
    [received] = [e for e in timeline.events() if e.engine == "communication"]
    assert (received.operation, received.start_ps, received.end_ps) == ("recv", 0, 6 * US)


def test_the_breakdown_by_hand():
    """5 us of 12 are hidden by the kernel: they are communication, and not exposed."""

    async def program(chip):
        handle = chip.start(chip.all_reduce(array(chip, 1000)))
        burn(chip, 5 * US)
        await handle

    us = {name: round(value * 1e6, 6) for name, value in run(program).breakdown._asdict().items()}
    assert us == {
        "compute_s": 5.0, "memory_s": 0.0, "communication_s": 12.0, "exposed_communication_s": 7.0, "idle_s": 0.0,
    }  # fmt: skip


def test_the_program_has_no_gaps_and_names_what_it_waits_for():
    """Every chip's own events follow one another; a wait bears the name of its operation."""
    timeline = run(beside, machine=ring(5))
    for chip in range(5):
        mine = [e for e in timeline.events() if e.chip == chip and e.engine == "program"]
        assert [e.start_ps for e in mine] == [0, *(e.end_ps for e in mine[:-1])]
    names = {e.operation for e in timeline.events() if e.engine == "program"}
    assert names == {"burn", "all_gather", "wait all_reduce", "wait all_gather", "wait send ring", "wait recv ring"}
    assert {e.operation for e in timeline.events() if e.engine == "communication"} == {
        "all_reduce", "all_gather", "send ring", "recv ring",
    }  # fmt: skip


def test_started_and_awaited_at_once_is_blocking():
    """To start and to await at once takes the time of the blocking operation, to the picosecond."""

    class AtOnce:
        """A chip whose every operation is started."""

        def __init__(self, chip):
            self.chip = chip

        def __getattr__(self, name):
            method = getattr(self.chip, name)
            if name not in {"all_reduce", "all_gather", "send", "recv"}:
                return method

            async def at_once(*args, **kwargs):
                return await self.chip.start(method(*args, **kwargs))

            return at_once

    async def program(chip):
        return await layers(AtOnce(chip))

    for machine in (ring(8), mesh(4, 2, launch_ps=300_000, step_ps=20_000), switch(8, 25e9, planes=(5, 4))):
        blocking, started = (launch(machine).run(p) for p in (layers, program))
        for a, b in zip(blocking.values, started.values, strict=True):
            np.testing.assert_array_equal(a, b)
        assert started.timeline.total_ps == blocking.timeline.total_ps
        assert started.timeline.marks == blocking.timeline.marks
        assert started.timeline.breakdown == blocking.timeline.breakdown


def test_one_member_may_block_where_another_starts():
    """It is the same call."""

    async def program(chip):
        reduced = chip.all_reduce(array(chip, 4, chip.rank))
        return float((await (chip.start(reduced) if chip.rank % 2 else reduced))[0])

    assert launch(ring(4)).run(program).values == [6.0] * 4


def test_overwriting_what_was_started_changes_nothing():
    """What is sent is the input at the start."""

    async def program(chip):
        x = np.full(4, chip.rank, np.float32)
        reduced = chip.start(chip.all_reduce(x))
        sent = chip.start(chip.send(x, (chip.rank + 1) % 4))
        x[:] = -1
        received = await chip.recv((chip.rank - 1) % 4)
        await sent
        return float(received[0]), float((await reduced)[3])

    assert launch(ring(4)).run(program).values == [((r - 1) % 4, 6.0) for r in range(4)]


@pytest.mark.parametrize("numerics", ["real", "shapes"])
def test_receives_take_messages_in_the_order_of_asking(numerics):
    """The first receive asked for gets the first message, started or not."""

    async def program(chip):
        if chip.rank:
            for size in (1, 2, 3):
                await chip.send(array(chip, size), 0)
            return None
        early = [chip.start(chip.recv(1)) for _ in range(2)]
        third = await chip.recv(1)
        second, first = await early[1], await early[0]
        return first.shape[0], second.shape[0], third.shape[0]

    assert launch(ring(2), numerics=numerics).run(program).values[0] == (1, 2, 3)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5), st.integers(0, 3)), max_size=8))
def test_one_group_against_a_recurrence(rounds):
    """Chips that do the same: an operation begins when it is started and the one before is over, and takes its time.

    A round computes, starts an all-reduce of some KB, and awaits it so many rounds later.
    """
    now_ps, free_ps, ends_ps = 0, 0, []
    for i, (compute_us, kilobytes, _) in enumerate(rounds):
        now_ps += compute_us * US
        free_ps = max(now_ps, free_ps) + 6 * (1 + kilobytes) * US
        ends_ps.append(free_ps)
        now_ps = max(now_ps, *(ends_ps[k] for k in range(i + 1) if k + rounds[k][2] == i), 0)
    now_ps = max([now_ps, *ends_ps])

    async def program(chip):
        handles = []
        for i, (compute_us, kilobytes, _) in enumerate(rounds):
            burn(chip, compute_us * US)
            handles.append(chip.start(chip.all_reduce(array(chip, kilobytes * 1000))))
            for k in range(i + 1):
                if k + rounds[k][2] == i:
                    await handles[k]
        for k, handle in enumerate(handles):
            if k + rounds[k][2] >= len(rounds):
                await handle

    assert run(program).total_ps == now_ps


OPERATIONS = st.tuples(
    st.sampled_from(["all_reduce", "all_gather", "all_to_all", "reduce_scatter", "broadcast", "barrier", "message"]),
    st.sampled_from([None, "x", "y"]),
    st.integers(1, 3).map(lambda k: 12 * k),
    st.integers(0, 4),
)
"""(operation, axis, rows, how many items later it is awaited)"""
ITEMS = st.lists(st.one_of(OPERATIONS, st.integers(1, 20)), max_size=9)


async def random_program(chip, items, early):
    """Carry out the items: numbers are kernels of as many us on chip 0, half as many on chip 1, and so on."""
    results, under_way = [], []

    async def take(until):
        for entry in [entry for entry in under_way if entry[0] <= until]:
            under_way.remove(entry)
            results.append((entry[1], await entry[2]))

    for i, item in enumerate(items):
        await take(i)
        if isinstance(item, int):
            burn(chip, item * US // (1 + chip.rank))
            continue
        op, axis, rows, later = item
        if op == "message":
            there, back = (chip.rank + rows // 12) % chip.n_chips, (chip.rank - rows // 12) % chip.n_chips
            asked = [lambda d=there, n=rows: chip.send(array(chip, n, chip.rank), d), lambda s=back: chip.recv(s)]
        elif op == "barrier":
            asked = [lambda a=axis: chip.barrier(axis=a)]
        else:
            asked = [lambda o=op, n=rows, a=axis: getattr(chip, o)(array(chip, (n, 20), chip.rank + 0.1), axis=a)]
        for k, ask in enumerate(asked):
            if early:
                under_way.append((i + later, (i, k), chip.start(ask())))
            else:
                results.append(((i, k), await ask()))
    await take(len(items) + 9)
    return [y for _, y in sorted(results, key=lambda result: result[0])]


@settings(max_examples=40)
@given(ITEMS)
def test_random_programs(items):
    """Starting early changes no bit of a value, and without contention never makes a run longer."""
    blocking, early = (
        launch(mesh(3, 2, launch_ps=100_000), contention="none").run(random_program, items, started)
        for started in (False, True)
    )
    for a, b in zip(blocking.values, early.values, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert early.timeline.total_ps <= blocking.timeline.total_ps
    b = early.timeline.breakdown
    assert b.compute_s + b.memory_s + b.exposed_communication_s + b.idle_s == pytest.approx(early.time_s)
    fluid, again = (
        launch(mesh(3, 2), numerics=n).run(random_program, items, True).timeline.sha256() for n in ("real", "shapes")
    )
    assert fluid == again
