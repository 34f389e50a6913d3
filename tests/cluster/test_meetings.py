"""Collectives that the chips of one process carry out together: the same bits, and the same ends, as by messages."""

from __future__ import annotations

import numpy as np
import pytest

from cluster import launch
from cluster.host import Host
from cluster.vocabulary import VOCABULARY
from collectives import ALGORITHMS, GroupView, Schedule, Transfer, build, executor, joint_steps
from configs.errors import ConfigError, ProgramError
from configs.loader import load_system
from topology import build_topology

SYSTEM = {
    "name": "toy",
    "chip": {"name": "c", "peak": {"fp32": "1TFLOPS"},
             "memory": [{"name": "dram", "capacity": "1GiB", "bandwidth": "100GB/s"}]},
    "topology": {"kind": "torus", "dims": [4, 2], "axes": ["x", "y"], "link": {"bandwidth": "1GB/s", "latency": "1us"}},
}  # fmt: skip
CASES = [(op, name) for op, names in ALGORITHMS.items() for name in names]


async def program(chip, op):
    """Call an operation twice, once with sizes that nothing divides, on numbers whose sum depends on the order."""
    rng = np.random.default_rng(chip.rank)
    results = []
    for rows in (8, 24):
        x = (rng.standard_normal((rows, 3)) * 10.0 ** rng.integers(-6, 6, (rows, 3))).astype(np.float32)
        if op == "all_to_all_v":
            x, rest = x[:8], ([[1] * 8] * 8,)
        elif op == "permute":
            rest = ([(i, (i + 3) % 8) for i in range(8)],)
        else:
            rest = ()
        arguments = () if op == "barrier" else (x, *rest)
        results.append(await getattr(chip, op)(*arguments))
    return [None if result is None else (result.shape, result.tobytes()) for result in results]


def outcome(op, name):
    """Return values and timeline of the program."""
    with launch(SYSTEM, collectives={op: name}) as cluster:
        result = cluster.run(program, op)
    return result.values, result.timeline.sha256()


@pytest.mark.parametrize(("op", "name"), CASES)
def test_the_same_bits_as_by_messages(op, name, monkeypatch):
    """Every algorithm adds the same numbers in the same order, whether or not messages pass; with outputs or joins."""
    system = load_system(SYSTEM, (), VOCABULARY)
    try:
        build(op, name, GroupView(build_topology(system), tuple(range(8))), 0)
    except (ConfigError, TypeError, ValueError):
        pytest.skip("does not fit eight chips of a torus")
    together = outcome(op, name)
    monkeypatch.setattr(Host, "holds", lambda *_: False)
    monkeypatch.setattr(executor, "SETTLED_BYTES", 0)
    assert outcome(op, name) == together


@pytest.mark.parametrize("op", ["all_gather", "all_reduce", "reduce_scatter", "all_to_all", "broadcast", "scatter"])
def test_long_chunks(op, monkeypatch):
    """Chunks long enough to be put into all outputs one after the other are in their places, and nowhere else."""

    async def long(chip):
        x = np.arange(1 << 17, dtype=np.float32) * (chip.rank + 1)
        result = await getattr(chip, op)(x)
        x += 1  # nobody's result is a view of it
        return result.copy()

    with launch(SYSTEM) as cluster:
        together = cluster.run(long).values
        monkeypatch.setattr(Host, "holds", lambda *_: False)
        apart = cluster.run(long).values
    for a, b in zip(together, apart, strict=True):
        assert np.array_equal(a, b)


def test_no_message_is_sent(monkeypatch):
    """Chips of one process do not send each other anything in a collective."""
    sent = []
    monkeypatch.setattr(Host, "post", lambda _self, dst, src, tag, _payload: sent.append((dst, src, tag)))
    outcome("all_reduce", "ring")
    assert sent == []


def test_who_does_not_wait_for_others_goes_on():
    """The root of a broadcast may do first what a member needs to come at all, as on chips that are far apart."""

    async def late(chip):
        x = np.full(4, chip.rank, np.float32)
        if chip.rank == 0:
            await chip.broadcast(x)
            await chip.send(x + 5, 1)
            return (await chip.all_reduce(x)).tolist()
        if chip.rank == 1:
            got = await chip.recv(0)
            return (await chip.broadcast(x) + got).tolist() + (await chip.all_reduce(x)).tolist()
        await chip.broadcast(x)
        return (await chip.all_reduce(x)).tolist()

    with launch(SYSTEM, n_chips=3, collectives={"broadcast": "binomial"}) as cluster:
        assert cluster.run(late).values == [[3.0] * 4, [5.0] * 4 + [3.0] * 4, [3.0] * 4]


def test_who_never_comes_is_named():
    """A deadlock is told as it is without meetings: who waits for whose message."""

    async def missing(chip):
        if chip.rank != 2:
            await chip.all_reduce(np.ones(4, np.float32))

    message = r"deadlock: chip 0 waits for chip 2 \(all#1 all_reduce\)"
    with (
        launch(SYSTEM, n_chips=3, collectives={"all_reduce": "ring"}) as cluster,
        pytest.raises(ProgramError, match=message),
    ):
        cluster.run(missing)


def test_a_clash_is_left_to_messages():
    """A schedule that fills a cell twice in a step has no joint steps; a ring has one for every step."""
    group = GroupView(build_topology(load_system(SYSTEM, (), VOCABULARY)), (0, 1, 2, 3))
    ring = build("all_reduce", "ring", group, 0)
    assert len(joint_steps(ring)) == ring.n_steps
    clash = Schedule("broadcast", "twice", 3, 1, [Transfer(0, 0, 2, (0,)), Transfer(0, 1, 2, (0,))])
    assert joint_steps(clash) is None
