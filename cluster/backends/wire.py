"""Frames: how messages between chips of different processes look on a socket.

    prefix   magic "CMF1", header length (uint32), body length (uint64), little-endian
    header   msgpack: [run, dst, src, tag, kind, [[dtype, shape], ...]]; kind "shape" carries no data
    body     the arrays' bytes, one after the other

Nothing is ever unpickled. Lengths are limited, so that a corrupt prefix cannot ask for all memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import msgpack
import numpy as np
from attrs import define, field

from configs.errors import RunError
from workloads.array import ShapeArray

PREFIX = struct.Struct("<4sIQ")
MAGIC = b"CMF1"
MAX_HEADER_BYTES = 1 << 20
MAX_BODY_BYTES = 1 << 34


class Frame(NamedTuple):
    """A message between two chips in a run; the payload is a list of arrays, or a ShapeArray."""

    run: int
    dst: int
    src: int
    tag: str
    payload: Any


class FrameError(RunError):
    """A peer sent something that is not a frame."""


def encode(frame: Frame) -> list[Any]:
    """Return the buffers to send: prefix and header in one, then every array as it lies in memory."""
    if isinstance(frame.payload, ShapeArray):
        specs, buffers, kind = [_spec(frame.payload)], [], "shape"
    else:
        arrays = [np.asarray(a, order="C") for a in frame.payload]  # ascontiguousarray would give scalars an axis
        specs, kind = [_spec(a) for a in arrays], "data"
        buffers = [a.reshape(-1).view(np.uint8).data for a in arrays if a.nbytes]
    header = msgpack.packb([frame.run, frame.dst, frame.src, frame.tag, kind, specs])
    body_bytes = sum(len(b) for b in buffers)
    return [PREFIX.pack(MAGIC, len(header), body_bytes) + header, *buffers]


def _spec(array: Any) -> tuple[str, tuple[int, ...]]:
    return array.dtype.name, array.shape


def number_format(name: str) -> np.dtype[Any]:
    """Return the numpy dtype of this name; ValueError or TypeError for anything but numbers."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    if dtype.name != name or dtype.hasobject or dtype.kind not in "biufcV":
        raise ValueError(f"{name!r:.60} is not a number format")
    return dtype


@define
class FrameReader:
    """Cuts a stream of bytes into frames; the state is the bytes that do not make a frame yet."""

    _buffer: bytearray = field(factory=bytearray)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that these bytes complete; raise FrameError on anything that is not a frame."""
        self._buffer += data
        while len(self._buffer) >= PREFIX.size:
            magic, header_bytes, body_bytes = PREFIX.unpack_from(self._buffer)
            if magic != MAGIC or header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
                raise FrameError(f"a frame begins with {bytes(self._buffer[:16])!r}")
            end = PREFIX.size + header_bytes + body_bytes
            if len(self._buffer) < end:
                return
            view = bytes(memoryview(self._buffer)[PREFIX.size : end])
            del self._buffer[:end]
            yield _decode(view[:header_bytes], memoryview(view)[header_bytes:])


def _decode(header: bytes, body: memoryview) -> Frame:
    try:
        return _parse(header, body)
    except (ValueError, TypeError, KeyError, OverflowError, msgpack.UnpackException) as error:
        raise FrameError(f"a frame cannot be read: {error}") from None


def _parse(header: bytes, body: memoryview) -> Frame:
    run, dst, src, tag, kind, specs = msgpack.unpackb(header)
    if any(type(n) is not int for n in (run, dst, src)) or type(tag) is not str or kind not in ("data", "shape"):
        raise ValueError("its header is not that of a message")
    sizes = [(number_format(name), _shape(shape)) for name, shape in specs]
    if kind == "shape":
        ((dtype, shape),) = sizes
        return Frame(run, dst, src, tag, ShapeArray(shape, dtype))
    arrays, offset = [], 0
    for dtype, shape in sizes:
        end = offset + math.prod(shape) * dtype.itemsize
        if end > len(body):
            raise ValueError(f"its arrays end after byte {len(body)}, where its body does")
        arrays.append(np.frombuffer(body[offset:end], dtype).reshape(shape))
        offset = end
    if offset != len(body):
        raise ValueError(f"its body has {len(body)} bytes, its arrays {offset}")
    return Frame(run, dst, src, tag, arrays)


def _shape(shape: Any) -> tuple[int, ...]:
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"{shape!r:.60} is not a shape")
    return tuple(shape)
