"""What this host has left for actors, memory and cores, and what the system does to them."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from cluster.backends.processes import n_cores

PROC = Path("/proc")
MEMINFO = PROC / "meminfo"
CGROUP = Path("/sys/fs/cgroup")


def free_memory_bytes() -> int | None:
    """Return the memory that new processes can have, of the host or of this container; None if nothing says so."""
    known = [value for value in (_of_host(), _of_container()) if value is not None]
    return min(known, default=None)


def _of_host() -> int | None:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _of_container() -> int | None:
    """Return what is left to the container (control groups, version 2)."""
    try:
        limit, used = (CGROUP / "memory.max").read_text().strip(), (CGROUP / "memory.current").read_text()
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))


def oom_kills() -> int | None:
    """Return how many processes the system has ended for lack of memory: of this container, else of the host.

    None if nothing says so (control groups, version 2; proc_vmstat(5)).
    """
    for path in (CGROUP / "memory.events", PROC / "vmstat"):
        with contextlib.suppress(OSError):
            if found := re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE):
                return int(found[1])
    return None


def is_ready(pid: int) -> bool:
    """Tell whether a process of this host computes, or would if a core were free (state R, proc_pid_stat(5))."""
    with contextlib.suppress(OSError):
        states = [path.read_text().rpartition(")")[2].split()[0] for path in (PROC / str(pid) / "task").glob("*/stat")]
        return "R" in states
    return False


def survey() -> tuple[int | None, int, int]:
    """Return (free bytes, cores, process id) of the host that this runs on."""
    return free_memory_bytes(), n_cores(), os.getpid()
