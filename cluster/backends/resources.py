"""What this host has left for actors: memory and cores."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cluster.backends.processes import n_cores

MEMINFO = Path("/proc/meminfo")
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


def survey() -> tuple[int | None, int, int]:
    """Return (free bytes, cores, process id) of the host that this runs on."""
    return free_memory_bytes(), n_cores(), os.getpid()
