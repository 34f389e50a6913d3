"""The times of operations by layer: they add up to the programs' ends, and every layer has what it runs."""

from __future__ import annotations

import numpy as np
import pytest

from cluster import launch
from cluster.timeline.accounts import by_name
from cluster.vocabulary import VOCABULARY
from configs.loader import load_model
from configs.spec.dtype import DtypeSpec
from tests.cluster.machines import array, ring
from workloads.decode import DecodeJob, decode
from workloads.elementwise import Add
from workloads.layout import Layout


def operations(layout, **more):
    """Return the operations and the timeline of a decode without data, four rows."""
    job = DecodeJob(load_model("smollm2-135m", (), VOCABULARY), layout, DtypeSpec(), (4,) * 4, 3, **more)
    with launch("wormhole-galaxy", n_chips=layout.n_ranks, numerics="shapes") as cluster:
        timeline = cluster.run(decode, job).timeline
    return timeline.operations, timeline


@pytest.mark.parametrize(
    ("layout", "parts"), [(Layout(tp=4), 1), (Layout(tp=2, pp=3), 1), (Layout(tp=2, pp=3), 2)], ids=str
)
def test_they_add_up(layout, parts):
    """What was not beside the programs sums to their ends; every layer ran its kernels once per step and rank."""
    found, timeline = operations(layout, micro_batches=parts)
    ends = [timeline.end_ps[timeline.chip == chip].max() for chip in range(layout.n_ranks)]
    assert sum(o.total_s for o in found if o.bound != "beside") == pytest.approx(np.mean(ends) * 1e-12)
    assert sum(o.count for o in found) == len(timeline.chip)
    for layer in range(30):
        assert {o.count for o in found if (o.layer, o.name) == (layer, "gate_up_matmul")} == {3 * layout.tp * parts}
    assert sum(o.count for o in found if o.name == "head_matmul") == 3 * layout.tp * parts
    assert all(o.layer is None for o in found if o.name in {"head_matmul", "embedding", "merge_argmax"})
    assert by_name(found)[0].total_s == max(o.total_s for o in by_name(found))


def test_a_program_says_where_it_is():
    """What runs before the first layer, between two and after the last has none; started operations are beside."""

    async def program(chip):
        x = array(chip, 1024)
        chip.apply(Add(), x, x)
        chip.layer = 7
        handle = chip.start(chip.all_reduce(x))
        chip.apply(Add(), x, x)
        chip.layer = None
        await handle

    timeline = launch(ring(4), numerics="shapes").run(program).timeline
    found = {(o.name, o.layer, o.bound): o.count for o in timeline.operations}
    assert {key[:2]: n for key, n in found.items() if key[0] == "add"} == {("add", None): 4, ("add", 7): 4}
    assert found["all_reduce", 7, "beside"] == found["wait all_reduce", None, "communication"] == 4
