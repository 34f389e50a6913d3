"""Run many tasks in a few processes, each of which imports once and runs many.

Every worker is an interpreter of its own that takes one task at a time over a pipe: whoever starts it needs no guard
in its main module, a worker that dies costs its task alone, and a driver that dies takes its workers with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from attrs import define, field, frozen

Task = TypeVar("Task")
Result = TypeVar("Result")

MOST_TRIES = 2
LOOK_S = 1.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@frozen
class Lost:
    """Stands for the result of a task whose process died each time it was tried."""

    reason: str


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees for what it allocates next, up to 64 MiB.

    The system clears every page that it hands out, which takes longer than filling it. glibc does the same by itself
    once an array of 32 MiB was freed (mallopt(3): M_MMAP_THRESHOLD, M_TRIM_THRESHOLD); elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def n_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_processes(
    function: Callable[[Task], Result], tasks: Iterable[Task], n_workers: int
) -> Iterator[tuple[Task, Result | Lost]]:
    """Yield (task, function(task)) as they are done; `function` is a module's own and raises nothing.

    A task whose process dies is tried once more. Closing the generator ends all workers at once.
    """
    pool = _Pool(function, iter(tasks))
    try:
        for _ in range(n_workers):
            pool.start()
        while pool.workers:
            for connection in wait(list(pool.workers)):
                assert isinstance(connection, Connection)
                yield from pool.take(connection)
    finally:
        pool.close()


@define
class _Pool:
    """The workers, by the driver's ends of their pipes, each with its task."""

    function: Callable[[Any], Any]
    todo: Iterator[Any]
    again: deque[Any] = field(factory=deque)
    n_tries: dict[int, int] = field(factory=dict)
    """How often the tasks of dead workers were tried, by the identity of the task, which is kept."""
    kept: list[Any] = field(factory=list)
    workers: dict[Connection, tuple[subprocess.Popen[bytes], Any]] = field(factory=dict)

    def start(self) -> None:
        """Start a worker, if there is a task for it."""
        for task in self._next():
            connection, theirs = Pipe()
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; "
                f"serve({theirs.fileno()}, {os.getpid()})"
            )
            process = subprocess.Popen(  # noqa: S603  this interpreter
                [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),), process_group=0, env=os.environ | ONE_THREAD,
            )  # fmt: skip
            theirs.close()
            self.workers[connection] = (process, task)
            connection.send(self.function)
            connection.send(task)

    def take(self, connection: Connection) -> Iterator[tuple[Any, Any]]:
        """Yield what a worker has done, after it has its next task."""
        process, task = self.workers.pop(connection)
        try:
            result = connection.recv()
        except (EOFError, OSError):
            connection.close()
            yield from self._died(task, process.wait())
            return
        for following in self._next():
            self.workers[connection] = (process, following)
            connection.send(following)
            break
        else:
            connection.close()
            process.wait()
        yield task, result

    def close(self) -> None:
        """End all workers."""
        for process, _ in self.workers.values():
            process.kill()
        for connection, (process, _) in self.workers.items():
            process.wait()
            connection.close()
        self.workers.clear()

    def _next(self) -> Iterator[Any]:
        """Yield the next task, if there is one."""
        if self.again:
            yield self.again.popleft()
            return
        for task in self.todo:
            yield task
            return

    def _died(self, task: Any, code: int) -> Iterator[tuple[Any, Lost]]:
        self.kept.append(task)
        self.n_tries[id(task)] = self.n_tries.get(id(task), 0) + 1
        if self.n_tries[id(task)] < MOST_TRIES:
            self.again.append(task)
        else:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            yield task, Lost(f"its process {how}, {MOST_TRIES} times")
        self.start()


def serve(descriptor: int, driver: int) -> None:
    """Run tasks until the pipe closes: what a worker does."""
    connection = Connection(descriptor)
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    try:
        function = connection.recv()
        while True:
            connection.send(function(connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)


def _end_with(driver: int) -> None:
    """End this process when the driver is gone, also in the middle of a task."""
    while os.getppid() == driver:
        time.sleep(LOOK_S)
    os._exit(1)
