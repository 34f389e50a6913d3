"""A run's folder: private, kept as long as anybody uses it, cleared away however its users end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

from cluster.backends import resources
from cluster.backends.folders import RunFolder, clear_away
from configs.errors import RunError


@pytest.fixture(autouse=True)
def parent(tmp_path, monkeypatch):
    """The folder of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_last_to_leave_removes_it():
    """Not before, in whatever order they leave."""
    folder = RunFolder.make()
    other = RunFolder.join(folder.path.name)
    (folder.path / "0.sock").touch()
    folder.leave()
    assert folder.path.exists()
    other.leave()
    assert not folder.path.exists()
    other.leave()  # again: nothing


def test_a_process_that_leaves_twice_at_the_same_time(monkeypatch):
    """An actor that is told to leave just as its driver goes: it is removed before either ends the process."""
    folder, rmtree, seen = RunFolder.make(), shutil.rmtree, []

    def leave():
        folder.leave()
        seen.append(folder.path.exists())

    thread = threading.Thread(target=leave)

    def remove(*what, **how):
        thread.start()
        thread.join(0.1)
        rmtree(*what, **how)

    monkeypatch.setattr(shutil, "rmtree", remove)
    leave()
    thread.join()
    assert seen == [False, False]


def test_the_driver_removes_it_whoever_is_left():
    """Its run is over."""
    folder = RunFolder.make()
    other = RunFolder.join(folder.path.name)
    folder.remove()
    assert not folder.path.exists()
    other.leave()


def test_it_is_private(parent):
    """Nobody else can enter; one that others can enter is not used, nor is what only looks like a folder."""
    assert RunFolder.make().path.stat().st_mode & 0o777 == 0o700
    (parent / "chipmesh-open").mkdir(mode=0o755)
    (parent / "chipmesh-link").symlink_to(parent / "chipmesh-open")
    for name in ("chipmesh-open", "chipmesh-link"):
        with pytest.raises(RunError, match="accepted: a folder of this user"):
            RunFolder.join(name)
    clear_away(parent)
    assert (parent / "chipmesh-open").exists()


def test_the_next_start_clears_away_what_a_killed_run_has_left(parent):
    """A process that is killed leaves its folder; the next one removes it, and none that is in use."""
    code = (
        f"import tempfile, time; tempfile.tempdir = {str(parent)!r}\n"
        "from cluster.backends.folders import RunFolder\n"
        "RunFolder.make(); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        (left,) = parent.glob("chipmesh-*")
        (left / "ray").mkdir()
        mine = RunFolder.make()
        assert left.exists()
        os.kill(process.pid, signal.SIGKILL)
    again = RunFolder.make()
    assert not left.exists()
    assert mine.path.exists()
    assert again.path.exists()


def test_free_memory(tmp_path, monkeypatch):
    """The least of what the host and the container have; None if neither says."""
    monkeypatch.setattr(resources, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    assert resources.free_memory_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:    2048 kB\n")
    assert resources.free_memory_bytes() == 2048 * 1024
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.free_memory_bytes() == 2048 * 1024
    (tmp_path / "memory.max").write_text("1000\n")
    assert resources.free_memory_bytes() == 400


def test_processes_that_the_system_ended(tmp_path, monkeypatch):
    """The container's count, else the host's; None if neither says."""
    monkeypatch.setattr(resources, "PROC", tmp_path)
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    assert resources.oom_kills() is None
    (tmp_path / "vmstat").write_text("nr_free_pages 12\noom_kill 3\n")
    assert resources.oom_kills() == 3
    (tmp_path / "memory.events").write_text("low 0\noom 7\noom_kill 5\noom_group_kill 0\n")
    assert resources.oom_kills() == 5


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_who_computes_and_who_waits():
    """A process in a loop is ready, one that is stopped or waits is not, nor one that is not there."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as busy:
        busy.stdout.readline()
        assert resources.is_ready(busy.pid)
        os.kill(busy.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, busy.pid, os.WSTOPPED)
        assert not resources.is_ready(busy.pid)
        busy.kill()
    assert not resources.is_ready(busy.pid)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as waits:
        waits.stdin.write(b"x")
        waits.stdin.flush()
        waits.stdout.read1()
        assert not all(resources.is_ready(waits.pid) for _ in range(10_000))  # it takes a moment until it waits
