"""Checkpoints: a run that goes on from one, in other processes, ends as if nothing had happened."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.backends.base import Setting, run_host
from cluster.backends.control import pack_value
from cluster.backends.packing import (
    pack_kept,
    pack_record,
    pack_traffic,
    unpack_kept,
    unpack_record,
    unpack_traffic,
)
from cluster.checkpoints import Checkpoints, Keeping, traffic_of
from cluster.experiment import prepare
from cluster.host import Host
from cluster.records import Await, Collective, Compute, Mark, Receive, Send, Start, merge
from cluster.selection import Chooser
from cluster.timeline import time_run
from cluster.vocabulary import VOCABULARY
from configs.errors import ProgramError
from configs.loader import load_experiment
from configs.plain import fingerprint
from tests.cluster.machines import mesh
from tests.workloads.tiny import write_tiny
from workloads.decode import decode
from workloads.elementwise import Add

ADD = Add()


class LostError(Exception):
    """The driver's process is told a value and the chip is lost."""


async def steps(chip, n, idle=()):
    """Add, exchange and emit for n steps; some chips have nothing to do."""
    if chip.rank in idle:
        return None
    members = chip.group("busy", tuple(r for r in range(chip.n_chips) if r not in idle))
    chip.emit("ready")
    total = await chip.all_reduce(np.full(3, chip.rank, np.float32), members)
    first, state = chip.resume(0, {"x": total, "history": []})
    x, history = state["x"], state["history"]
    for step in range(first, n):
        chip.checkpoint(step, {"x": x, "history": history})
        chip.layer = step % 3
        handle = chip.start(chip.all_gather(x[: 1 + step % 2], members))
        x = chip.apply(ADD, x, x)
        x = await chip.all_reduce(x / 7, members) + (await handle)[:1]
        history = [*history, float(x[0])]
        chip.emit("x", x, index=step)
    return history


def play(
    system, n_chips, program, args, *, numerics="real", every=0, checkpoints=None, n_emitted=None, lost_after=10**9
):
    """Run on one host from the last checkpoint; return what a run gives, or None if it is lost at some value."""
    checkpoints, seen = checkpoints or Checkpoints(n_chips), []
    kept = {rank: unpack_kept(what) for rank, what in checkpoints.latest().items()}

    def keep(rank, what):
        if what is None:
            checkpoints.add(rank, None, None)
        else:
            traffic = unpack_traffic(msgpack.unpackb(msgpack.packb(pack_traffic(traffic_of(what)))))
            checkpoints.add(rank, what.step, pack_kept(rank, what), traffic)

    def emit(rank, name, value, index):
        seen.append((rank, name, index, msgpack.packb(pack_value(value))))
        if len(seen) == lost_after:
            raise LostError

    keeping = Keeping(every, keep, kept, n_emitted or {})
    try:
        outcome = run_host(
            Setting(system, n_chips, numerics), range(n_chips), Host(), program, args, emit, Chooser(system), keeping
        )
    except ProgramError as error:
        if "LostError" not in str(error):
            raise
        return None, seen
    records, traces = merge([(outcome.records, outcome.traces)])
    timeline = time_run(system, system.topology.build(system.routing), "fluid", records, traces)
    layers = [trace.layers.tolist() for trace in traces]
    return (timeline.sha256(), outcome.values, outcome.memory_bytes, layers), seen


def interrupted(system, n_chips, program, args, every, losses, numerics="real"):
    """Return what a run gives that loses its chips after so many values each time, and where it went on."""
    checkpoints, seen, went_on = Checkpoints(n_chips), [], []
    for lost_after in (*losses, 10**9):
        n_emitted = {rank: sum(s[0] == rank for s in seen) for rank in range(n_chips)}
        found, new = play(system, n_chips, program, args, numerics=numerics, every=every, checkpoints=checkpoints,
                          n_emitted=n_emitted, lost_after=lost_after)  # fmt: skip
        seen += new
        if found is not None:
            return found, seen, went_on
        went_on.append(checkpoints.step)
    raise AssertionError


def by_chip(seen):
    """Return the values in the order of each chip."""
    return sorted(seen, key=lambda s: s[0])


@settings(max_examples=15)
@given(st.lists(st.integers(1, 40), max_size=4), st.integers(1, 5), st.sets(st.integers(1, 3), max_size=2))
def test_the_same_wherever_it_is_cut(losses, every, idle):
    """Values, what is emitted, memory, layers and timeline are those of a run that nothing happened to."""
    system, args = mesh(2, 2), (9, tuple(idle))
    whole, seen = play(system, 4, steps, args)
    found, seen_in_parts, went_on = interrupted(system, 4, steps, args, every, losses)
    assert found == whole
    assert by_chip(seen_in_parts) == by_chip(seen)
    assert went_on == [step - step % every for step in went_on]


def test_it_does_go_on():
    """The steps before a checkpoint do not run again."""
    _, _, went_on = interrupted(mesh(2, 2), 4, steps, (9,), 2, [4 + 4 * 5, 1])
    assert went_on == [4, 4]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Return `load(*overrides)`: a tiny model with random weights on eight chips."""
    path = write_tiny(tmp_path_factory.mktemp("model") / "tiny.gguf")
    source = {
        "name": "tiny", "model": str(path), "parallel": {"tp": 2, "pp": 2, "dp": 2},
        "system": {
            "name": "toy", "chip": {"name": "c", "peak": {"fp32": "1TFLOPS", "bf16": "1TFLOPS"},
                                    "memory": [{"name": "dram", "capacity": "1GiB", "bandwidth": "100GB/s"}]},
            "topology": {"kind": "mesh", "dims": [3, 3], "link": {"bandwidth": "1GB/s", "latency": "1us"}}},
        "workload": {"prompt_ids": [[5, 17, 100, 3], [7], [9, 9]], "new_tokens": 7,
                     "sampling": {"kind": "temperature", "seed": 3}},
    }  # fmt: skip
    return lambda *overrides: load_experiment(source, overrides, VOCABULARY)


@pytest.mark.parametrize(
    "overrides",
    [
        (), ("overlap=true", "parallel.pp=1", "parallel.dp=1"), ("parallel.cp=2", "parallel.tp=1"),
        ("numerics=shapes",), ("micro_batches=2",), ("micro_batches=3", "parallel.tp=1", "parallel.dp=1", "stops"),
        ("micro_batches=3", "parallel.dp=1", "numerics=shapes"),
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("lost_after", [1, 47])
def test_decoding_goes_on(experiment, overrides, lost_after):
    """Tokens, logits and timeline of a model are the same after a loss at any time."""
    spec = experiment(*(word for word in overrides if word != "stops"))
    job, _ = prepare(spec, keep_logits=spec.numerics == "real")
    job = evolve(job, stops=((2, 10**6), (5, 10**6)) if "stops" in overrides else ())
    whole, seen = play(spec.system, 9, decode, (job,), numerics=spec.numerics)
    n = min(lost_after, len(seen) - 3)
    found, seen_in_parts, went_on = interrupted(spec.system, 9, decode, (job,), 2, [n, 2], spec.numerics)
    assert found == whole
    assert by_chip(seen_in_parts) == by_chip(seen)
    assert (went_on[-1] > 0) == (lost_after > 1)


@settings(max_examples=12)
@given(
    losses=st.lists(st.integers(1, 30), max_size=10), every=st.integers(1, 4), parts=st.integers(2, 3),
    stops=st.sets(st.integers(1, 6), max_size=2),
)  # fmt: skip
def test_micro_batches_go_on_wherever_they_are_cut(experiment, losses, every, parts, stops):
    """Over stages, the parts are kept between the same two steps, with the ids that are on their way."""
    spec = experiment("parallel.tp=1", "parallel.dp=1", "parallel.pp=2", f"micro_batches={parts}", "numerics=shapes")
    job, _ = prepare(spec)
    job = evolve(job, stops=tuple((stop, 10**6) for stop in sorted(stops)))
    whole, seen = play(spec.system, 3, decode, (job,), numerics="shapes")
    found, seen_in_parts, went_on = interrupted(spec.system, 3, decode, (job,), every, losses, "shapes")
    assert found == whole
    assert by_chip(seen_in_parts) == by_chip(seen)
    assert went_on == [step - step % every for step in went_on]


def test_the_keys_decide_no_result(experiment):
    """They are no part of the fingerprint."""
    keys = ("on_failure=restart", "checkpoint_every=4")
    assert fingerprint(experiment(*keys)) == fingerprint(experiment())
    assert experiment(*keys).checkpoint_every == 4


def test_a_checkpoint_counts_when_all_chips_have_it():
    """Those that never communicated need none; older ones are forgotten."""
    checkpoints = Checkpoints(3)
    for rank, step in ((0, 2), (1, 2), (0, 4), (1, 4)):
        checkpoints.add(rank, step, (rank, step))
    assert (checkpoints.step, checkpoints.latest()) == (0, {})
    for rank, step in ((0, 2), (1, 2), (0, 4), (2, None)):
        checkpoints.add(rank, step, (rank, step))
    assert (checkpoints.step, checkpoints.latest()) == (2, {0: (0, 2), 1: (1, 2)})
    for rank, step in ((0, 4), (2, 4), (1, 4), (1, 2)):
        checkpoints.add(rank, step, (rank, step))
    assert (checkpoints.step, checkpoints.latest()) == (4, {rank: (rank, 4) for rank in range(3)})


@pytest.mark.parametrize(
    "record",
    [
        Compute("matmul", 12, "memory", 64, "bf16", (1, 2)), Send(3, "on", 64), Receive(2, ""), Mark("tokens", 4),
        Start(Collective("all_to_all_v", "direct", "ep", (0, 2), 0, (1, 8), np.dtype("bfloat16"), "sum", ((1, 2),))),
        Await(Receive(1, "x"), 2),
    ],
    ids=lambda r: type(r).__name__,
)  # fmt: skip
def test_records_survive(record):
    """Every kind of record comes out equal and hashable."""
    found = unpack_record(msgpack.unpackb(msgpack.packb(pack_record(record))))
    assert (found, hash(found)) == (record, hash(record))


@pytest.mark.parametrize(
    ("early", "message"),
    [
        (
            "send",
            r"step 2: chip 1 has not received what chip 0 sends it \('x'\) before it; accepted: a moment at which",
        ),
        ("recv", r"step 2: chip 1 has received what chip 0 sends it \('x'\) after it; accepted: a moment at which"),
        ("barrier", r"step 2: chip 1 has called 1 collectives of group 'all' and chip 0 0; accepted: the same moment"),
    ],
)
def test_what_is_under_way_is_told(early, message):
    """A checkpoint that would lose a message, or have chips at different moments, is refused when it is complete."""

    async def program(chip):
        chip.resume(0, None)
        x = np.ones(3)
        if early == "barrier":
            if chip.rank == 0:
                chip.checkpoint(2, None)
            await chip.barrier()
            if chip.rank == 1:
                chip.checkpoint(2, None)
            return
        if (chip.rank == 0) == (early == "send"):
            await (chip.send(x, 1, "x") if chip.rank == 0 else chip.recv(0, "x"))
            chip.checkpoint(2, None)
        else:
            chip.checkpoint(2, None)
            await (chip.send(x, 1, "x") if chip.rank == 0 else chip.recv(0, "x"))

    with pytest.raises(ProgramError, match=message):
        play(mesh(2, 1), 2, program, (), every=1)


def test_misuse_is_told():
    """A state that is not plain, an operation under way, and a program that could not go on."""
    system = mesh(2, 1)

    async def with_object(chip):
        step, _ = chip.resume(0, None)
        chip.checkpoint(step + 1, {"what": object()})

    async def under_way(chip):
        chip.resume(0, None)
        chip.start(chip.barrier())
        chip.checkpoint(1, None)

    async def without_resume(chip):
        chip.checkpoint(1, None)

    for program, message in (
        (with_object, "chip 0: the state for step 1 cannot be kept: object is not plain; accepted: arrays, numbers"),
        (under_way, "chip 0 started and never awaited: barrier .* before a checkpoint of step 1"),
        (without_resume, "chip 0 keeps a checkpoint of step 1 before it has called resume"),
    ):
        with pytest.raises(ProgramError, match=message):
            play(system, 2, program, (), every=1)
