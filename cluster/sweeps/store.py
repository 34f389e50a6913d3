"""What a sweep has finished, kept in a folder: one line per point, on the disk before the next point is waited for."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from attrs import define, field

from configs.errors import ConfigError, RunError

POINTS = "points.jsonl"


@define
class Store:
    """Finished points by the fingerprint of their spec; open, it keeps other sweeps out of its folder.

    A line is {fingerprint, version, status, kind, error, result, wall_s, …}. A last line that was cut off when its
    writer was killed is dropped.
    """

    folder: Path
    points: dict[str, Mapping[str, Any]] = field(factory=dict)
    _file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        path = self.folder / POINTS
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            _sync_folder(self.folder)
        except OSError as error:
            raise ConfigError((f"--out: {path}: {error.strerror}; accepted: a folder that can be written",)) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            message = f"--out: {self.folder}: another sweep is at work there; accepted: another folder, or later"
            raise ConfigError((message,)) from None
        try:
            self._read(self._file, path)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, line: Mapping[str, Any]) -> None:
        """Keep a finished point; when this returns it is on the disk."""
        assert self._file is not None, "the store is open"
        try:
            self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunError(f"{self.folder / POINTS}: the point cannot be stored: {error}") from None
        self.points[line["fingerprint"]] = line

    def read_again(self) -> None:
        """Take in what is on the disk."""
        assert self._file is not None, "the store is open"
        self._read(self._file, self.folder / POINTS)

    def _read(self, file: IO[bytes], path: Path) -> None:
        file.seek(0)
        end = 0
        for number, line in enumerate(file, start=1):
            found = _parse(line)
            if found is None and file.tell() == _size(file):
                file.truncate(end)
                return
            if found is None:
                raise ConfigError((f"{path}:{number}: is not a finished point; accepted: lines as sweeps write them",))
            self.points[found["fingerprint"]] = found
            end += len(line)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that at any moment it holds what it held or all of the new."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error}") from None


def _parse(line: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    known = isinstance(found, dict) and isinstance(found.get("fingerprint"), str) and "status" in found
    return found if known and line.endswith(b"\n") else None


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
