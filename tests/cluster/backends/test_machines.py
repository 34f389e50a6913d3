"""Chips on machines with addresses of their own (network namespaces): the same results, strangers, a lost link."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from tests.cluster.backends.common import SYSTEM, await_end, marked
from tests.cluster.backends.namespaces import PORT, Machines, unavailable, without_project

pytestmark = [pytest.mark.ray, pytest.mark.heavy, pytest.mark.timeout(100), pytest.mark.filterwarnings("default")]

NOTICED_S = 10.0
DRIVER = """
import json, sys
import numpy as np
from cluster import launch

def say(**what):
    print(json.dumps(what), flush=True)

async def program(chip, n):
    first, x = chip.resume(0, np.full(100_000, chip.rank, np.float64))
    for step in range(first, n):
        chip.checkpoint(step, x)
        x = await chip.all_reduce(x) / chip.n_chips + chip.rank
        chip.emit("x", x[:3], index=step)
    return float(x.sum())

def on_emit(rank, name, value, step):
    if (rank, step) == (3, 12):
        say(step=step)
        sys.stdin.readline()

address, system, options, steps = json.loads(sys.argv[1])
with launch(system) as local:
    expected = local.run(program, steps)
with launch(system, backend="ray", address=address, **{"groups": [(0, 1), (2, 3)]} | options) as cluster:
    actors = cluster.backend.actors
    say(token=actors.control.token, addresses=[[a.ip, a.port] for a in actors.addresses],
        nodes=[place.node.ip for place in actors.places])
    sys.stdin.readline()
    try:
        found = cluster.run(program, steps, on_emit=on_emit)
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
    else:
        same = found.values == expected.values and found.timeline.sha256() == expected.timeline.sha256()
        say(same=same, restarts=[[r.lost, r.chips, r.from_step, r.wall_s] for r in found.restarts])
"""
STRANGER = """
import socket, sys
from cluster.backends.greeting import hello
ip, port, token = sys.argv[1:]

def call(*data):
    sock = socket.create_connection((ip, int(port)), timeout=60)
    sock.sendall(b"".join(data))
    return sock

said = [b"GET / HTTP/1.1".ljust(64), hello("0" * 32, 1)] if not token else [hello(token, 1) + b"\\xff" * 4096]
calls = [call(what) for what in said]
print("sent", flush=True)
for sock in calls:
    try:
        assert sock.recv(1) == b"", "it is answered"
    except ConnectionResetError:
        pass
"""


class Driver:
    """A driver on the first machine; it says lines of JSON and waits for lines of ours."""

    def __init__(self, machines, folder, options, steps):
        what = json.dumps([f"{machines.address(0)}:{PORT}", SYSTEM, options, steps])
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = machines.start(0, [sys.executable, "-c", DRIVER, what], folder, **pipes)

    def hear(self):
        """Return what it says next."""
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()[-3000:]
        return json.loads(line)

    def go(self):
        """Let it go on."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture(scope="module")
def machines():
    """Three machines."""
    why = unavailable()
    if why:
        pytest.skip(why)
    with Machines(f"cm{uuid.uuid4().hex[:6]}", 3) as found:
        yield found


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python without this project."""
    python = without_project(tmp_path_factory.mktemp("bare") / "venv")
    missing = subprocess.run(
        [python, "-c", "import numpy, ray, cluster"], capture_output=True, text=True, cwd="/", check=False
    )
    assert missing.stderr.strip().endswith("No module named 'cluster'")
    return python


@pytest.fixture
def two(trace, machines, python):
    """Ray on two of the machines, without this project there."""
    folder = trace[1]
    with machines.ray(0, python, folder / "0"), machines.ray(1, python, folder / "1"):
        yield machines, folder
        machines.join(1)
    for pid in marked(trace[0]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await_end(marked(trace[0]), 20)


def knock(machines, folder, address, token=""):
    """Let the third machine connect, say what nobody should, and wait until it is shut out."""
    ip, port = address
    process = machines.start(
        2, [sys.executable, "-c", STRANGER, ip, str(port), token], folder / "2", stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == "sent\n"
    return process


def test_the_same_and_no_stranger(two):
    """Identical to one process over TCP between the machines, whoever else knocks."""
    machines, folder = two
    driver = Driver(machines, folder / "0", {}, 15)
    up = driver.hear()
    assert sorted(set(up["nodes"])) == [machines.address(0), machines.address(1)]
    assert [ip for ip, _ in up["addresses"]] == up["nodes"]
    strangers = [knock(machines, folder, address) for address in up["addresses"]]
    driver.go()
    assert driver.hear() == {"step": 12}
    driver.go()
    assert driver.hear() == {"same": True, "restarts": []}
    _, err = driver.process.communicate(timeout=60)
    assert [stranger.wait(timeout=60) for stranger in strangers] == [0] * 4
    assert (driver.process.returncode, "Traceback" in err) == (0, False)
    assert err.count("was shut out: it did not say the run's token") == 8


@pytest.mark.parametrize("on_failure", ["fail", "restart"])
def test_who_has_the_token_and_sends_what_is_no_frame(two, on_failure):
    """It ends the run with the chips' names, or all connect anew with another token; it is never computed with."""
    machines, folder = two
    more = {"on_failure": "restart", "checkpoint_every": 5} if on_failure == "restart" else {}
    driver = Driver(machines, folder / "0", more, 400)
    up = driver.hear()
    stranger = knock(machines, folder, up["addresses"][0], up["token"])
    driver.go()
    if on_failure == "fail":
        error = driver.hear()["error"]
        assert error.startswith("ChipDiedError: chip 0 ")
        assert "the run is lost" in error
    else:
        assert driver.hear() == {"step": 12}
        driver.go()
        found = driver.hear()
        assert found["same"]
        assert [chips for _, chips, _, _ in found["restarts"]] == [[]]
    driver.process.communicate(timeout=60)
    assert stranger.wait(timeout=60) == 0


@pytest.mark.parametrize("on_failure", ["fail", "restart"])
def test_a_link_goes_down(two, on_failure):
    """What is sent is lost without a word: noticed all the same; its chips come back on the machine that is left."""
    machines, folder = two
    more = {"on_failure": "restart", "checkpoint_every": 5} if on_failure == "restart" else {}
    driver = Driver(machines, folder / "0", more, 400)
    driver.hear()
    driver.go()
    assert driver.hear() == {"step": 12}
    machines.cut_off(1)
    began = time.monotonic()
    driver.go()
    found = driver.hear()
    if on_failure == "fail":
        assert time.monotonic() - began < NOTICED_S
        assert found["error"].startswith("ChipDiedError: ")
        assert f"on {machines.address(1)})" in found["error"]
    else:
        assert found["same"]
        assert [chips for _, chips, _, _ in found["restarts"]] == [[2, 3]]
    driver.process.communicate(timeout=60)


def test_two_machines_that_no_longer_reach_each_other(two, machines, python):
    """The driver hears of both: what is sent between them is missed all the same."""
    _, folder = two
    with machines.ray(2, python, folder / "third"):
        driver = Driver(machines, folder / "0", {"chips_per_actor": 1, "groups": [[0], [1], [2], [3]]}, 400)
        nodes = driver.hear()["nodes"]
        assert len(set(nodes)) == 3
        driver.go()
        assert driver.hear() == {"step": 12}
        machines.part(1, 2)
        began = time.monotonic()
        driver.go()
        error = driver.hear()["error"]
        assert time.monotonic() - began < NOTICED_S
        assert "lost a connection after x" in error
        driver.process.communicate(timeout=60)
