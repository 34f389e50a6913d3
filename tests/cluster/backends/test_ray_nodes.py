"""Chips on two nodes of a Ray cluster: the same results as in one process, over TCP, and nothing left behind.

Both nodes are on this machine; to Ray, and so to the actors, they are two hosts.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from attrs import evolve

from cluster import launch
from cluster.backends.on_ray import start
from cluster.experiment import run_experiment
from configs.errors import ConfigError, RunError
from tests.cluster.backends.common import SYSTEM, actors, await_end, ray_nodes
from tests.cluster.backends.test_ray import outcome

pytestmark = [pytest.mark.ray, pytest.mark.timeout(150), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def two_nodes(trace):
    """The address of a cluster of two nodes with one core each."""
    with ray_nodes(trace[1]) as (cluster, _):
        yield cluster.address


def test_two_nodes_are_one_process(two_nodes, clean_of_runs):
    """Values, emissions and timeline are identical; chips of a row share a node, the nodes talk over TCP."""
    said = []
    options = {"chips_per_actor": 2, "groups": [(1, 3), (0, 2)], "on_status": said.append}
    with launch(SYSTEM, backend="ray", address=two_nodes, **options) as on_ray, launch(SYSTEM) as local:
        assert said[0] == "starting 2 actors on 2 of 2 nodes"
        assert outcome(on_ray, 0) == outcome(local, 0)
        hosts = [address.host for address in on_ray.backend.actors.addresses]
        assert [place.ranks for place in on_ray.backend.actors.places] == [(1, 3), (0, 2)]
        assert hosts[0] != hosts[1]
        assert all(address.port for address in on_ray.backend.actors.addresses)
        assert all(address.ip not in ("", "0.0.0.0", "::") for address in on_ray.backend.actors.addresses)
        assert len(actors(clean_of_runs[0])) == 2


@pytest.fixture
def clean_of_runs(trace):
    """Check that no actor and no run's folder is left, while the cluster runs on."""
    yield trace
    mark, folder = trace
    await_end(actors(mark), 8)
    assert actors(mark) == []
    assert list(folder.glob("chipmesh-*")) == []


@pytest.mark.heavy
@pytest.mark.usefixtures("clean_of_runs")
@pytest.mark.parametrize("chips_per_actor", [1, 2, 3])
def test_a_model_decodes_the_same_on_two_nodes(two_nodes, experiment, chips_per_actor):
    """Tokens, logits and timeline are those of the local run, with the packages sent along."""
    for overlap in (False, True):
        experiment = evolve(experiment, overlap=overlap)
        local = run_experiment(experiment, keep_logits=True)
        found = run_experiment(
            experiment, backend="ray", address=two_nodes, chips_per_actor=chips_per_actor, keep_logits=True
        )
        assert found.output_ids == local.output_ids
        assert found.logits.tobytes() == local.logits.tobytes()
        assert found.timeline.sha256() == local.timeline.sha256()


@pytest.mark.heavy
@pytest.mark.usefixtures("clean_of_runs")
def test_a_cluster_after_a_private_ray(two_nodes):
    """A process that had a Ray with a token can join one without, and the other way round."""
    for address in (None, two_nodes, None):
        with launch(SYSTEM, backend="ray", address=address, chips_per_actor=2) as on_ray, launch(SYSTEM) as local:
            assert outcome(on_ray, 0) == outcome(local, 0)


@pytest.mark.heavy
@pytest.mark.usefixtures("clean_of_runs")
def test_the_commands_on_a_cluster(two_nodes, tmp_path):
    """`bench` and `sweep` take the address too; stdout is one document."""

    def command(*args):
        line = [sys.executable, "-m", "cluster.cli", *args, "--backend", "ray", "--ray-address", two_nodes, "--json"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        return json.loads(done.stdout)

    rows = command("bench", "tpu-v5e-2x2", "--op", "all_reduce", "--sizes", "1KiB")["rows"]
    assert [row["wrong"] for row in rows] == [0]
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        "base: {system: tpu-v5e-2x2, model: llama-3.1-8b, numerics: shapes, "
        "workload: {prompt_tokens: 4, new_tokens: 2}}\n"
        "grid: {parallel.tp: [1, 2, 4]}\n"
    )
    counts = command("sweep", str(sweep), "--out", str(tmp_path / "out"))["counts"]
    assert (counts["done"], counts["failed"]) == (3, 0)


@pytest.mark.heavy
@pytest.mark.usefixtures("clean_of_runs")
def test_who_computes_for_long_is_not_lost(two_nodes):
    """What it is sent meanwhile, more than the sockets between the nodes hold, waits until it takes it."""

    async def program(chip):
        await chip.barrier()
        if chip.rank == 0:
            await chip.send(np.full(8 << 20, 7.0), 1)
            return 0.0
        threading.Event().wait(12)
        return float((await chip.recv(0)).min())

    with launch(SYSTEM, backend="ray", address=two_nodes, n_chips=2) as cluster:
        assert cluster.run(program).values == [0, 7]


@pytest.mark.heavy
@pytest.mark.usefixtures("clean_of_runs")
def test_a_start_that_takes_too_long(two_nodes):
    """The deadline ends it with what is missing, and the cluster is as before."""
    with pytest.raises(RunError, match=r"\d of 4 actors were not up after 0.01 s"):
        launch(SYSTEM, backend="ray", address=two_nodes, start_deadline_s=0.01)


@pytest.mark.parametrize(
    ("answer", "why"), [(None, "refused"), (b"", "timed out"), (b"HTTP/1.1 400 Bad Request\r\n", "is no Ray")]
)
def test_no_cluster_there(answer, why, monkeypatch):
    """An address where nobody listens, or something that is no Ray, is bad input, at once."""
    monkeypatch.setattr(start, "REACH_S", 0.2)
    with socket.socket() as sock, contextlib.ExitStack() as callers:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        if answer is not None:
            sock.listen()
            thread = threading.Thread(target=lambda: callers.enter_context(sock.accept()[0]).sendall(answer))
            thread.start()
            callers.callback(thread.join)
        with pytest.raises(ConfigError, match=rf"^--ray-address: {address}: .*{why}.*; accepted: HOST:PORT"):
            launch(SYSTEM, backend="ray", address=address)


def test_the_cluster_that_ran_here_is_gone(monkeypatch):
    """What Ray remembers of a head is no cluster either."""
    with socket.socket() as sock:
        sock.bind(("", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{sock.getsockname()[1]}")
        with pytest.raises(ConfigError, match=r"^--ray-address: .*refused.*; accepted: HOST:PORT"):
            launch(SYSTEM, backend="ray", address="auto")
