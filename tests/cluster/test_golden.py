"""Golden timelines: a few small runs as text, one operation a line; any change of the prediction shows as a diff.

Rewritten only by `pytest --regenerate-golden`.
"""

from __future__ import annotations

import pytest

from cluster import launch
from tests.cluster.machines import BURN, array, beside, layers, mesh, ring, switch, torus


async def pipeline(chip):
    """Three microbatches through one stage per chip, and a broadcast of the end."""
    for i in range(3):
        x = array(chip, 256) if chip.rank == 0 else await chip.recv(chip.rank - 1, "hidden")
        x = chip.apply(BURN, x, flops=500_000 * (1 + chip.rank), size=700_000)
        if chip.rank + 1 < chip.n_chips:
            await chip.send(x, chip.rank + 1, "hidden")
        else:
            chip.emit("done", index=i)
    await chip.broadcast(array(chip, 10), root=chip.n_chips - 1)


async def axes(chip):
    """Reduce along one axis while the other line does the same, then exchange along the second, all over again."""
    x = array(chip, (12, 5))
    for _ in range(2):
        x = await chip.all_reduce(x, axis="x")
        chip.apply(BURN, x, flops=100_000 * chip.rank)
        x = await chip.all_to_all(x, axis="y")
    await chip.reduce_scatter(x)


async def everybody_to_everybody(chip):
    """An uneven start, then all pairs at once over the switch planes, then the tree."""
    x = array(chip, chip.n_chips * 1000)
    chip.apply(BURN, x, flops=1_000_000 * (chip.rank % 3))
    await chip.all_to_all(x)
    await chip.broadcast(x, root=2)


OVERHEADS = {"launch_ps": 1_500_000, "step_ps": 250_000, "link_efficiency": 0.9}
RUNS = {
    "layers-on-a-ring": (ring(4, 12.5e9), layers),
    "pipeline-on-a-mesh": (mesh(4, 1, latency_ps=711_000), pipeline),
    "axes-of-a-torus-with-overheads": (torus(3, 2, bandwidth=50e9, **OVERHEADS), axes),
    "started-beside-kernels": (ring(4, 12.5e9, launch_ps=500_000), beside),
    "all-pairs-over-switch-planes": (switch(6, 25e9, 936_250, planes=(5, 4, 4, 5)), everybody_to_everybody),
}


def text(timeline) -> str:
    """Return a timeline as text: chip, operation, start and end in ps, in the order of the digest."""
    lines = [f"{'chip':>4} {'operation':<16} {'start_ps':>12} {'end_ps':>12}"]
    lines += [f"{e.chip:>4} {e.operation:<16} {e.start_ps:>12} {e.end_ps:>12}" for e in timeline.events()]
    marks = zip(timeline.marks, timeline.mark_index, strict=True)
    lines += [f"mark: chip {m.chip} {m.operation} {index} at {m.end_ps}" for m, index in marks]
    lines += [f"link: {link.name} {link.utilisation:.6f}" for link in timeline.busiest_links(4)]
    return "\n".join([*lines, f"total: {timeline.total_ps} ps", ""])


@pytest.mark.parametrize("name", RUNS)
def test_golden_timeline(name, golden):
    """The run's timeline is the stored one, to the picosecond."""
    system, program = RUNS[name]
    golden(f"{name}.txt", text(launch(system, numerics="shapes").run(program).timeline))
