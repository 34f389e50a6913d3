"""The guard of a private Ray: what bears its folder's mark ends with the driver, and nothing else does."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys

import pytest

from cluster.backends.on_ray import guard
from tests.cluster.backends.common import await_end

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guard reads /proc")

SLEEP = [sys.executable, "-c", "import threading; print(flush=True); threading.Event().wait()"]
WITH_CHILD = f"""
import subprocess
child = subprocess.Popen({SLEEP!r}, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
DRIVER = f"""
import os, subprocess, sys
command = [sys.executable, "-I", "-S", {guard.__file__!r}, sys.argv[1], str(os.getpid())]
guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
os.set_inheritable(guard.stdin.fileno(), True)
holder = subprocess.Popen({SLEEP!r}, stdout=subprocess.PIPE, close_fds=False)
holder.stdout.readline()
print(guard.pid, holder.pid, flush=True)
holder.wait()
"""


@pytest.fixture
def start():
    """Start a process with more in its environment; return it and the numbers that it says."""
    with contextlib.ExitStack() as stack:

        def begin(command, **more):
            process = subprocess.Popen(command, env=os.environ | more, stdout=subprocess.PIPE, text=True)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process, [int(word) for word in process.stdout.readline().split()]

        yield begin


def test_it_ends_what_bears_the_mark(start, tmp_path):
    """Also what such a process has started; other processes, also of another private Ray, go on."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "file").touch()
    ours, (child,) = start([sys.executable, "-c", WITH_CHILD], **{guard.MARK: str(folder)})
    handle = os.pidfd_open(child)
    others = [start(SLEEP, **more)[0] for more in ({}, {guard.MARK: f"{folder}2"}, {f"{guard.MARK}2": str(folder)})]
    command = [sys.executable, "-I", "-S", guard.__file__, str(folder), str(os.getpid())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert (ours.poll(), folder.exists()) == (None, True)
    process.communicate(timeout=20)
    assert (process.returncode, ours.wait(timeout=5)) == (0, -9)
    assert select.select([handle], [], [], 5)[0]
    os.close(handle)
    assert [other.poll() for other in others] == [None] * 3
    assert not folder.exists()


def test_the_driver_is_killed(start, tmp_path):
    """The guard notices, although another process holds its pipe open."""
    folder = tmp_path / "run"
    folder.mkdir()
    driver, (guarding, holding) = start([sys.executable, "-c", DRIVER, str(folder)])
    ours, _ = start([sys.executable, "-c", WITH_CHILD], **{guard.MARK: str(folder)})
    driver.kill()
    assert ours.wait(timeout=20) == -9
    await_end([guarding], 20)
    assert not folder.exists()
    os.kill(holding, 9)
