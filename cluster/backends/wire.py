"""Frames: how messages between chips of different processes look on a socket.

    prefix   magic "CMF", version (uint8), flags (uint8), 3 zero bytes, header length (uint32), body length (uint64),
             crc32 of header, crc32 of body (0 without the flag), crc32 of the prefix so far; little-endian
    header   msgpack: [run, dst, src, tag, kind, [[dtype, shape], ...]]; kind "shape" carries no data
    body     the arrays' bytes, one after the other

Nothing is ever unpickled. Lengths are limited, and hold only with the prefix's own checksum, so that a damaged one can
neither ask for all memory nor let the reader wait for bytes that will not come. The body's checksum is for bytes that
pass a network: it takes 0.5 ns a byte at either end, longer than everything else on a message of 64 KiB within a host.
"""

from __future__ import annotations

import functools
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import ml_dtypes
import msgpack
import numpy as np
from numpy.typing import NDArray

from configs.errors import RunError
from workloads.array import ShapeArray

VERSION = 2
MAGIC = b"CMF"
PREFIX = struct.Struct("<3sBBxxxIQII")
CHECKED_PREFIX = struct.Struct(PREFIX.format + "I")
BODY_CHECKED = 1  # the flag
MAX_HEADER_BYTES = 1 << 20
MAX_BODY_BYTES = 1 << 34
MAX_DIMS = 32
N_ANNOUNCED = 256
"""Announcements that are kept as they were written or read: the steps of a collective send the same again and again."""


class Frame(NamedTuple):
    """A message between two chips in a run; the payload is a list of arrays, or a ShapeArray."""

    run: int
    dst: int
    src: int
    tag: str
    payload: Any


class FrameError(RunError):
    """A peer sent something that is not a frame."""


new_frame: Callable[[tuple[int, int, int, str, Any]], Frame] = functools.partial(tuple.__new__, Frame)
"""The same as `Frame(*values)`, without the Python function that a NamedTuple has for it: every message makes two."""


def encode(frame: Frame, *, check_body: bool = False) -> tuple[list[Any], int]:
    """Return the buffers to send, prefix and header in one, then every array as it lies in memory; and their bytes."""
    run, dst, src, tag, payload = frame
    if isinstance(payload, ShapeArray):
        start, n_bytes, _ = _announce(run, dst, src, tag, "shape", ((payload.dtype, payload.shape),))
        return [start], n_bytes
    arrays = [*map(_contiguous, payload)]
    start, n_bytes, header = _announce(run, dst, src, tag, "data", (*map(_spec, arrays),))
    if check_body:
        start = prefix(header, [*map(as_bytes, arrays)], check_body=True) + header
    return [start, *arrays], n_bytes


_contiguous = functools.partial(np.asarray, order="C")  # ascontiguousarray would give scalars an axis
_spec = attrgetter("dtype", "shape")


def as_bytes(array: NDArray[Any]) -> memoryview:
    """Return the bytes of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


@lru_cache(maxsize=N_ANNOUNCED)
def _announce(
    run: int, dst: int, src: int, tag: str, kind: str, specs: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]
) -> tuple[bytes, int, bytes]:
    """Return prefix and header of a message whose body has no checksum, the bytes of all of it, and the header."""
    header = msgpack.packb([run, dst, src, tag, kind, [(dtype.name, shape) for dtype, shape in specs]])
    body_bytes = sum(math.prod(shape) * dtype.itemsize for dtype, shape in specs) if kind == "data" else 0
    start = _prefix(header, body_bytes, None) + header
    return start, len(start) + body_bytes, header


def prefix(header: bytes, body: Sequence[Any], *, check_body: bool = False) -> bytes:
    """Return what comes before a header and the buffers of a body.

    >>> len(prefix(b"header", [b"bo", b"dy"], check_body=True))
    32
    """
    body_crc = functools.reduce(lambda crc, buffer: zlib.crc32(buffer, crc), body, 0) if check_body else None
    return _prefix(header, sum(map(len, body)), body_crc)


def _prefix(header: bytes, body_bytes: int, body_crc: int | None) -> bytes:
    flags = 0 if body_crc is None else BODY_CHECKED
    fields = PREFIX.pack(MAGIC, VERSION, flags, len(header), body_bytes, zlib.crc32(header), body_crc or 0)
    return fields + zlib.crc32(fields).to_bytes(4, "little")


@lru_cache(maxsize=64)
def number_format(name: str) -> np.dtype[Any]:
    """Return the numpy dtype of this name; ValueError or TypeError for anything but numbers."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    if dtype.name != name or dtype.hasobject or dtype.kind not in "biufcV":
        raise ValueError(f"{name!r:.60} is not a number format")
    return dtype


class Header(NamedTuple):
    """What a header says: (dtype, shape, first byte in the body) of every array, and the bytes of all."""

    run: int
    dst: int
    src: int
    tag: str
    kind: str
    specs: tuple[tuple[np.dtype[Any], tuple[int, ...], int], ...]
    body_bytes: int


class Announced(NamedTuple):
    """What a prefix announces."""

    header_bytes: int
    body_bytes: int
    header_crc: int
    body_crc: int | None


@lru_cache(maxsize=N_ANNOUNCED)
def read_prefix(data: bytes) -> Announced:
    """Return what a prefix announces; raise FrameError for anything else."""
    magic, version, flags, header_bytes, body_bytes, header_crc, body_crc, crc = CHECKED_PREFIX.unpack(data)
    if magic == MAGIC and version != VERSION:
        raise FrameError(f"a frame has version {version}; accepted: {VERSION}")
    if magic != MAGIC or zlib.crc32(data[: PREFIX.size]) != crc:
        raise FrameError(f"a frame begins with {data[:16]!r}")
    if flags not in (0, BODY_CHECKED) or header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
        raise FrameError(f"a frame announces {header_bytes} + {body_bytes} bytes (flags {flags})")
    return Announced(header_bytes, body_bytes, header_crc, body_crc if flags else None)


def read_header(header: bytes) -> Header:
    """Return what a header says; raise FrameError if it is none."""
    try:
        return _unpack_header(header)
    except (ValueError, TypeError, KeyError, OverflowError, msgpack.UnpackException) as error:
        raise FrameError(f"a frame cannot be read: {error}") from None


@lru_cache(maxsize=N_ANNOUNCED)
def _unpack_header(header: bytes) -> Header:
    run, dst, src, tag, kind, given = msgpack.unpackb(header)
    if not type(run) is type(dst) is type(src) is int or type(tag) is not str or kind not in ("data", "shape"):
        raise ValueError("its header is not that of a message")
    specs, body_bytes = [], 0
    for name, shape in given:
        specs.append((number_format(name), _shape(shape), body_bytes))
        body_bytes += math.prod(shape) * specs[-1][0].itemsize
    if kind == "shape" and len(specs) != 1:
        raise ValueError(f"it announces {len(specs)} shapes")
    return Header(run, dst, src, tag, kind, tuple(specs), body_bytes if kind == "data" else 0)


def _shape(shape: Any) -> tuple[int, ...]:
    if len(shape) > MAX_DIMS:
        raise ValueError(f"a shape has {len(shape)} dimensions")
    for n in shape:
        if type(n) is not int or n < 0:
            raise ValueError(f"{shape!r:.60} is not a shape")
    return tuple(shape)


def frame_of(header: Header, body: NDArray[np.uint8]) -> Frame:
    """Return the message that a header and a body make; raise FrameError if they do not fit."""
    run, dst, src, tag, kind, specs, body_bytes = header
    if len(body) != body_bytes:
        raise FrameError(f"a frame cannot be read: its body has {len(body)} bytes, its arrays {body_bytes}")
    payload = arrays_of(specs, body) if kind == "data" else ShapeArray(specs[0][1], specs[0][0])
    return new_frame((run, dst, src, tag, payload))


def arrays_of(
    specs: Sequence[tuple[np.dtype[Any], tuple[int, ...], int]], body: NDArray[np.uint8]
) -> list[NDArray[Any]]:
    """Return the arrays that a body consists of, as views."""
    arrays: list[NDArray[Any]] = []
    for dtype, shape, offset in specs:
        arrays.append(np.ndarray(shape, dtype, body, offset))
    return arrays
