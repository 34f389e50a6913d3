"""The timeline: what it adds up to, its digest, and its independence of numerics, hosts and repetition."""

from __future__ import annotations

import random

import numpy as np
import pytest

from cluster import launch
from cluster.backends.base import Setting
from cluster.backends.local import LocalBackend
from cluster.records import Compute, Mark, Receive, RecordTable, Send, Trace, merge
from cluster.timeline import time_run
from cluster.timeline.intervals import Intervals
from tests.cluster import machines
from tests.cluster.machines import BURN, array, layers, mesh, ring, switch, torus

SYSTEMS = {
    "ring": ring(8),
    "mesh": mesh(4, 2, launch_ps=300_000, step_ps=20_000, link_efficiency=0.9),
    "torus": torus(2, 2, 2, bandwidth=12.5e9),
    "switch": switch(8, 25e9, planes=(5, 4, 4, 5)),
}
systems = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)


async def idle_here_and_there(chip):
    """Compute for different times on half of the chips, then meet, then compute from memory."""
    x = array(chip, 64, chip.rank)
    if chip.rank % 2:
        chip.apply(BURN, x, flops=10**6 * chip.rank)
    x = await chip.all_reduce(x)
    chip.apply(BURN, x, size=10**6)
    if chip.rank == 0:
        await chip.send(x, 1)
    if chip.rank == 1:
        await chip.recv(0)


async def nothing(chip):
    """Do nothing at all."""
    return chip.rank


PROGRAMS = {"layers": layers, "idle": idle_here_and_there, "nothing": nothing}
programs = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)


@systems
@programs
def test_the_breakdown_is_the_total(system, program):
    """Compute, memory, exposed communication and idle sum to the total; communication has its exposed part."""
    timeline = launch(system, numerics="shapes").run(program).timeline
    b = timeline.breakdown
    assert b.compute_s + b.memory_s + b.exposed_communication_s + b.idle_s == pytest.approx(timeline.total_ps * 1e-12)
    assert min(b) >= 0
    assert b.exposed_communication_s <= b.communication_s * (1 + 1e-12)


def test_the_breakdown_by_hand():
    """Chip 0 computes 2 us and sends 1 us + 1 us; chip 1 idles, takes it, and computes 3 us from memory."""

    async def program(chip):
        if chip.rank == 0:
            chip.apply(BURN, array(chip, 1), flops=2_000_000)
            await chip.send(array(chip, 250), 1)
        else:
            await chip.recv(0)
            chip.apply(BURN, array(chip, 1), size=3_000_000)

    timeline = launch(ring(2)).run(program).timeline
    assert timeline.total_ps == 7_000_000
    mean_us = {name: round(value * 1e6, 6) for name, value in timeline.breakdown._asdict().items()}
    assert mean_us == {
        "compute_s": 1.0, "memory_s": 1.5, "communication_s": 2.0, "exposed_communication_s": 2.0, "idle_s": 2.5,
    }  # fmt: skip


@systems
@programs
def test_operations_of_a_chip_follow_each_other(system, program):
    """Each operation begins when the chip's one before has ended; the last end is the total."""
    timeline = launch(system, numerics="shapes").run(program).timeline
    for chip in range(8):
        mine = [(e.start_ps, e.end_ps) for e in timeline.events() if e.chip == chip]
        assert mine == sorted(mine)
        assert [s for s, _ in mine] == [0, *(e for _, e in mine[:-1])][: len(mine)]
    assert timeline.total_ps == max((e.end_ps for e in timeline.events()), default=0)


@systems
@programs
def test_with_and_without_data(system, program):
    """Real numerics and shapes give the same timeline, marks and links."""
    real, shapes = (launch(system, numerics=n).run(program).timeline for n in ("real", "shapes"))
    assert real.sha256() == shapes.sha256()
    assert real.events() == shapes.events()
    assert (real.marks, real.mark_index, real.links) == (shapes.marks, shapes.mark_index, shapes.links)
    assert real.breakdown == shapes.breakdown


def test_ten_launches_are_one():
    """The same program on ten new clusters, and twice on one, gives one digest and the same bits."""
    found = set()
    for _ in range(10):
        with launch(SYSTEMS["mesh"]) as cluster:
            for result in (cluster.run(layers), cluster.run(layers)):
                found.add((result.timeline.sha256(), *(x.tobytes() for x in result.values)))
    assert len(found) == 1


def test_the_digest_feels_every_change():
    """Other sizes, links, orders, names and numbers of layers give other digests."""

    async def renamed(chip):
        await chip.send(array(chip, 4), 1 - chip.rank, "a")
        await chip.recv(1 - chip.rank, "a")

    async def named(chip):
        await chip.send(array(chip, 4), 1 - chip.rank, "b")
        await chip.recv(1 - chip.rank, "b")

    async def burn(chip, flops):
        chip.apply(BURN, array(chip, 1), flops=flops)

    digests = [
        launch(ring(8)).run(layers).timeline.sha256(),
        launch(ring(8)).run(layers, 3).timeline.sha256(),
        launch(ring(8, latency_ps=1_000_001)).run(layers).timeline.sha256(),
        *(launch(ring(2)).run(program).timeline.sha256() for program in (named, renamed)),
        *(launch(ring(2)).run(burn, flops).timeline.sha256() for flops in (1000, 1001)),
        launch(ring(3)).run(burn, 1000).timeline.sha256(),
        launch(ring(3)).run(nothing).timeline.sha256(),
    ]
    assert len(set(digests)) == len(digests)


def test_values_do_not_change_the_digest():
    """The timeline depends on shapes alone."""
    assert len({launch(ring(4)).run(layers, 2, seed).timeline.sha256() for seed in range(3)}) == 1


def test_events_are_in_the_order_of_time_chip_and_program():
    """Ties are ordered by chip, then by the program's order."""
    events = launch(ring(4)).run(layers).timeline.events()
    assert [(e.start_ps, e.chip) for e in events] == sorted((e.start_ps, e.chip) for e in events)
    assert [e.operation for e in events if e.chip == 3][:4] == ["product", "all_reduce", "send on", "recv on"]


def test_marks_are_moments():
    """A value is handed over when the operation before it has ended; marks are no events."""
    timeline = launch(ring(4)).run(layers).timeline
    assert {m.operation for m in timeline.marks} == {"layer"}
    assert len(timeline.marks) == 8
    ends = {(e.chip, e.end_ps) for e in timeline.events() if e.operation == "recv on"}
    assert {(m.chip, m.end_ps) for m in timeline.marks} == ends
    assert "layer" not in {e.operation for e in timeline.events()}


def test_busiest_links():
    """Utilisation is bytes over capacity times total; equal links are ordered by name."""

    async def program(chip):
        if chip.rank < 2:
            await chip.send(array(chip, 250 * (1 + chip.rank)), chip.rank + 1)
        if chip.rank > 0 and chip.rank < 3:
            await chip.recv(chip.rank - 1)

    timeline = launch(mesh(4, 1, latency_ps=0)).run(program).timeline
    assert timeline.total_ps == 2_000_000
    assert [tuple(link) for link in timeline.busiest_links(5)] == [("chip1→chip2", 1.0), ("chip0→chip1", 0.5)]
    assert timeline.busiest_links(1) == timeline.links[1:2]


def test_a_busy_ring_uses_all_its_links_alike():
    """A ring all-gather without latency fills every link that goes round, and no other."""

    async def program(chip):
        await chip.all_gather(array(chip, 250))

    links = launch(ring(4, latency_ps=0), collectives={"all_gather": "ring"}).run(program).timeline.busiest_links(10)
    assert [link.name for link in links] == ["chip0→chip1", "chip1→chip2", "chip2→chip3", "chip3→chip0"]
    assert [link.utilisation for link in links] == pytest.approx([1.0] * 4)


@systems
def test_no_link_is_used_beyond_its_capacity(system):
    """Utilisation stays within 0 and 1 under contention."""
    timeline = launch(system, numerics="shapes").run(layers).timeline
    assert all(0 < link.utilisation <= 1 + 1e-9 for link in timeline.links)


def hosts(records, traces, partition, seed):
    """Return what several hosts would bring back: each with a table of its own, numbered in an order of its own."""
    random_ = random.Random(seed)
    parts = []
    for ranks in partition:
        table = RecordTable()
        mine = [t for t in traces if t.rank in ranks]
        used = sorted({int(n) for t in mine for n in t.numbers})
        random_.shuffle(used)
        number = {n: table.number(records[n]) for n in used}
        copies = [Trace(t.rank, np.array([number[int(n)] for n in t.numbers], np.int32)) for t in mine]
        random_.shuffle(copies)
        parts.append((table.records, copies))
    random_.shuffle(parts)
    return parts


@pytest.mark.parametrize(
    "partition", [[range(8)], [range(4), range(4, 8)], [(0, 2, 4, 6), (1, 3, 5, 7)], [(r,) for r in range(8)]], ids=str
)
def test_where_the_chips_lived_does_not_matter(partition):
    """However chips are spread over hosts, the merged records, traces and timeline are the same."""
    system = SYSTEMS["mesh"]
    [outcome] = LocalBackend(Setting(system, 8, "shapes")).run(layers, (), lambda *_: None, lambda _: None)
    records, traces = merge([(outcome.records, outcome.traces)])
    topology = system.topology.build(system.routing)
    digest = time_run(system, topology, "fluid", records, traces).sha256()
    for seed in range(3):
        again, others = merge(hosts(outcome.records, outcome.traces, partition, seed))
        assert again == records
        assert [t.rank for t in others] == list(range(8))
        assert all(np.array_equal(a.numbers, b.numbers) for a, b in zip(others, traces, strict=True))
        assert time_run(system, topology, "fluid", again, others).sha256() == digest


def test_records_are_numbered_once():
    """Equal records share a number; records of different kinds never do."""
    table = RecordTable()
    records = [Compute("a", 1, "compute"), Send(0, "a", 1), Receive(0, "a"), Mark("a", 0), Compute("a", 1, "memory")]
    assert [table.number(r) for r in records * 2] == [0, 1, 2, 3, 4] * 2
    assert table.records == records


def test_a_program_that_does_nothing():
    """An empty run takes no time and has no events, and values come back by rank."""
    result = launch(ring(3)).run(nothing)
    assert (result.time_s, result.timeline.events(), result.timeline.links) == (0.0, [], ())
    assert result.values == [0, 1, 2]


def test_values_of_any_kind_come_back():
    """Programs return what they like."""

    async def program(chip):
        return {"rank": chip.rank, "x": np.arange(chip.rank)} if chip.rank else None

    first, second = launch(ring(2)).run(program).values
    assert first is None
    assert second["x"].tolist() == [0]


def test_intervals_against_a_count_of_moments():
    """What intervals cover, from when to when, and which of them meet, counted moment by moment."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        n = int(rng.integers(0, 30))
        owner, start = rng.integers(0, 4, n).astype(np.int32), rng.integers(0, 40, n)
        end = start + rng.integers(-1, 9, n).clip(0)
        covered = [
            len({m for o, s, e in zip(owner, start, end, strict=True) if o == k for m in range(s, e)}) for k in range(4)
        ]
        intervals = Intervals(owner, start, end)
        assert intervals.merged().lengths(4).tolist() == covered
        hulls = {int(k): (int(start[owner == k].min()), int(end[owner == k].max())) for k in owner}
        whole = intervals.hulls()
        assert {k: (s, e) for k, s, e in zip(whole.owner, whole.start, whole.end, strict=True)} == hulls
        long = np.maximum(end, start + 1)
        meets = (owner[:, None] == owner) & (start[:, None] < long) & (start < long[:, None]) & ~np.eye(n, dtype=bool)
        assert intervals.overlapping().tolist() == meets.any(axis=1).tolist()


def test_overheads_belong_to_communication():
    """Launch and step costs are communication of the chip that pays them."""

    async def program(chip):
        await chip.all_gather(array(chip, 250))

    system = machines.ring(2, latency_ps=0, launch_ps=1_000_000, step_ps=500_000)
    b = launch(system).run(program).timeline.breakdown
    assert b.exposed_communication_s == pytest.approx(2.5e-6)
    assert b.idle_s == pytest.approx(0)
