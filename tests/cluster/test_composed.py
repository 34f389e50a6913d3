"""Programs and benches on composed systems: collectives on every algorithm, and times by hand."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from cluster import launch
from cluster.bench import bench
from cluster.listing import topology_json
from configs.errors import CapacityError, ConfigError
from configs.spec.chip import ChipSpec, MemoryTier
from configs.spec.faults import FaultsSpec
from configs.spec.topology import LinkSpec
from tests.cluster.machines import BURN, CHIP, array, system
from tests.collectives.rows import ROWS
from topology import Compose, FatTree, Line, Nodes, Ring, Switch, Torus, build_topology, chips_of

US = 1_000_000
FAST, SLOW = LinkSpec(4e9, US), LinkSpec(1e9, US)
PODS = {
    "rails": Compose(Switch(2, FAST, (1, 1)), 4, network=FatTree(8, 4, SLOW, rails=2)),
    "ultraserver": Compose(Torus((2, 2), FAST), 3, ("z",), network=Ring((3,), SLOW), each_nic=True),
}


@pytest.mark.parametrize("op", dict.fromkeys(op for op, *_ in ROWS))
@pytest.mark.parametrize("pod", PODS)
def test_every_collective(pod, op):
    """Every algorithm that fits gives the right values, and a time."""
    n = 8 if pod == "rails" else 12
    for row in bench(system(PODS[pod]), op, algorithm="all", sizes_bytes=[4 * n * 6]):
        assert (row.n_ranks, row.wrong) == (n, 0)


@pytest.mark.parametrize("contention", ["fluid", "none"])
def test_ways_that_share_a_link_share_its_bandwidth(contention):
    """Both ways to chip 3 of the other board go over the one link between the boards: 1 GB/s, whatever comes after."""

    async def program(chip):
        if chip.rank == 0:
            await chip.send(np.zeros(250_000_000, np.int8), 3)
        if chip.rank == 3:
            await chip.recv(0)

    pair = Compose(Switch(2, FAST, (1, 1)), 2, network=Line((2,), SLOW), each_nic=True)
    with launch(system(pair), contention=contention) as cluster:
        assert cluster.run(program).timeline.total_ps == 3 * US + 250_000 * US


def test_hierarchical_all_reduce_uses_the_nodes():
    """Inside nodes at 4 GB/s and between them at 1 GB/s it is faster than one ring through all chips."""
    rows = {row.algorithm: row.time_s for row in bench(system(PODS["rails"]), "all_reduce", algorithm="all",
                                                       sizes_bytes=[2**24], numerics="shapes")}  # fmt: skip
    assert rows["hierarchical"] < rows["ring"]


SLOW_CHIP = ChipSpec("slow", {"fp32": 1e11, "bf16": 4e11}, (MemoryTier("dram", 2**20, 1e10),), matrix_tile=(32, 32, 32))


def mixed(slow=SLOW_CHIP):
    """A line of two toy chips, and two boards of one slow chip, behind a switch."""
    board = system(Line((1,), FAST), slow)
    parts = (Nodes(Line((2,), FAST)), Nodes(board, 2))
    return system(Compose(parts=parts, network=Switch(4, SLOW)))


def test_every_chip_is_its_own():
    """Cost, memory and the list of chips go by the rank's own chip."""

    async def program(chip, n):
        chip.apply(BURN, array(chip, 1), flops=2_000_000)
        chip.place("kv", (n,), "fp32")

    with launch(mixed()) as cluster:
        with pytest.raises(CapacityError, match=r"chip 2 \(slow\): 1 tensors need"):
            cluster.run(program, 300_000)
        result = cluster.run(program, 30)
    ends_ps = {event.chip: event.end_ps for event in result.timeline.events()}
    assert ends_ps == {0: 2 * US, 1: 2 * US, 2: 20 * US, 3: 20 * US}
    assert topology_json(mixed())["chips"] == {"toy": 2, "slow": 2}


def test_a_dead_chip_keeps_the_others_theirs():
    """Ranks number the live chips: with the first one dead, rank 1 is on the first slow board."""
    faulty = evolve(mixed(), faults=FaultsSpec(chips=(0,)))
    assert [chip.name for chip in chips_of(faulty, build_topology(faulty))] == ["toy", "slow", "slow"]


def test_one_name_for_two_chips_is_refused():
    """Figures that an override changed on one side only are not taken for the other's."""
    with pytest.raises(ConfigError, match="has a chip toy with other figures than another of that name"):
        launch(mixed(evolve(CHIP, kernel_launch_ps=1))).run(None)


def test_groups_at_every_level():
    """Along `chips` the node, along `node` the rail, along both all; the order of the names does not matter."""

    async def program(chip):
        axes = ("chips", "node", "node,chips", "chips, node")
        return [(await chip.all_gather(np.array([chip.rank]), axis=axis)).tolist() for axis in axes]

    with launch(system(PODS["rails"])) as cluster:
        values = cluster.run(program).values
    assert values[5] == [[4, 5], [1, 3, 5, 7], list(range(8)), list(range(8))]


def test_switches_that_add_do_so_in_composed_systems():
    """Inside nodes behind such switches, between nodes where the network has them, and with links of theirs dead."""
    node, top = Switch(4, FAST, (1, 1), in_network=True), Switch(8, SLOW, in_network=True)
    pod = system(Compose(node, 2, network=top))
    faulty = evolve(pod, faults=FaultsSpec(links=("chip0-switch0",)))
    assert build_topology(pod).adding_switches == {0, 1, 2, 3, 4}
    for machine in (pod, faulty):
        for axis in ("node", "chips", None):
            [row] = bench(machine, "all_reduce", axis=axis, algorithm="in_network", sizes_bytes=[2**16])
            assert row.wrong == 0
