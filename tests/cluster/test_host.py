"""Hosts: programs end, fail and wait for each other; chips on several hosts give what one host gives."""

from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from attrs import field, frozen

from cluster import launch
from cluster.backends.base import Setting, run_host
from cluster.host import Host, describe_deadlock
from cluster.records import merge
from cluster.selection import Chooser
from cluster.timeline import time_run
from configs.errors import ProgramError, RunError
from configs.spec.topology import LinkSpec
from tests.cluster.machines import array, beside, layers, mesh, ring
from tests.cluster.machines import system as machine
from topology import Switch


@frozen
class Lines:
    """In-memory lines between the hosts of one run; `end(k)` is the transport of host k."""

    host_of: dict
    inbox: dict = field(factory=dict)

    def end(self, host):
        """Return the transport of a host."""
        self.inbox[host] = queue.Queue()
        return LineEnd(self, host)


@frozen
class LineEnd:
    """One host's transport."""

    lines: Lines
    host: int

    def send(self, dst, src, tag, payload):
        """Put the message into the other host's queue."""
        self.lines.inbox[self.lines.host_of[dst]].put((0, dst, src, tag, payload))

    def poll(self, waiting):
        """Return what has arrived; give up when nothing does."""
        try:
            return [self.lines.inbox[self.host].get(timeout=20)]
        except queue.Empty:
            raise RunError(describe_deadlock(waiting())) from None


def on_hosts(system, partition, program, n_chips, numerics="real", algorithms=None):
    """Run a program with its chips spread over hosts in threads; return values and timeline."""
    lines = Lines({rank: k for k, ranks in enumerate(partition) for rank in ranks})
    setting = Setting(system, n_chips, numerics, algorithms=algorithms or {})
    ends = [lines.end(k) for k in range(len(partition))]
    with ThreadPoolExecutor(len(partition)) as pool:
        jobs = [
            pool.submit(run_host, setting, ranks, Host(end), program, (), lambda *_: None, Chooser(system))
            for ranks, end in zip(partition, ends, strict=True)
        ]
        outcomes = [job.result() for job in jobs]
    records, traces = merge([(o.records, o.traces) for o in outcomes])
    topology = system.topology.build(system.routing)
    values = {rank: value for o in outcomes for rank, value in o.values.items()}
    return [values[r] for r in range(n_chips)], time_run(system, topology, "fluid", records, traces)


@pytest.mark.parametrize("partition", [[(0, 1, 2, 3), (4, 5, 6, 7)], [(7, 2, 5), (0,), (6, 1, 3, 4)]], ids=str)
@pytest.mark.parametrize("program", [layers, beside])
def test_several_hosts_are_one(partition, program):
    """Values and timeline are bit for bit those of one host, however the chips are spread."""
    system = mesh(4, 2)
    alone = launch(system).run(program)
    values, timeline = on_hosts(system, partition, program, 8)
    assert timeline.sha256() == alone.timeline.sha256()
    assert timeline.links == alone.timeline.links
    for got, want in zip(values, alone.values, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("partition", [[(0, 1), (2, 3)], [(3,), (1, 2), (0,)]], ids=str)
def test_a_switch_that_adds_lives_with_the_first_chip(partition):
    """In-network collectives give the same bits and times wherever the chips are, in groups that do not begin at 0."""
    system = machine(Switch(chips=4, link=LinkSpec(1e9, 1000), planes=(2, 1), in_network=True))
    algorithms = {"all_reduce": "in_network", "all_gather": "in_network:pieces=2"}

    async def program(chip):
        x = np.linspace(chip.rank, 7, 50, dtype=np.float32)
        if chip.rank:
            x = await chip.all_reduce(x, group=chip.group("some", (3, 1, 2)))
        return await chip.all_gather(await chip.all_reduce(x))

    alone = launch(system, collectives=algorithms).run(program)
    values, timeline = on_hosts(system, partition, program, 4, algorithms=algorithms)
    assert timeline.sha256() == alone.timeline.sha256()
    assert [v.tobytes() for v in values] == [v.tobytes() for v in alone.values]
    assert len({v.tobytes() for v in values}) == 1
    assert 0 < timeline.breakdown.communication_s <= timeline.total_ps * 1e-12


@pytest.mark.parametrize("n_threads", [2, 3, 8])
@pytest.mark.parametrize("program", [layers, beside])
def test_threads_change_nothing(n_threads, program):
    """Chips that compute in several threads give the values, marks and timeline of a single one, every time."""
    system = mesh(4, 2)
    setting, topology = Setting(system, 8), system.topology.build(system.routing)

    def run(host):
        seen = []
        outcome = run_host(setting, range(8), host, program, (3,), lambda *what: seen.append(what), Chooser(system))
        records, traces = merge([(outcome.records, outcome.traces)])
        digest = time_run(system, topology, "fluid", records, traces).sha256()
        return digest, sorted(map(str, seen)), [outcome.values[rank].tobytes() for rank in range(8)]

    alone = run(Host())
    with ThreadPoolExecutor(n_threads - 1) as threads:
        for _ in range(5):
            assert run(Host(threads=threads, n_threads=n_threads)) == alone


def test_a_failure_on_one_host_names_the_chip():
    """The error of a program comes out of its host."""

    async def program(chip):
        if chip.rank == 1:
            return 1 // 0
        return None

    with pytest.raises(ProgramError, match="chip 1: the program raised ZeroDivisionError"):
        on_hosts(ring(2), [(0,), (1,)], program, 2)


@pytest.mark.parametrize("n_chips", [1, 2])
def test_no_program_catches_that_a_peer_is_gone(n_chips):
    """What ends the run ends it at once, also for chips that are alone on their host and go on after any error."""

    @frozen
    class Broken:
        n_polls: list = field(factory=list)

        def send(self, dst, src, tag, payload):
            """Send nothing."""

        def poll(self, waiting):
            """Find the peer gone, once."""
            self.n_polls.append(waiting())
            if len(self.n_polls) == 1:
                raise RunError("chip 2: the connection closed")
            raise AssertionError("waited on")

    async def stubborn(chip):
        for _ in range(3):
            try:
                await chip.all_reduce(np.ones(3), chip.group("some", (chip.rank, 2)))
            except Exception:  # noqa: BLE001  as programs do
                chip.emit("caught")
        return "done"

    transport, caught = Broken(), []
    with pytest.raises(RunError, match=r"^chip 2: the connection closed$"):
        run_host(
            Setting(ring(3), 3, "real", algorithms={"all_reduce": "ring"}), tuple(range(n_chips)), Host(transport),
            stubborn, (), lambda *event: caught.append(event), Chooser(ring(3)),
        )  # fmt: skip
    assert caught == []
    assert transport.n_polls == [[(rank, (2, "some#1 all_reduce")) for rank in range(n_chips)]]


def test_a_long_deadlock_is_cut_short():
    """The message shows eight chips and counts the others."""

    async def program(chip):
        await chip.recv((chip.rank + 1) % chip.n_chips, "x")

    with pytest.raises(ProgramError, match=r"chip 7 waits for chip 8 \(x\) and 4 more$"):
        launch(ring(12)).run(program)


def test_who_has_ended_is_not_in_the_message():
    """Only chips that wait are named."""

    async def program(chip):
        if chip.rank == 1:
            await chip.recv(2, "late")

    with pytest.raises(ProgramError) as error:
        launch(ring(3)).run(program)
    assert str(error.value) == "deadlock: chip 1 waits for chip 2 (late)"


def test_programs_are_closed_when_one_fails():
    """The others' `finally` blocks run."""
    closed = []

    async def program(chip):
        try:
            if chip.rank == 2:
                raise KeyError("x")
            await chip.recv(2)
        finally:
            closed.append(chip.rank)

    with pytest.raises(ProgramError, match="chip 2: the program raised KeyError: 'x'"):
        launch(ring(3)).run(program)
    assert sorted(closed) == [0, 1, 2]


def test_a_cluster_can_run_again_after_a_failure():
    """Nothing of a failed run is left for the next."""

    async def program(chip, *, fail=False):
        await chip.send(array(chip, 1, chip.rank), (chip.rank + 1) % 3)
        if fail:
            raise ValueError
        return float((await chip.recv((chip.rank - 1) % 3))[0])

    async def failing(chip):
        return await program(chip, fail=True)

    with launch(ring(3)) as cluster:
        with pytest.raises(ProgramError):
            cluster.run(failing)
        assert cluster.run(program).values == [2.0, 0.0, 1.0]


def test_arguments_reach_every_chip():
    """`run(program, *args)` hands the arguments to all chips."""

    async def program(chip, a, b):
        return chip.rank, chip.n_chips, a, b

    assert launch(ring(2)).run(program, 1, "x").values == [(0, 2, 1, "x"), (1, 2, 1, "x")]


def test_emitted_values_arrive_in_the_order_of_the_run():
    """Each chip's values come in its order, with name and index."""
    seen = []

    async def program(chip):
        for i in range(3):
            chip.emit("step", chip.rank * 10 + i, i)
            await chip.all_gather(array(chip, 1))

    launch(ring(2)).run(program, on_emit=lambda *what: seen.append(what))
    for rank in (0, 1):
        assert [s for s in seen if s[0] == rank] == [(rank, "step", rank * 10 + i, i) for i in range(3)]
