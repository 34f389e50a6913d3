"""Traces for Perfetto: every event once, arrows from sends to receives, counters that are the engine's rates."""

from __future__ import annotations

import gzip
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings

from cluster import launch
from cluster.experiment import run_experiment
from cluster.timeline import write_trace
from cluster.timeline.loads import bins_ps, utilisation
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment
from tests.cluster.machines import BURN, US, array, beside, layers, mesh, ring, switch, torus
from tests.cluster.test_overlap import ITEMS, random_program
from tests.cluster.trace_checker import read

SYSTEMS = {
    "ring": ring(8),
    "mesh": mesh(4, 2, launch_ps=300_000, step_ps=20_000, link_efficiency=0.9),
    "torus": torus(2, 2, 2, bandwidth=12.5e9),
    "switch": switch(8, 25e9, planes=(5, 4, 4, 5)),
}
systems = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)


async def nothing(chip):
    """Do nothing at all."""
    del chip


def check(timeline, folder):
    """Write a trace, read it back strictly, and hold it against the timeline; return what was read."""
    path = folder / "run.json"
    write_trace(timeline, path)
    found = read(path)
    chip = {f"chip {n}": n for n in range(timeline.inputs.topology.n_chips)}
    slices = [
        (chip[s.process], s.name, s.start_ps, s.end_ps, s.thread.rstrip(" 0123456789"))
        for s in found.slices
    ]  # fmt: skip
    assert Counter(slices) == Counter(map(tuple, timeline.events()))
    ran = Counter((s.name, s.args.get("layer"), s.thread != "program") for s in found.slices)
    operations = Counter()
    for row in timeline.operations:
        operations[row.name, row.layer, row.bound == "beside"] += row.count
    assert ran == operations
    marks = [(m.chip, m.operation, m.end_ps, i) for m, i in zip(timeline.marks, timeline.mark_index, strict=True)]
    assert Counter((chip[p], n, t, int(a["index"])) for p, n, t, a in found.instants) == Counter(marks)
    b, n_used = timeline.breakdown, max(sum(len(t.numbers) > 0 for t in timeline.inputs.traces), 1)
    for category, mean_s in (("compute", b.compute_s), ("memory", b.memory_s)):
        spent_ps = sum(s.end_ps - s.start_ps for s in found.slices if s.category == category)
        assert spent_ps * 1e-12 / n_used == pytest.approx(mean_s)
    for flow in found.flows:
        source, target = chip[flow.source.process], chip[flow.target.process]
        assert (flow.source.args["dst"], flow.target.args["src"]) == (target, source)
        assert (flow.start_ps, flow.end_ps) == (flow.source.start_ps, flow.target.end_ps)
        assert flow.source.end_ps <= flow.target.end_ps
        assert flow.source.name.removeprefix("send") == flow.target.name.removeprefix("recv")
    n_messages = sum(s.category == "message" for s in found.slices)
    assert 2 * len(found.flows) == n_messages
    for link in timeline.busiest_links(16):
        samples = [*found.counters[link.name], (timeline.total_ps, 0.0)]
        area = sum(v * (t - s) for (s, v), (t, _) in pairwise(samples))
        assert area / 100 / timeline.total_ps == pytest.approx(link.utilisation, abs=1e-5)
    assert len(found.counters) == min(len(timeline.links), 16)
    return found


@systems
@pytest.mark.parametrize("program", [layers, beside, nothing])
def test_a_trace_is_the_timeline(system, program, tmp_path):
    """What the file holds is every event of the timeline once, with its messages, marks and links."""
    found = check(launch(system, numerics="shapes").run(program).timeline, tmp_path)
    assert max((v for samples in found.counters.values() for _, v in samples), default=0) <= 100.1


@settings(max_examples=25, deadline=None)
@given(ITEMS)
def test_random_programs(tmp_path_factory, items):
    """So it is of any program, blocking and not."""
    for early in (False, True):
        timeline = launch(mesh(3, 2, launch_ps=100_000), numerics="shapes").run(random_program, items, early).timeline
        check(timeline, tmp_path_factory.getbasetemp())


def test_golden_trace(golden, tmp_path):
    """The trace of a small run is the stored one."""
    timeline = launch(ring(3, launch_ps=500_000), numerics="shapes").run(beside, 1).timeline
    write_trace(timeline, tmp_path / "run.json", {"system": "toy"})
    golden("trace-of-started-operations.json", (tmp_path / "run.json").read_text())


def test_the_same_bytes_each_time(tmp_path):
    """With and without data, plain and packed, under any name."""
    for number, numerics in enumerate(("real", "shapes", "real")):
        timeline = launch(SYSTEMS["torus"], numerics=numerics).run(beside).timeline
        for suffix in ("json", "json.gz"):
            write_trace(timeline, tmp_path / f"{number}.{suffix}")
    plain, packed = ({(tmp_path / f"{n}.{s}").read_bytes() for n in range(3)} for s in ("json", "json.gz"))
    assert len(plain) == len(packed) == 1
    assert gzip.decompress(packed.pop()) == plain.pop()
    assert read(tmp_path / "0.json.gz") == read(tmp_path / "0.json")


def test_link_use_by_hand():
    """Two transfers share a link of 1 GB/s: each at half the rate while both run; the second one ends alone."""

    async def program(chip):
        if chip.rank == 0:
            chip.apply(BURN, array(chip, 1), flops=2 * US)
            handles = [chip.start(chip.send(array(chip, 250 * n, dtype=np.float32), n)) for n in (1, 2)]
            for handle in handles:
                await handle
        elif chip.rank < 3:
            await chip.recv(0)

    timeline = launch(mesh(4, 1, latency_ps=0), numerics="shapes").run(program).timeline
    assert timeline.total_ps == 5 * US
    assert bins_ps(timeline.total_ps, 5).tolist() == [US * n for n in range(6)]
    use = utilisation(timeline, ["chip0→chip1", "chip1→chip2"], 5)
    assert use == pytest.approx(np.array([[0, 0, 1, 1, 1], [0, 0, 0.5, 0.5, 1]]))
    uneven = utilisation(timeline, ["chip1→chip2"], 2)
    assert uneven == pytest.approx(np.array([[0.25 / 2.5, 1.75 / 2.5]]))


def test_without_contention_a_link_carries_more_than_it_can():
    """Then every transfer has its links to itself, and the counter says what that amounts to."""

    async def program(chip):
        if chip.rank == 0:
            handles = [chip.start(chip.send(array(chip, 250), n)) for n in (1, 2)]
            for handle in handles:
                await handle
        elif chip.rank < 3:
            await chip.recv(0)

    timeline = launch(mesh(4, 1, latency_ps=0), numerics="shapes", contention="none").run(program).timeline
    assert utilisation(timeline, ["chip0→chip1"], 1) == pytest.approx(2)


@systems
def test_the_bins_are_the_mean(system):
    """However many bins there are, they add up to the use of the whole run, with calls looked up or not."""
    timeline = launch(system, numerics="shapes").run(layers, 4).timeline
    for n_bins in (1, 7, 1000):
        widths = np.diff(bins_ps(timeline.total_ps, n_bins))
        use = utilisation(timeline, [link.name for link in timeline.links], n_bins)
        assert use @ widths / timeline.total_ps == pytest.approx([link.utilisation for link in timeline.links])
        assert use.max() <= 1 + 1e-3


def test_names_are_any_text(tmp_path):
    """Tags and marks need not be plain letters."""

    async def program(chip):
        odd = 'a "b"\n→\udcff'
        await chip.send(array(chip, 4), 1 - chip.rank, odd)
        await chip.recv(1 - chip.rank, odd)
        chip.emit(odd)

    check(launch(ring(2)).run(program).timeline, tmp_path)


@pytest.mark.heavy
def test_the_trace_of_32_chips_is_small(tmp_path):
    """A whole run of 32 chips is far below 50 MB, and below 1 MB packed."""
    overrides = ("numerics=shapes", "workload.prompt=null", "workload.prompt_tokens=4")
    timeline = run_experiment(load_experiment("galaxy-smollm2", overrides, VOCABULARY)).timeline
    found = check(timeline, tmp_path)
    assert len({s.process for s in found.slices}) == 32
    write_trace(timeline, tmp_path / "run.json.gz")
    assert (tmp_path / "run.json").stat().st_size < 15e6
    assert (tmp_path / "run.json.gz").stat().st_size < 1e6
