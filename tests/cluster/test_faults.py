"""Programs, benches and runs on a system with dead links and chips."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from cluster import launch
from cluster.bench import bench
from configs.errors import ConfigError
from configs.spec.faults import FaultsSpec
from tests.cluster.machines import mesh, switch
from tests.collectives.rows import ROWS


def broken(system, *links, chips=()):
    """Return a system with these faults."""
    return evolve(system, faults=FaultsSpec(links, chips))


@pytest.mark.parametrize("op", dict.fromkeys(op for op, *_ in ROWS))
def test_every_collective_on_a_mesh_with_a_hole(op):
    """Every algorithm that fits 11 chips gives the right values, and a time."""
    for row in bench(broken(mesh(4, 3), (0, 1), (6, 7), chips=(4,)), op, algorithm="all", sizes_bytes=[4 * 11 * 6]):
        assert (row.n_ranks, row.wrong) == (11, 0)


def test_programs_see_the_live_chips():
    """Ranks are 0 to 10, and the column through the hole has one chip less."""

    async def program(chip):
        return chip.n_chips, (await chip.all_gather(np.array([chip.rank]), axis="x")).tolist()

    with launch(broken(mesh(4, 3), chips=(4,))) as cluster:
        values = cluster.run(program).values
    assert values[1] == (11, [1, 6, 9])
    assert values[4] == (11, [2, 4, 7, 10])


def test_detours_take_their_time():
    """A message over the dead link takes three hops in place of one."""

    async def program(chip):
        if chip.rank == 0:
            await chip.send(np.zeros(250, np.float32), 1)
        if chip.rank == 1:
            await chip.recv(0)

    whole = mesh(2, 2)
    times = []
    for system in (whole, broken(whole, "chip0-chip1")):
        with launch(system) as cluster:
            times.append(cluster.run(program).timeline.total_ps)
    assert times == [2_000_000, 4_000_000]


def test_a_transfer_between_islands_is_refused():
    """Chips that are cut off are named; programs that leave them alone run."""

    async def everybody(chip):
        await chip.barrier()

    async def neighbours(chip):
        await chip.barrier(axis="y")

    system = broken(mesh(2, 2), (0, 2), (1, 3))
    with launch(system) as cluster:
        assert cluster.run(neighbours).time_s > 0
        with pytest.raises(ConfigError, match="no path is left; cut off: chip0 from chip2"):
            cluster.run(everybody)


def test_a_dead_switch_plane_slows_down():
    """Without one of its four links in two planes, a chip's transfers take 4/3 of the time."""

    async def program(chip):
        await chip.all_reduce(np.zeros(3 * 4 * 2**20, np.float32))

    times = []
    for links in ((), ("chip0-switch0",)):
        with launch(broken(switch(3, planes=(1, 3), latency_ps=0), *links)) as cluster:
            times.append(cluster.run(program).timeline.total_ps)
    assert times[1] / times[0] == pytest.approx(4 / 3, rel=1e-3)
