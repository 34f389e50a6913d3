"""Several programs on one chip: while one communicates, the next one computes."""

from __future__ import annotations

import pytest

from cluster import launch
from configs.errors import ProgramError
from tests.cluster.machines import BURN, US, array, mesh, ring
from workloads.turns import shared, take_turns

T = 12 * US
"""A ring all-reduce of 4,000 bytes among four chips: 6 steps of 1 us latency and 1 us at 1 GB/s."""


@pytest.mark.parametrize(("compute_us", "expected_us"), [(20, 2 * 3 * 20 + 12), (12, 7 * 12), (5, 5 + 2 * 3 * 12)])
def test_two_programs_that_take_turns(compute_us, expected_us):
    """Two of k rounds of compute C and all-reduce T take 2 k max(C, T) + min(C, T); in a row they take 2 k (C + T)."""

    async def rounds(chip):
        for _ in range(3):
            chip.apply(BURN, array(chip, 1), flops=compute_us * US)
            await chip.all_reduce(array(chip, 1000))
        return chip.rank

    async def turns(chip):
        return await take_turns(chip, [rounds(shared(chip, f"half {i}")) for i in range(2)])

    async def in_a_row(chip):
        return [await rounds(chip), await rounds(chip)]

    result = launch(ring(4), collectives={"all_reduce": "ring"}).run(turns)
    assert result.timeline.total_ps == expected_us * US
    assert result.values == launch(ring(4), collectives={"all_reduce": "ring"}).run(in_a_row).values
    assert launch(ring(4), collectives={"all_reduce": "ring"}).run(in_a_row).timeline.total_ps == 6 * (
        compute_us * US + T
    )


@pytest.mark.parametrize("numerics", ["real", "shapes"])
def test_turns_over_stages(numerics):
    """Of two messages through a pipeline of n stages, one is on its way while the other is worked on: n + 1 times C."""

    async def stage(chip, k):
        x = array(chip, 10, k) if chip.rank == 0 else await chip.recv(chip.rank - 1)
        x = chip.apply(BURN, x, flops=10 * US)
        await chip.all_reduce(x, chip.group("alone", (chip.rank,)))  # blocks, and takes no time
        if chip.rank + 1 < chip.n_chips:
            await chip.send(x, chip.rank + 1)
        return float(x[0]) if chip.real else 0.0

    async def program(chip):
        return await take_turns(chip, [stage(shared(chip, f"{k}", {"send", "recv"}), k) for k in (1, 2)])

    result = launch(mesh(4, 1, latency_ps=0, bandwidth=1e15), numerics=numerics).run(program)
    assert result.timeline.total_ps == 5 * 10 * US
    assert numerics == "shapes" or result.values[3] == [16.0, 32.0]


def test_programs_that_start_operations_themselves():
    """While one awaits what it started, it is the other's turn: two kernels of C beside two all-reduces in a row."""

    async def program(chip, k):
        handle = chip.start(chip.all_reduce(array(chip, 1000, k)))
        chip.apply(BURN, array(chip, 1), flops=5 * US)
        return float((await handle)[0])

    async def turns(chip):
        return await take_turns(chip, [program(shared(chip, f"{k}"), k) for k in (1, 2)])

    result = launch(ring(4), collectives={"all_reduce": "ring"}).run(turns)
    assert result.values == [[4.0, 8.0]] * 4
    assert result.timeline.total_ps == 2 * T


def test_a_program_that_fails_in_its_turn_closes_the_others():
    """The error comes out as it would of a program alone."""
    closed = []

    async def fails(chip, k):
        try:
            await chip.barrier()
            if k:
                raise KeyError(k)
            await chip.barrier()
        finally:
            closed.append(k)

    async def program(chip):
        await take_turns(chip, [fails(shared(chip, f"{k}"), k) for k in (0, 1)])

    with pytest.raises(ProgramError, match="chip 0: the program raised KeyError: 1"):
        launch(ring(2)).run(program)
    assert closed[:2] == [1, 0]
