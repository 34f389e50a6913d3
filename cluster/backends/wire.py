"""Frames: how messages between chips of different processes look on a socket.

    prefix   magic "CMF", version (uint8), flags (uint8), 3 zero bytes, header length (uint32), body length (uint64),
             crc32 of header, crc32 of body (0 without the flag), crc32 of the prefix so far; little-endian
    header   msgpack: [run, dst, src, tag, kind, [[dtype, shape], ...]]; kind "shape" carries no data
    body     the arrays' bytes, one after the other

Nothing is ever unpickled. Lengths are limited, and hold only with the prefix's own checksum, so that a damaged one can
neither ask for all memory nor let the reader wait for bytes that will not come. The body's checksum is for bytes that
pass a network: it takes 0.5 ns a byte at either end, as long as everything else on a message of 64 KiB within a host.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import ml_dtypes
import msgpack
import numpy as np
from attrs import define, field
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
SCRATCH_BYTES = 1 << 14
FIRST_BODY_BYTES = 1 << 26
"""Room for longer bodies is made as they come: an announced length takes no memory."""


class Frame(NamedTuple):
    """A message between two chips in a run; the payload is a list of arrays, or a ShapeArray."""

    run: int
    dst: int
    src: int
    tag: str
    payload: Any


class FrameError(RunError):
    """A peer sent something that is not a frame."""


def encode(frame: Frame, *, check_body: bool = False) -> list[Any]:
    """Return the buffers to send: prefix and header in one, then every array as it lies in memory."""
    if isinstance(frame.payload, ShapeArray):
        specs, buffers, kind = [_spec(frame.payload)], [], "shape"
    else:
        arrays = [np.asarray(a, order="C") for a in frame.payload]  # ascontiguousarray would give scalars an axis
        specs, kind = [_spec(a) for a in arrays], "data"
        buffers = [a.reshape(-1).view(np.uint8).data for a in arrays if a.nbytes]
    header = msgpack.packb([frame.run, frame.dst, frame.src, frame.tag, kind, specs])
    return [prefix(header, buffers, check_body=check_body) + header, *buffers]


def prefix(header: bytes, body: Sequence[Any], *, check_body: bool = False) -> bytes:
    """Return what comes before a header and the buffers of a body.

    >>> len(prefix(b"header", [b"bo", b"dy"], check_body=True))
    32
    """
    body_bytes, body_crc = sum(map(len, body)), 0
    if check_body:
        for buffer in body:
            body_crc = zlib.crc32(buffer, body_crc)
    fields = PREFIX.pack(MAGIC, VERSION, BODY_CHECKED if check_body else 0, len(header), body_bytes,
                         zlib.crc32(header), body_crc)  # fmt: skip
    return fields + zlib.crc32(fields).to_bytes(4, "little")


def _spec(array: Any) -> tuple[str, tuple[int, ...]]:
    return _name(array.dtype), array.shape


@lru_cache(maxsize=64)
def _name(dtype: np.dtype[Any]) -> str:
    return dtype.name


@lru_cache(maxsize=64)
def number_format(name: str) -> np.dtype[Any]:
    """Return the numpy dtype of this name; ValueError or TypeError for anything but numbers."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    if dtype.name != name or dtype.hasobject or dtype.kind not in "biufcV":
        raise ValueError(f"{name!r:.60} is not a number format")
    return dtype


class _Expected(NamedTuple):
    """What a prefix announces."""

    header_bytes: int
    body_bytes: int
    header_crc: int
    body_crc: int | None


@define(eq=False)
class FrameReader:
    """Cuts a stream of bytes into frames; the state is the bytes that do not make a frame yet.

    Whoever reads the socket puts bytes where `room` says, then calls `advance`: what is left of a body goes straight
    into the memory that its arrays are views of.
    """

    _scratch: NDArray[np.uint8] = field(factory=lambda: np.empty(SCRATCH_BYTES, np.uint8))
    _n_scratch: int = 0
    _expected: _Expected | None = None
    _header: bytes | None = None
    _body: NDArray[np.uint8] | None = None
    _n_body: int = 0

    def room(self) -> memoryview:
        """Return where the next bytes of the stream belong."""
        if self._expected is None or self._body is None:
            return self._scratch.data[self._n_scratch :]
        if self._n_body == len(self._body):
            longer = np.empty(min(2 * self._n_body, self._expected.body_bytes), np.uint8)
            longer[: self._n_body] = self._body
            self._body = longer
        return self._body.data[self._n_body :]

    def advance(self, n_bytes: int) -> list[Frame]:
        """Return the frames that are complete with so many more bytes; raise FrameError on what is not a frame."""
        if self._body is None:
            self._n_scratch += n_bytes
            return self._cut()
        assert self._expected is not None
        self._n_body += n_bytes
        return [self._complete()] if self._n_body == self._expected.body_bytes else []

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that these bytes complete; raise FrameError on anything that is not a frame."""
        rest = memoryview(data)
        while rest:
            room = self.room()
            n_bytes = min(len(room), len(rest))
            room[:n_bytes] = rest[:n_bytes]
            rest = rest[n_bytes:]
            yield from self.advance(n_bytes)

    def _cut(self) -> list[Frame]:
        """Return the frames that begin in the scratch; what is left of them goes to its front."""
        frames, at, view = [], 0, self._scratch.data
        while True:
            if self._expected is None:
                if self._n_scratch - at < CHECKED_PREFIX.size:
                    break
                self._expected = _read_prefix(view[at : at + CHECKED_PREFIX.size])
                at += CHECKED_PREFIX.size
            if self._n_scratch - at < self._expected.header_bytes:
                break
            self._header = bytes(view[at : at + self._expected.header_bytes])
            at += self._expected.header_bytes
            self._begin_body(self._expected)
            assert self._body is not None
            n_bytes = min(len(self._body), self._n_scratch - at)
            self._body.data[:n_bytes] = view[at : at + n_bytes]
            self._n_body, at = n_bytes, at + n_bytes
            if n_bytes < self._expected.body_bytes:
                break
            frames.append(self._complete())
        self._scratch[: self._n_scratch - at] = self._scratch[at : self._n_scratch]
        self._n_scratch -= at
        if self._expected is not None and self._expected.header_bytes > len(self._scratch):
            self._scratch = np.resize(self._scratch, self._expected.header_bytes)
        return frames

    def _begin_body(self, expected: _Expected) -> None:
        assert self._header is not None
        if zlib.crc32(self._header) != expected.header_crc:
            raise FrameError("the checksum of a frame's header is wrong")
        self._body = np.empty(min(expected.body_bytes, FIRST_BODY_BYTES), np.uint8)

    def _complete(self) -> Frame:
        """Return the frame whose last byte has come."""
        expected, header, body = self._expected, self._header, self._body
        assert expected is not None
        assert header is not None
        assert body is not None
        if expected.body_crc is not None and zlib.crc32(body.data) != expected.body_crc:
            raise FrameError("the checksum of a frame's body is wrong")
        self._expected = self._header = self._body = None
        return _decode(header, body)


def _read_prefix(data: memoryview) -> _Expected:
    """Return what a prefix announces; raise FrameError for anything else."""
    magic, version, flags, header_bytes, body_bytes, header_crc, body_crc, crc = CHECKED_PREFIX.unpack(data)
    if magic == MAGIC and version != VERSION:
        raise FrameError(f"a frame has version {version}; accepted: {VERSION}")
    if magic != MAGIC or zlib.crc32(data[: PREFIX.size]) != crc:
        raise FrameError(f"a frame begins with {bytes(data[:16])!r}")
    if flags not in (0, BODY_CHECKED) or header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
        raise FrameError(f"a frame announces {header_bytes} + {body_bytes} bytes (flags {flags})")
    return _Expected(header_bytes, body_bytes, header_crc, body_crc if flags else None)


def _decode(header: bytes, body: NDArray[np.uint8]) -> Frame:
    try:
        return _parse(header, body)
    except (ValueError, TypeError, KeyError, OverflowError, msgpack.UnpackException) as error:
        raise FrameError(f"a frame cannot be read: {error}") from None


def _parse(header: bytes, body: NDArray[np.uint8]) -> Frame:
    run, dst, src, tag, kind, specs = msgpack.unpackb(header)
    if not type(run) is type(dst) is type(src) is int or type(tag) is not str or kind not in ("data", "shape"):
        raise ValueError("its header is not that of a message")
    sizes = [(number_format(name), _shape(shape)) for name, shape in specs]
    if kind == "shape":
        ((dtype, shape),) = sizes
        return Frame(run, dst, src, tag, ShapeArray(shape, dtype))
    arrays, offset = [], 0
    for dtype, shape in sizes:
        count = math.prod(shape)
        end = offset + count * dtype.itemsize
        if end > len(body):
            raise ValueError(f"its arrays end after byte {len(body)}, where its body does")
        arrays.append(np.frombuffer(body, dtype, count, offset).reshape(shape) if count else np.empty(shape, dtype))
        offset = end
    if offset != len(body):
        raise ValueError(f"its body has {len(body)} bytes, its arrays {offset}")
    return Frame(run, dst, src, tag, arrays)


def _shape(shape: Any) -> tuple[int, ...]:
    for n in shape:
        if type(n) is not int or n < 0:
            raise ValueError(f"{shape!r:.60} is not a shape")
    return tuple(shape)
