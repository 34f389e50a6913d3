"""A run's private folder, and who removes it: whoever leaves last, at the latest the next start.

Every process that uses a folder holds a shared lock on it, which the system lets go of when the process ends, however
that comes about. So a folder that can be locked by one alone is nobody's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Self

from attrs import define, field

from configs.errors import RunError

PREFIX = "chipmesh-"
N_TRIES = 10


@define
class RunFolder:
    """A folder (mode 0700) of a run on one host, as one of its processes sees it."""

    path: Path
    _lock: int
    _leaving: threading.Lock = field(factory=threading.Lock, eq=False, repr=False)

    @classmethod
    def make(cls) -> Self:
        """Make a new one; clear away those of runs that have ended without doing so."""
        clear_away(Path(tempfile.gettempdir()))
        for _ in range(N_TRIES):
            found = cls._use(Path(tempfile.mkdtemp(prefix=PREFIX)))
            if found is not None:
                return found
        raise RunError(f"no folder in {tempfile.gettempdir()} stays")

    @classmethod
    def join(cls, name: str) -> Self:
        """Use the folder of this name on this host, made if it is not there.

        Raises RunError if it is not this user's alone: its name is not secret, and others might have made it.
        """
        path = Path(tempfile.gettempdir()) / name
        clear_away(path.parent)
        for _ in range(N_TRIES):
            path.mkdir(mode=0o700, exist_ok=True)
            found = cls._use(path)
            if found is not None:
                return found
        raise RunError(f"{path}: accepted: a folder of this user, which nobody else can enter")

    @classmethod
    def _use(cls, path: Path) -> Self | None:
        """Lock a folder; None if it has just been cleared away, or is not private."""
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            return None
        fcntl.flock(lock, fcntl.LOCK_SH)
        if _is_at(path, lock) and _is_private(lock):
            return cls(path, lock)
        os.close(lock)
        return None

    def leave(self) -> None:
        """Stop using it; the last to leave removes it. Any thread may call this, and then end the process."""
        with self._leaving:
            if self._lock >= 0:
                os.close(self._lock)  # first: of two that leave at the same time, each would take the other for a user
                self._lock = -1
                _clear_away(self.path)

    def remove(self) -> None:
        """Remove it, whoever uses it."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def clear_away(parent: Path) -> None:
    """Remove this user's folders in `parent` that no process uses any more."""
    for path in parent.glob(PREFIX + "*"):
        _clear_away(path)


def _clear_away(path: Path) -> None:
    with contextlib.suppress(OSError):  # not ours, or gone meanwhile
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if _is_private(lock):
                _remove_if_unused(path, lock)
        finally:
            os.close(lock)


def _remove_if_unused(path: Path, lock: int) -> None:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(path, lock):
            shutil.rmtree(path, ignore_errors=True)


def _is_at(path: Path, opened: int) -> bool:
    """Tell whether the folder that is open is still the one of that path."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(opened))
    except OSError:
        return False


def _is_private(opened: int) -> bool:
    status = os.fstat(opened)
    return status.st_uid == os.geteuid() and not status.st_mode & 0o077
