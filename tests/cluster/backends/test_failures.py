"""What each failure does: noticed within ten seconds, told with chip, step and cause; or the run goes on, unchanged."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from attrs import evolve

from cluster import launch
from cluster.backends.dataplane import DataPlane
from cluster.backends.supervision import LossError
from cluster.checkpoints import Checkpoints
from cluster.experiment import run_experiment
from configs.errors import ChipDiedError
from tests.cluster.backends.common import SYSTEM, actors, await_end, check_nothing_is_left, marked, ray_nodes
from tests.workloads.tiny import write_tiny
from workloads.array import ShapeArray

pytestmark = [
    pytest.mark.ray, pytest.mark.timeout(120), pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("trace"),
]  # fmt: skip

NOTICED_S = 10.0


def make_program(folder):
    """Return a program of n steps in which chips do harm to themselves, each kind once; `folder` remembers."""

    async def program(chip, n, harm=()):  # nested, so that it travels by value
        chip.emit("ready")
        first, state = chip.resume(0, {"x": np.full(1000, chip.rank, np.float64), "sums": []})
        x, sums = state["x"], state["sums"]
        for step in range(first, n):
            chip.checkpoint(step, {"x": x, "sums": sums})
            for kind, rank, when in harm:
                if (rank, when) == (chip.rank, step) and not (folder / kind).exists():
                    (folder / kind).touch()
                    if kind == "memory":
                        np.empty(1 << 62, np.uint8)
                    elif kind == "reset":
                        (plane,) = (o for o in gc.get_objects() if isinstance(o, DataPlane))
                        next(iter(plane._outgoing.values())).sock.shutdown(2)
                    elif kind == "wait":
                        threading.Event().wait()
                    else:
                        os.kill(os.getpid(), getattr(signal, kind))
            x = await chip.all_reduce(x) / 4 + chip.rank
            sums = [*sums, float(x.sum())]
            chip.emit("x", x[:3], index=step)
        return sums

    return program


WORDS = {
    "SIGKILL": r"^chip 3 died \(process \d+\) after x \d+ of chip \d: Worker unexpectedly exits",
    "SIGSTOP": r"^chip 2 hung \(process \d+, no sign of life for 6 s\) after x \d+ of chip \d",
    "memory": r"^chip 1 ran out of memory: Unable to allocate 4\.00 EiB .* \(process \d+\) after x \d+ of chip \d",
    "reset": r"^chip . \(process \d+\) lost a connection after x \d+ of chip \d: .*: the connection (closed|broke)",
}
CHIPS = {"SIGKILL": (3,), "SIGSTOP": (2,), "memory": (1,), "reset": ()}


@pytest.mark.parametrize(
    "kind", ["SIGSTOP", *(pytest.param(k, marks=pytest.mark.heavy) for k in ("SIGKILL", "memory", "reset"))]
)
@pytest.mark.usefixtures("clean")
def test_a_failure_ends_the_run(kind, tmp_path):
    """Within ten seconds, with an error that names chip, step and cause."""
    rank = (*CHIPS[kind], 0)[0]
    with launch(SYSTEM, backend="ray") as cluster:
        with pytest.raises(ChipDiedError, match=WORDS[kind] + r".*; the run is lost$"):
            cluster.run(make_program(tmp_path), 10**9, ((kind, rank, 20),))
        assert time.time() - (tmp_path / kind).stat().st_mtime < NOTICED_S


@pytest.mark.heavy
@pytest.mark.parametrize("every", [None, 4])
@pytest.mark.usefixtures("clean")
def test_a_run_survives_every_kind_of_failure(every, tmp_path):
    """All of them in one run: the same values, told once each, and the same timeline."""
    harm = (("SIGKILL", 3, 9), ("memory", 1, 14), ("reset", 0, 27), ("SIGSTOP", 2, 33))
    with launch(SYSTEM) as local:
        told = []
        expected = local.run(make_program(tmp_path), 40, on_emit=lambda *what: told.append(what[:2] + what[3:]))
    heard, told_live = [], []
    with launch(SYSTEM, backend="ray", on_failure="restart", checkpoint_every=every) as cluster:
        found = cluster.run(
            make_program(tmp_path), 40, harm, on_emit=lambda *what: heard.append(what[:2] + what[3:]),
            on_restart=told_live.append,
        )  # fmt: skip
    assert found.values == expected.values
    assert found.timeline.sha256() == expected.timeline.sha256()
    assert sorted(heard) == sorted(told)
    assert tuple(told_live) == found.restarts
    assert [restart.chips for restart in found.restarts] == [CHIPS[kind] for kind, _, _ in harm]
    for restart, (kind, _, step) in zip(found.restarts, harm, strict=True):
        assert re.match(WORDS[kind], restart.lost)
        assert restart.from_step == (0 if every is None else step - step % every)


def test_a_model_decodes_through_a_loss(clean, experiment):
    """A chip that is killed in mid-run: tokens, logits and timeline are those of the undisturbed run."""
    spec = evolve(
        experiment, on_failure="restart", checkpoint_every=4, workload=evolve(experiment.workload, new_tokens=40)
    )
    expected = run_experiment(spec, keep_logits=True)
    shown, killed = [], []

    def kill(row, step, _text):
        shown.append((row, step))
        if step == 6 and not killed:
            killed.append(actors(clean[0])[1])
            os.kill(killed[0], signal.SIGKILL)

    found = run_experiment(spec, backend="ray", keep_logits=True, on_token=kill)
    assert found.output_ids == expected.output_ids
    assert found.logits.tobytes() == expected.logits.tobytes()
    assert found.timeline.sha256() == expected.timeline.sha256()
    assert sorted(shown) == [(row, step) for row in range(2) for step in range(40)]
    (restart,) = found.to_json()["restarts"]
    assert f"died (process {killed[0]}) after " in restart["lost"]  # tokens or logits, whichever came last
    assert restart["from_step"] >= 4
    assert restart["from_step"] % 4 == 0


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("seed", "chips_per_actor", "parallel", "micro_batches"),
    [(11, 1, {"tp": 2, "pp": 2, "dp": 2}, 1), (12, 3, {"tp": 2, "pp": 2, "dp": 2}, 1), (13, 1, {"tp": 2, "pp": 2}, 2)],
)
def test_ten_kills_at_random(clean, tmp_path, seed, chips_per_actor, parallel, micro_batches):
    """Over a run of 64 tokens on four or eight chips: the same tokens, the same timeline."""
    system = SYSTEM | {"topology": SYSTEM["topology"] | {"dims": [4, 2]}}
    path = write_tiny(tmp_path / "m.gguf", embedding_length=128, context=80)
    from cluster.vocabulary import VOCABULARY  # noqa: PLC0415
    from configs.loader import load_experiment  # noqa: PLC0415

    spec = load_experiment(
        {"name": "kills", "system": system, "model": str(path), "parallel": parallel, "micro_batches": micro_batches,
         "workload": {"prompt_ids": [[5, 17, 100, 3], [7]], "new_tokens": 64,
                      "sampling": {"kind": "temperature", "seed": 1}},
         "on_failure": "restart", "checkpoint_every": 3}, (), VOCABULARY,
    )  # fmt: skip
    expected = run_experiment(spec, keep_logits=True)
    rng = np.random.default_rng(seed)
    steps = sorted(rng.choice(np.arange(1, 62), 10, replace=False).tolist())
    todo = list(steps)

    def kill(_row, step, _text):
        if todo and step >= todo[0]:
            todo.pop(0)
            os.kill(rng.choice(actors(clean[0])), signal.SIGKILL)

    found = run_experiment(spec, backend="ray", chips_per_actor=chips_per_actor, keep_logits=True, on_token=kill)
    assert found.output_ids == expected.output_ids
    assert found.logits.tobytes() == expected.logits.tobytes()
    assert found.timeline.sha256() == expected.timeline.sha256()
    assert not todo
    assert len(found.restarts) >= 8  # two may come at the same time


@pytest.mark.usefixtures("clean")
@pytest.mark.heavy
def test_a_run_that_comes_no_further_ends():
    """A program that loses its chip at the same step each time is given up."""

    async def program(chip):
        chip.resume(0, None)
        await chip.barrier()
        if chip.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        await chip.barrier()

    restarts, message = [], r"^chip 1 died .*; 10 restarts from step 0 came no further; the run is lost$"
    cluster = launch(SYSTEM, backend="ray", n_chips=2, on_failure="restart", checkpoint_every=1)
    with cluster, pytest.raises(ChipDiedError, match=message):
        cluster.run(program, on_restart=restarts.append)
    assert [restart.from_step for restart in restarts] == [0] * 10


def config(tmp_path, **more):
    """Write an experiment that takes a while; return its path."""
    path = tmp_path / "long.yaml"
    keys = "".join(f"{key}: {value}\n" for key, value in more.items())
    path.write_text(
        f"system: wormhole-galaxy\nmodel: {write_tiny(tmp_path / 'm.gguf', embedding_length=1024)}\n"
        f"parallel: {{tp: 2}}\nworkload: {{batch: 64, prompt_tokens: 20, new_tokens: 40}}\n{keys}"
    )
    return str(path)


def command(*args):
    """Start the command; return the process once its first token is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.cli", *args, "--json"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr.read(1), process.wait()
    return process


@pytest.mark.heavy
def test_the_command_goes_on(clean, tmp_path):
    """A chip is killed: the loss is told on stderr and in the document, which stays the only thing on stdout."""
    process = command("run", config(tmp_path, on_failure="restart", checkpoint_every=2), "--backend", "ray")
    os.kill(actors(clean[0])[0], signal.SIGKILL)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0
    (restart,) = json.loads(out)["restarts"]
    assert f"chipmesh: {restart['lost']}; the run goes on from " in err
    assert "Traceback" not in err


@pytest.mark.heavy
def test_the_command_fails(clean, tmp_path):
    """A chip is killed: exit code 1, and one line that says what was lost."""
    process = command("run", config(tmp_path), "--backend", "ray")
    os.kill(actors(clean[0])[0], signal.SIGKILL)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert re.search(
        r"\nchipmesh: chip \d died \(process \d+\) .*; the run is lost\n$", "\n" + err.rpartition("\n\n")[2]
    )
    assert "Traceback" not in err


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_driver_that_is_interrupted_leaves_nothing(clean, tmp_path, number):
    """In mid-run: everything is stopped, exit code 1."""
    process = command("run", config(tmp_path), "--backend", "ray")
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    check_nothing_is_left(clean, timeout_s=NOTICED_S)
    assert time.monotonic() - began < NOTICED_S
    assert (process.returncode, err.splitlines()[-1]) == (1, "chipmesh: interrupted")


@pytest.mark.heavy
def test_a_driver_that_is_killed_leaves_nothing(clean, tmp_path):
    """In mid-run: all processes are ended, Ray's too, and the run's folder is removed."""
    process = command("run", config(tmp_path), "--backend", "ray")
    process.kill()
    process.communicate(timeout=30)
    check_nothing_is_left(clean, timeout_s=NOTICED_S)


@pytest.fixture
def two_nodes(trace):
    """A cluster of two Ray nodes, and the one that the driver is not on."""
    with ray_nodes(trace[1]) as nodes:
        yield nodes


@pytest.mark.heavy
@pytest.mark.parametrize("on_failure", ["fail", "restart"])
def test_a_node_that_is_lost(two_nodes, tmp_path, on_failure):
    """Its chips come back on the node that is left, and the run ends as if nothing had happened; or it says so."""
    nodes, second = two_nodes
    program, harm, lost_s = make_program(tmp_path), (("wait", 3, 12),), []

    def remove(rank, _name, _value, step):
        if (rank, step) == (3, 11):
            nodes.remove_node(second, allow_graceful=False)
            lost_s.append(time.monotonic())

    every = 5 if on_failure == "restart" else None
    with launch(SYSTEM, backend="ray", address=nodes.address, on_failure=on_failure, checkpoint_every=every) as cluster:
        if on_failure == "fail":
            with pytest.raises(ChipDiedError, match=r"^chip [23] died .* after x 11 of chip \d: .*; the run is lost$"):
                cluster.run(program, 20, harm, on_emit=remove)
            assert time.monotonic() - lost_s[0] < NOTICED_S
            return
        found = cluster.run(program, 20, harm, on_emit=remove)
    with launch(SYSTEM) as local:
        expected = local.run(program, 20)
    assert (found.values, found.timeline.sha256()) == (expected.values, expected.timeline.sha256())
    (restart,) = found.restarts
    assert (restart.chips, restart.from_step) == ((2, 3), 10)
    assert re.match(
        r"chip [23] died \(process \d+ on [\d.]+\) after x 11 of chip \d: .*; with it chip [23]$", restart.lost
    )


@pytest.mark.heavy
def test_an_actor_that_is_heard_of_although_its_node_is_lost(two_nodes):
    """It goes with its node, and no new actor is sought to start there."""
    nodes, second = two_nodes

    async def program(chip):
        return await chip.all_reduce(np.full(3, chip.rank))

    with launch(SYSTEM, backend="ray", address=nodes.address) as cluster:
        cluster.run(program)
        nodes.remove_node(second, allow_graceful=False)
        while sum(entry["Alive"] for entry in ray.nodes()) > 1:  # Ray takes a while
            threading.Event().wait(0.1)
        restarts = []
        cluster.backend._bring_back(LossError((2,), "chip 2 died"), Checkpoints(4), restarts.append)
        assert [(restart.lost, restart.chips) for restart in restarts] == [("chip 2 died; with it chip 3", (2, 3))]
        assert [value.tolist() for value in cluster.run(program).values] == [[6, 6, 6]] * 4


@pytest.mark.heavy
def test_a_chip_that_hangs_on_another_node(two_nodes, trace, tmp_path):
    """Its process is ended, although it heeds nobody; another takes its place, and none of them is left."""
    nodes, _ = two_nodes
    with launch(SYSTEM, backend="ray", address=nodes.address, on_failure="restart", checkpoint_every=5) as cluster:
        hung = cluster.backend.actors.pids[3]
        found = cluster.run(make_program(tmp_path), 20, (("SIGSTOP", 3, 12),))
        await_end([hung], NOTICED_S)
        assert hung not in marked(trace[0])
    with launch(SYSTEM) as local:
        expected = local.run(make_program(tmp_path), 20)
    assert (found.values, found.timeline.sha256()) == (expected.values, expected.timeline.sha256())
    assert [restart.chips for restart in found.restarts] == [(3,)]
    await_end(actors(trace[0]), NOTICED_S)
    assert actors(trace[0]) == []


@pytest.mark.heavy
@pytest.mark.usefixtures("clean")
def test_a_run_without_data_goes_on(tmp_path):
    """The same timeline, and what is emitted are arrays without values."""

    async def program(chip, n):
        first, x = chip.resume(0, ShapeArray((1000,), np.dtype(np.float32)))
        for step in range(first, n):
            chip.checkpoint(step, x)
            if chip.rank == 1 and step == 7 and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            x = await chip.all_reduce(x)
            chip.emit("x", x, index=step)

    seen = []
    with launch(SYSTEM, backend="ray", numerics="shapes", on_failure="restart", checkpoint_every=3) as cluster:
        found = cluster.run(
            program, 10, on_emit=lambda _rank, _name, x, _step: seen.append((type(x), x.shape, x.dtype))
        )
    with launch(SYSTEM, numerics="shapes") as local:
        assert found.timeline.sha256() == local.run(program, 10).timeline.sha256()
    assert seen == [(ShapeArray, (1000,), np.float32)] * 40
    assert [restart.from_step for restart in found.restarts] == [6]


@pytest.mark.heavy
@pytest.mark.usefixtures("clean")
def test_a_process_that_ray_ends_for_lack_of_memory(monkeypatch):
    """The cause is told; Ray chooses which process it is."""
    found = re.findall(r"^(\w+): +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    memory = {name: int(kib) for name, kib in found}
    used = 1 - memory["MemAvailable"] / memory["MemTotal"]
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{used + 0.08:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")

    async def program(chip):
        chip.emit("begun")
        kept = []
        while len(kept) << 26 < memory["MemTotal"] * 1024 * 0.15:
            await chip.barrier()
            if chip.rank == 1:
                kept.append(np.ones(1 << 26, np.uint8))
        await chip.recv(1 - chip.rank)

    message = (
        r"^chip [01] died \(process \d+\) after begun 0 of chip [01]: Ray ended it, as its node ran out of memory;"
    )
    with launch(SYSTEM, backend="ray", n_chips=2) as cluster, pytest.raises(ChipDiedError, match=message):
        cluster.run(program)


@pytest.fixture
def small_room():
    """A control group of the system with little memory, or a skip with the reason."""
    group = Path("/sys/fs/cgroup")
    version_1 = (group / "memory").is_dir()
    group = group / ("memory" if version_1 else ".") / f"chipmesh-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(400 << 20))
    except OSError as error:
        pytest.skip(f"no control group of one's own: {error}")
    yield group
    group.rmdir()


@pytest.mark.heavy
@pytest.mark.usefixtures("clean")
def test_a_process_that_the_system_ends_for_lack_of_memory(small_room, tmp_path):
    """It is told from one that somebody kills, although both end by SIGKILL."""
    full, killed = tmp_path / "full", tmp_path / "killed"

    async def program(chip):
        again = full.exists() and not killed.exists()
        await chip.barrier()
        if chip.rank == 1 and not full.exists():
            full.touch()
            (small_room / "cgroup.procs").write_text(str(os.getpid()))
            np.ones(1 << 30, np.uint8)
        if chip.rank == 0 and again:
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        await chip.barrier()
        return chip.rank

    with launch(SYSTEM, backend="ray", n_chips=2, on_failure="restart") as cluster:
        found = cluster.run(program)
    assert found.values == [0, 1]
    first, second = (restart.lost for restart in found.restarts)
    assert re.match(r"chip 1 died .*: killed, probably by the kernel's out-of-memory killer$", first)
    assert re.match(r"chip 0 died .*: Worker unexpectedly exits", second)
