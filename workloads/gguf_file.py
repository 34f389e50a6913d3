"""GGUF files: metadata, and where the tensors are.

The header is read here rather than by `gguf.GGUFReader`, which takes two seconds for a vocabulary of 49152
(every worker opens the file) and trusts every count in it. The number formats and their arithmetic are the
library's.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen

from configs.errors import ConfigError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_DIMS = 4


class _BadFileError(Exception):
    """What is wrong with the file; becomes a ConfigError that names it."""


@frozen
class GgufTensor:
    """A tensor of the file: shape [out, in], number format by GGML's id, bytes from `offset` on."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


@frozen(eq=False)
class GgufFile:
    """A GGUF file: metadata by key (arrays are read on demand), tensors by name."""

    path: Path
    data: npt.NDArray[np.uint8]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the metadata under `key`, arrays as lists."""
        value = self.metadata.get(key, default)
        return value.read() if isinstance(value, _Array) else value


class _Cursor:
    """A position in the header that refuses to leave the file."""

    def __init__(self, buffer: mmap.mmap, offset: int = 0) -> None:
        self.buffer, self.offset, self.size = buffer, offset, len(buffer)

    def take(self, n_bytes: int) -> int:
        """Return the offset of the next `n_bytes` and step over them."""
        start = self.offset
        if n_bytes > self.size - start:
            raise _BadFileError(f"is truncated: the header goes on after byte {self.size}, where the file ends")
        self.offset = start + n_bytes
        return start

    def scalar(self, code: str) -> Any:
        """Return the next little-endian scalar of `struct` type `code`."""
        layout = "<" + code
        return struct.unpack_from(layout, self.buffer, self.take(struct.calcsize(layout)))[0]

    def count(self, item_bytes: int, what: str) -> int:
        """Return the next count, refusing one whose items cannot fit in the rest of the file."""
        n = int(self.scalar("Q"))
        if n * item_bytes > self.size - self.offset:
            raise _BadFileError(f"says it has {n} {what}, more than its {self.size} bytes can hold")
        return n

    def string(self) -> str:
        """Return the next string."""
        n = self.count(1, "bytes in a string")
        start = self.take(n)
        return self.buffer[start : start + n].decode("utf-8", "replace")

    def skip_strings(self, n: int) -> None:
        """Step over `n` strings."""
        unpack, buffer, offset, last = (
            struct.Struct("<Q").unpack_from,
            self.buffer,
            self.offset,
            self.size - 8,
        )
        for _ in range(n):
            if offset > last:
                break
            offset += 8 + unpack(buffer, offset)[0]
        self.offset = min(offset, self.size + 1)
        self.take(0)

    def value(self) -> Any:
        """Return the next typed value; an array stays in the file."""
        kind = int(self.scalar("I"))
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise _BadFileError(f"has a metadata value of unknown type {kind}")
        return self.scalar(_SCALARS[kind])

    def _array(self) -> _Array:
        kind = int(self.scalar("I"))
        if kind != _STRING and kind not in _SCALARS:
            raise _BadFileError(f"has an array of unknown type {kind}")
        item_bytes = 8 if kind == _STRING else struct.calcsize("<" + _SCALARS[kind])
        n = self.count(item_bytes, "items in an array")
        array = _Array(self.buffer, self.offset, kind, n)
        if kind == _STRING:
            self.skip_strings(n)
        else:
            self.take(n * item_bytes)
        return array


@frozen(eq=False)
class _Array:
    """An array of the metadata, still in the file."""

    buffer: mmap.mmap
    offset: int
    kind: int
    n: int

    def read(self) -> list[Any]:
        """Return the items."""
        cursor = _Cursor(self.buffer, self.offset)
        if self.kind == _STRING:
            return [cursor.string() for _ in range(self.n)]
        return list(struct.unpack_from(f"<{self.n}{_SCALARS[self.kind]}", self.buffer, self.offset))


def read_gguf(path: Path | str) -> GgufFile:
    """Read the header of a GGUF file and map its tensors; ConfigError names the file and what is wrong."""
    path = Path(path)
    try:
        return _parse(path, _map(path))
    except _BadFileError as error:
        raise ConfigError((f"{path}: {error}",)) from None
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}",)) from None


def _map(path: Path) -> mmap.mmap:
    if not path.stat().st_size:
        raise _BadFileError("is empty")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _parse(path: Path, buffer: mmap.mmap) -> GgufFile:
    if buffer[:4] != MAGIC:
        raise _BadFileError(f"is not a GGUF file: it starts with {buffer[:4]!r}, not {MAGIC!r}")
    cursor = _Cursor(buffer, 4)
    version = cursor.scalar("I")
    if version not in VERSIONS:
        raise _BadFileError(f"has GGUF version {version}; accepted: 2 and 3, little-endian")
    n_tensors, n_keys = cursor.count(1, "tensors"), cursor.count(12, "metadata keys")
    metadata = {cursor.string(): cursor.value() for _ in range(n_keys)}
    infos = [_tensor_info(cursor) for _ in range(n_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise _BadFileError(f"general.alignment is {alignment!r}; it must be a power of two")
    start = -(-cursor.offset // alignment) * alignment
    tensors = {info.name: GgufTensor(info.name, info.shape, info.type_id, start + info.offset) for info in infos}
    return GgufFile(path, np.frombuffer(buffer, np.uint8), metadata, tensors)


def _tensor_info(cursor: _Cursor) -> GgufTensor:
    name = cursor.string()
    n_dims = cursor.scalar("I")
    if n_dims > _MAX_DIMS:
        raise _BadFileError(f"tensor {name} has {n_dims} dimensions; at most {_MAX_DIMS}")
    shape = tuple(reversed([int(cursor.scalar("Q")) for _ in range(n_dims)]))
    return GgufTensor(name, shape, int(cursor.scalar("I")), int(cursor.scalar("Q")))
