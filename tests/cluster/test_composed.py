"""Programs and benches on composed systems: collectives on every algorithm, and times by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cluster import launch
from cluster.bench import bench
from configs.spec import LinkSpec
from tests.cluster.machines import system
from tests.collectives.rows import ROWS
from topology import Compose, FatTree, Line, Ring, Switch, Torus

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
