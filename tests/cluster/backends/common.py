"""A system of four chips, and what shows whether a run leaves anything behind: processes by a mark, files, sockets."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import time
from pathlib import Path

import pytest

from cluster.backends.wire import as_bytes, encode

MARK = "CHIPMESH_TEST_RUN"
IN_CREATE = 0x100  # inotify(7)
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


def children(parent, word=""):
    """Return the processes that this one has started and that live, of those whose command line has the word in it."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state, started_by = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if int(started_by) == parent and state != "Z" and word in command:
                found.append(int(entry.name))
    return found


def await_end(pids, timeout_s):
    """Wait until these processes have ended, at most so long."""
    deadline = time.monotonic() + timeout_s
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
            os.close(handle)


def await_path(folder, pattern, timeout_s):
    """Wait until there is a path of this pattern below the folder, at most so long; the system tells of new ones."""
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(os.O_CLOEXEC)
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
                libc.inotify_add_watch(watch, os.fsencode(place), IN_CREATE)
            if any(folder.glob(pattern)):
                return
            assert select.select([watch], [], [], max(0.0, deadline - time.monotonic()))[0], f"no {pattern}"
            os.read(watch, 1 << 16)
    finally:
        os.close(watch)


def check_nothing_is_left(trace, timeout_s=8):
    """Assert that all processes, folders and sockets are gone, at the latest after a few seconds."""
    mark, folder = trace
    deadline = time.monotonic() + timeout_s
    while (left := marked(mark)) and time.monotonic() < deadline:
        await_end(left, deadline - time.monotonic())
    assert marked(mark) == {}, marked(mark)
    assert list(folder.glob("chipmesh-*")) == []
    assert str(folder) not in Path("/proc/net/unix").read_text()


@contextlib.contextmanager
def ray_nodes(folder):
    """Start a cluster of two Ray nodes with one core each on this machine; yields it and its second node."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415  Ray takes half a second to import

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else a head that is started in this process has a token
        patch.setenv("SPT_NOENV", "1")  # else Ray's agents write their titles over the mark
        cluster = Cluster(initialize_head=True, head_node_args={**small, "temp_dir": str(folder / "ray")})
        try:
            yield cluster, cluster.add_node(**small)
        finally:
            cluster.shutdown()


def stream_of(frames, *, check_body=False):
    """Return the bytes of frames."""
    sent = [encode(frame, check_body=check_body)[0] for frame in frames]
    return b"".join(bytes(start) + b"".join(map(as_bytes, arrays)) for start, *arrays in sent)
