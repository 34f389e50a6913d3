"""Chips as Ray actors: the same results as in one process, clear ends of all kinds, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
import yaml
from attrs import evolve

from cluster import launch
from cluster.backends.on_ray import guard
from cluster.experiment import run_experiment
from cluster.timeline.trace_events import trace_events
from configs.errors import ProgramError, RunError
from tests.cluster.backends.common import SYSTEM, actors, await_path, children
from tests.workloads.tiny import write_tiny

pytestmark = [
    pytest.mark.ray, pytest.mark.timeout(90), pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("trace"),
]  # fmt: skip


SWALLOWED = """
import os, signal, sys
import ray
from cluster.backends.on_ray import start
for number in signal.SIGINT, signal.SIGTERM:  # a shell lets what it starts in the background ignore the first
    signal.signal(number, signal.default_int_handler)
with start._own_signals():
    pass
assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == [signal.default_int_handler] * 2
try:
    with start._own_signals():
        ray._private.utils.set_sigterm_handler(lambda number, frame: None)
        try:
            os.kill(os.getpid(), int(sys.argv[1]))
        except KeyboardInterrupt:
            pass
except KeyboardInterrupt:
    print("interrupted", flush=True)
try:
    with start._undisturbed():
        os.kill(os.getpid(), int(sys.argv[1]))
        os.kill(os.getpid(), int(sys.argv[1]))
        print("stopped", flush=True)
except KeyboardInterrupt:
    print("interrupted again", flush=True)
"""


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


def test_the_same_as_in_one_process(clean, caplog):
    """Values, emissions and timeline are identical, run after run on the same actors; and nobody else is let in."""
    with launch(SYSTEM, backend="ray") as on_ray, launch(SYSTEM) as local:
        assert len(actors(clean[0])) == 4
        for seed in (0, 1):
            assert outcome(on_ray, seed) == outcome(local, seed)
        check_private(on_ray, caplog)
        check_marked(on_ray)


def check_private(cluster, caplog):
    """It is on 127.0.0.1 and opens no TCP port; a caller without the token is shut out; BLAS has one thread.

    What its processes are told by the environment is theirs alone.
    """

    async def program(chip):
        from threadpoolctl import threadpool_info  # noqa: PLC0415

        for _ in range(3):
            await chip.barrier()
        return {pool["num_threads"] for pool in threadpool_info()}

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
    assert not [name for name in os.environ if name.startswith(("RAY_AUTH", "CHIPMESH_PRIVATE"))]
    addresses = cluster.backend.actors.addresses
    assert [address.port for address in addresses] == [0] * 4
    with contextlib.ExitStack() as strangers:
        for address in addresses:
            stranger = strangers.enter_context(address.connect(address.host))
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n".ljust(64) * 3)
        assert cluster.run(program).values == [{1}] * 4
    assert {record.message for record in caplog.records} == {
        f"a connection to chip {rank} was shut out: it did not say the run's token" for rank in range(4)
    }


def check_marked(cluster):
    """The guard knows all that the raylet has started; no title that a process has taken lies over its environment."""
    folder = str(cluster.backend.actors.folder.path)
    started = [pid for raylet in children(os.getpid(), "/raylet --") for pid in children(raylet)]
    assert len(started) >= 4 + 2  # the actors, and two agents
    handles = [guard._open(pid, folder) for pid in started]
    assert None not in handles
    assert not any(Path(f"/proc/{pid}/environ").read_bytes().startswith(b"\0") for pid in started)
    for handle in handles:
        os.close(handle)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupts_while_ray_starts_and_stops(number):
    """One that Ray swallows ends its start all the same; when it stops, they wait until it has. Handlers come back."""
    command = [sys.executable, "-c", SWALLOWED, str(int(number))]
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (1, "interrupted\nstopped\ninterrupted again\n", "")


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(("chips_per_actor", "overlap"), [pytest.param(1, False, marks=pytest.mark.heavy), (2, True)])
def test_a_model_decodes_the_same_everywhere(experiment, chips_per_actor, overlap):
    """Tokens, logits and trace are those of the local run; the timeline is also that of the run without data."""
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

    with launch(SYSTEM, backend="ray", chips_per_actor=2) as cluster:
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

    with launch(SYSTEM, backend="ray", chips_per_actor=2) as cluster, pytest.raises(ProgramError) as caught:
        cluster.run(program)
    assert str(caught.value) == (
        "deadlock: chip 1 waits for chip 2 (ring), chip 2 waits for chip 3 (ring), chip 3 waits for chip 1 (ring)"
    )


@pytest.mark.heavy
@pytest.mark.usefixtures("clean")
def test_messages_that_nobody_takes():
    """More bytes than a socket holds, for a chip that has ended, end the run as well."""

    async def program(chip):
        if chip.rank == 1:
            await chip.send(np.zeros(1 << 21), 0)

    with launch(SYSTEM, backend="ray", n_chips=2) as cluster, pytest.raises(ProgramError, match="chip 1"):
        cluster.run(program)


HEAVY = pytest.mark.heavy


@pytest.mark.parametrize(
    ("number", "there"),
    [
        (signal.SIGTERM, "gcs_server"), (signal.SIGINT, "actor"), (signal.SIGKILL, "actor"),
        pytest.param(signal.SIGTERM, "actor", marks=HEAVY), pytest.param(signal.SIGKILL, "gcs_server", marks=HEAVY),
    ],
)  # fmt: skip
def test_a_command_that_is_ended_leaves_nothing(clean, number, there, tmp_path):
    """A signal while Ray starts, or once there are actors, stops everything; exit code 1, if there is one.

    What lies in the folder that it is started in has nothing to do with it.
    """
    config = tmp_path / "long.yaml"
    config.write_text(
        f"system: wormhole-galaxy\nmodel: {write_tiny(tmp_path / 'm.gguf', embedding_length=1024)}\n"
        "parallel: {tp: 2}\nworkload: {batch: 64, prompt_tokens: 30, new_tokens: 30}\n"
    )
    (tmp_path / "cluster.py").write_text("raise SystemExit('a module of the user, which has a name of ours')")
    command = [sys.executable, "-P", "-m", "cluster.cli", "run", str(config), "--backend", "ray"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    file = {"gcs_server": "ray/session_*/logs/gcs_server.*", "actor": "0.sock"}[there]
    await_path(clean[1], f"chipmesh-*/{file}", 60)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    elif process.returncode != 0:  # a fast machine may have ended before the signal
        assert (process.returncode, err.splitlines()[-1:]) == (1, ["chipmesh: interrupted"])


def test_the_cluster_files_of_the_docs():
    """Ray's launcher takes the one; the other has the fields of KubeRay's RayCluster (raycluster_types.go)."""
    from ray.autoscaler._private.util import prepare_config, validate_config  # noqa: PLC0415

    text = Path("docs/ray.md").read_text(encoding="utf-8")
    launcher, kube = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    validate_config(prepare_config(launcher))
    assert (kube["apiVersion"], kube["kind"], kube["spec"]["rayVersion"]) == (
        "ray.io/v1",
        "RayCluster",
        ray.__version__,
    )
    (workers,) = kube["spec"]["workerGroupSpecs"]
    assert kube["spec"].keys() == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert kube["spec"]["headGroupSpec"].keys() == {"rayStartParams", "template"}
    assert workers.keys() == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
