"""Chips as Ray actors: the same results as in one process, clear ends of all kinds, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from cluster import cli, launch
from cluster.experiment import run_experiment
from cluster.timeline.trace_events import trace_events
from cluster.vocabulary import VOCABULARY
from configs.errors import ChipDiedError, ProgramError, RunError
from configs.loader import load_experiment
from tests.workloads.tiny import write_tiny

pytestmark = [pytest.mark.ray, pytest.mark.timeout(90), pytest.mark.filterwarnings("default")]

MARK = "CHIPMESH_TEST_RUN"
SYSTEM = {
    "name": "toy",
    "chip": {"name": "c", "peak": {"fp32": "1TFLOPS", "bf16": "1TFLOPS"},
             "memory": [{"name": "dram", "capacity": "1GiB", "bandwidth": "100GB/s"}]},
    "topology": {"kind": "mesh", "dims": [2, 2], "axes": ["x", "y"], "link": {"bandwidth": "1GB/s", "latency": "1us"}},
}  # fmt: skip


def marked(mark):
    """Return the processes that inherited the mark, but for this one."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80]
            except OSError:
                continue  # it ended meanwhile
    return found


def actors(mark):
    """Return the process ids of the actors."""
    return sorted(pid for pid, command in marked(mark).items() if command.startswith("ray::ActorHost"))


@pytest.fixture(scope="module", autouse=True)
def trace():
    """What shows whether anything is left behind: a mark in the environment and a folder for temporary files."""
    mark, folder = uuid.uuid4().hex, Path(tempfile.mkdtemp(prefix="cm"))  # short: the paths of Unix sockets are
    patch = pytest.MonkeyPatch()
    patch.setenv(MARK, mark)
    patch.setenv("TMPDIR", str(folder))
    patch.setattr(tempfile, "tempdir", str(folder))
    yield mark, folder
    patch.undo()
    shutil.rmtree(folder)


def check_nothing_is_left(trace):
    """Assert that all processes, folders and sockets are gone, at the latest after a few seconds."""
    mark, folder = trace
    deadline = time.monotonic() + 8
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert marked(mark) == {}
    assert list(folder.glob("chipmesh-*")) == []
    assert str(folder) not in Path("/proc/net/unix").read_text()


@pytest.fixture
def clean(trace):
    """Check that nothing is left once the test has closed its cluster."""
    yield trace
    check_nothing_is_left(trace)


def make_program():
    """Return a program that uses every collective, messages both ways, large arrays and scalars."""

    async def program(chip, seed):  # nested, so that it travels by value
        rng = np.random.default_rng([seed, chip.rank])
        x = rng.standard_normal((8, 3)).astype(np.float32)
        under_way = [chip.start(chip.all_reduce(x[:4])), chip.start(chip.all_gather(x, axis="x"))]
        results = [await chip.all_gather(x), await chip.all_reduce(x), await chip.all_reduce(x, axis="y")]
        results += [await chip.reduce_scatter(x), await chip.all_to_all(x), await chip.broadcast(x, root=2)]
        large = np.full((1 << 20,), chip.rank, np.float64)
        for step in range(1, chip.n_chips):
            await chip.send(large, (chip.rank + step) % chip.n_chips, "large")
        for step in range(1, chip.n_chips):
            results.append((await chip.recv((chip.rank - step) % chip.n_chips, "large"))[:2])
        chip.emit("row", results[1][0], index=seed)
        await chip.send(np.array(2.5 * chip.rank), (chip.rank + 1) % chip.n_chips)
        results.append(await chip.recv((chip.rank - 1) % chip.n_chips))
        return results + [await handle for handle in reversed(under_way)]

    return program


def outcome(cluster, seed):
    """Return everything that a run gives, to the bit."""
    emitted = {}
    result = cluster.run(make_program(), seed, on_emit=lambda r, n, v, i: emitted.update({(r, n, i): v.tobytes()}))
    values = [[(np.asarray(v).dtype, np.shape(v), v.tobytes()) for v in chip] for chip in result.values]
    return values, emitted, result.timeline.sha256(), result.time_s, result.memory_bytes


@pytest.mark.parametrize("chips_per_actor", [1, 3])
def test_the_same_as_in_one_process(clean, chips_per_actor):
    """Values, emissions and timeline are identical, run after run on the same actors."""
    with launch(SYSTEM, backend="ray", chips_per_actor=chips_per_actor) as on_ray, launch(SYSTEM) as local:
        assert len(actors(clean[0])) == -(-4 // chips_per_actor)
        for seed in (0, 1):
            assert outcome(on_ray, seed) == outcome(local, seed)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A tiny model with random weights on four chips."""
    path = write_tiny(tmp_path_factory.mktemp("model") / "tiny.gguf")
    source = {
        "name": "tiny", "system": SYSTEM, "model": str(path), "parallel": {"tp": 2, "pp": 2},
        "workload": {"prompt_ids": [[5, 17, 100, 3], [7]], "new_tokens": 6},
    }  # fmt: skip
    return load_experiment(source, (), VOCABULARY)


@pytest.mark.usefixtures("clean")
def test_a_model_decodes_the_same_everywhere(experiment):
    """Tokens, logits and trace are those of the local run; the timeline is also that of the run without data."""
    for chips_per_actor, overlap in ((1, False), (2, True)):
        experiment = evolve(experiment, overlap=overlap)
        local = run_experiment(experiment, keep_logits=True)
        shapes = run_experiment(evolve(experiment, numerics="shapes"))
        assert shapes.timeline.sha256() == local.timeline.sha256()
        assert [len(row) for row in local.output_ids] == [6, 6]
        found = run_experiment(experiment, backend="ray", chips_per_actor=chips_per_actor, keep_logits=True)
        assert found.output_ids == local.output_ids
        assert found.logits.tobytes() == local.logits.tobytes()
        assert found.timeline.sha256() == local.timeline.sha256()
        assert list(trace_events(found.timeline)) == list(trace_events(local.timeline))


@pytest.mark.usefixtures("clean")
def test_a_program_that_raises():
    """The error names the chip and the cause; the cluster says that it is lost."""

    async def program(chip):
        await chip.all_reduce(np.ones(4, np.float32))
        if chip.rank == 2:
            raise ZeroDivisionError("for the test")
        await chip.all_reduce(np.ones(4, np.float32))

    with launch(SYSTEM, backend="ray") as cluster:
        with pytest.raises(ProgramError, match="chip 2: the program raised ZeroDivisionError: for the test"):
            cluster.run(program)
        with pytest.raises(RunError, match="an earlier run on this cluster failed"):
            cluster.run(program)


@pytest.mark.usefixtures("clean")
def test_a_deadlock():
    """Chips that wait for each other are named, although another chip has already ended."""

    async def program(chip):
        if chip.rank == 0:
            return
        await chip.recv((chip.rank % 3) + 1, "ring")

    with launch(SYSTEM, backend="ray") as cluster, pytest.raises(ProgramError) as caught:
        cluster.run(program)
    assert str(caught.value) == (
        "deadlock: chip 1 waits for chip 2 (ring), chip 2 waits for chip 3 (ring), chip 3 waits for chip 1 (ring)"
    )


@pytest.mark.usefixtures("clean")
def test_messages_that_nobody_takes():
    """More bytes than a socket holds, for a chip that has ended, end the run as well."""

    async def program(chip):
        if chip.rank == 1:
            await chip.send(np.zeros(1 << 21), 0)

    with launch(SYSTEM, backend="ray", n_chips=2) as cluster, pytest.raises(ProgramError, match="chip 1"):
        cluster.run(program)


def test_a_chip_that_is_killed(clean):
    """SIGKILL in mid-run: within ten seconds an error that names the chip and what it had done."""
    mark, killed = clean[0], []

    async def program(chip):
        chip.emit("begun", os.getpid())
        for _ in range(10**9):
            await chip.all_reduce(np.ones(1000, np.float32))

    def kill(rank, _name, pid, _index):
        if rank == 3:
            assert pid in actors(mark)
            killed.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)

    with launch(SYSTEM, backend="ray") as cluster:
        with pytest.raises(ChipDiedError, match=r"^chip 3 died \(process \d+\) after begun 0 of chip \d: "):
            cluster.run(program, on_emit=kill)
        assert time.monotonic() - killed[0] < 10


def test_a_chip_that_hangs(clean):
    """A process that is stopped in mid-run ends the run within ten seconds, and is not left behind."""
    stopped = []

    async def program(chip):
        chip.emit("begun", os.getpid())
        for _ in range(10**9):
            await chip.all_reduce(np.ones(1000, np.float32))

    def stop(rank, _name, pid, _index):
        if rank == 1:
            assert pid in actors(clean[0])
            stopped.append(time.monotonic())
            os.kill(pid, signal.SIGSTOP)

    with launch(SYSTEM, backend="ray") as cluster:
        with pytest.raises(ChipDiedError, match=r"^chip 1 hung \(process \d+, no sign of life for 6 s\) after begun"):
            cluster.run(program, on_emit=stop)
        assert time.monotonic() - stopped[0] < 10


def test_a_killed_chip_ends_the_command_with_1(clean, experiment, monkeypatch, capsys):
    """The command names the chips and leaves nothing running."""
    monkeypatch.setattr("configs.loader.load_experiment", lambda *_: experiment)
    monkeypatch.setattr(cli, "_show_tokens", lambda *_: lambda *_: os.kill(actors(clean[0])[0], signal.SIGKILL))
    assert cli.main(["run", "tiny", "--backend", "ray", "--chips-per-actor", "2"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "chips " in err
    assert " died (process " in err


@pytest.mark.parametrize(
    ("number", "once"),
    [(signal.SIGTERM, "gcs_server"), (signal.SIGTERM, "ray::ActorHost"), (signal.SIGINT, "ray::ActorHost")],
)
def test_an_interrupted_command_leaves_nothing(clean, number, once, tmp_path):
    """A signal while Ray starts, or once there are actors, stops everything; exit code 1."""
    config = tmp_path / "long.yaml"
    config.write_text(
        f"system: wormhole-galaxy\nmodel: {write_tiny(tmp_path / 'm.gguf', embedding_length=1024)}\n"
        "parallel: {tp: 2}\nworkload: {batch: 64, prompt_tokens: 30, new_tokens: 30}\n"
    )
    command = [sys.executable, "-m", "cluster.cli", "run", str(config), "--backend", "ray"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not any(once in c for c in marked(clean[0]).values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    if process.returncode != 0:  # a fast machine may have ended before the signal
        assert (process.returncode, err.splitlines()[-1:]) == (1, ["chipmesh: interrupted"])
