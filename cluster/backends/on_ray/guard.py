"""Wait until a driver is gone, or has closed its pipe; end what is left of its private Ray and remove the run's folder.

A script of the standard library alone, so that it starts at once and takes little memory: `guard.py FOLDER DRIVER`,
in a session of its own, so that what interrupts the driver does not reach it. Ray's own processes notice the end of a
driver that was killed too, some of them after a minute.

A private Ray is known by a mark in the environment, which all of its processes inherit; no other process is touched.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
from pathlib import Path

MARK = "CHIPMESH_PRIVATE_RAY"
"""The environment variable that holds the run's folder."""
END_S = 1.0
N_ROUNDS = 10


def await_end(driver: int) -> None:
    """Return when the driver is gone or standard input is at its end."""
    if os.getppid() != driver:
        return
    poller = select.poll()
    poller.register(0, select.POLLIN)
    handle = os.pidfd_open(driver)  # a child of the driver may hold the pipe open
    poller.register(handle, select.POLLIN)
    if os.getppid() == driver:
        poller.poll()


def end_all(folder: str) -> None:
    """End all processes with the folder's mark, also those that they start meanwhile."""
    for _ in range(N_ROUNDS):
        handles = [handle for pid in _pids() if (handle := _open(pid, folder)) is not None]
        for handle in handles:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        for handle in handles:
            select.select([handle], [], [], END_S)
            os.close(handle)
        if not handles:
            return


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _open(pid: int, folder: str) -> int | None:
    """Return what stands for the process, even if its number is given to another one; None if it has no mark."""
    handle = None
    try:
        handle = os.pidfd_open(pid)
        if f"{MARK}={folder}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return handle
    except OSError:  # it has ended, or is somebody else's
        pass
    if handle is not None:
        os.close(handle)
    return None


if __name__ == "__main__":
    await_end(int(sys.argv[2]))
    end_all(sys.argv[1])
    shutil.rmtree(sys.argv[1], ignore_errors=True)
