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

import contextlib
import functools
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

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
N_ANNOUNCED = 256
"""Announcements that are kept as they were written or read: the steps of a collective send the same again and again."""
MAX_GUESSED_BYTES = 1 << 20
"""Longer bodies are not guessed: a connection would keep room for one that may never come."""
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


class _Header(NamedTuple):
    """What a header says: (dtype, shape, first byte in the body) of every array, and the bytes of all."""

    run: int
    dst: int
    src: int
    tag: str
    kind: str
    specs: tuple[tuple[np.dtype[Any], tuple[int, ...], int], ...]
    body_bytes: int


class _Expected(NamedTuple):
    """What a prefix announces."""

    header_bytes: int
    body_bytes: int
    header_crc: int
    body_crc: int | None


class _Alike(NamedTuple):
    """A message that begins like the last one: prefix and header, what they say, and the bytes of all of it."""

    start: bytes
    expected: _Expected
    header: _Header
    n_bytes: int
    is_guessed: bool
    """Whether the next message is read as if it was one; short ones are better read many at a time."""


class Stream(Protocol):
    """Where bytes come from: a socket."""

    def recvmsg_into(self, rooms: Iterable[Any], /) -> tuple[int, Any, Any, Any]:
        """Put bytes into one room after the other; return how many, none at the end, and what is of no use here."""


@define
class _Bytes:
    """Bytes to read as from a socket."""

    rest: memoryview

    def recvmsg_into(self, rooms: Iterable[Any], /) -> tuple[int, None, None, None]:
        before = len(self.rest)
        if not before:
            raise BlockingIOError
        for room in rooms:
            n_bytes = min(len(room), len(self.rest))
            memoryview(room)[:n_bytes], self.rest = self.rest[:n_bytes], self.rest[n_bytes:]
        return before - len(self.rest), None, None, None


@define(eq=False)
class FrameReader:
    """Cuts a stream of bytes into frames; the state is the bytes that do not make a frame yet.

    What is left of a body goes straight into the memory that its arrays are views of. After a message of some size the
    next is guessed to begin like it, as the steps of a collective do: then a single read brings it whole. A wrong guess
    costs a copy.
    """

    _scratch: NDArray[np.uint8] = field(factory=lambda: np.empty(SCRATCH_BYTES, np.uint8))
    _n_scratch: int = 0
    _prefix: bytes = b""
    _expected: _Expected | None = None
    _header: bytes = b""
    _body: NDArray[np.uint8] | None = None
    _n_body: int = 0
    _alike: _Alike | None = None
    """How the next message may begin."""
    _start: bytearray = field(factory=bytearray)
    """Room for that."""

    def read(self, stream: Stream) -> list[Frame]:
        """Read once, and on to the end of a message if it is there already; return the messages that are complete.

        Raises FrameError on what is not a frame, EOFError at the end of the stream, and what the stream raises.
        """
        alike = self._alike
        if alike is None or not alike.is_guessed or self._n_scratch or self._expected is not None:
            return self._read_on(stream)
        start, body = self._start, np.empty(alike.expected.body_bytes, np.uint8)
        n_bytes = stream.recvmsg_into([start, body])[0]
        if n_bytes == alike.n_bytes and start == alike.start:  # whole, as with most messages
            run, dst, src, tag, _, specs, _ = alike.header
            return [new_frame((run, dst, src, tag, _arrays(specs, body)))]
        if not n_bytes:
            raise EOFError
        return self._check_guess(n_bytes, body, alike)

    def _read_on(self, stream: Stream) -> list[Frame]:
        frames: list[Frame] = []
        while not frames:
            room = self._room()
            n_bytes = stream.recvmsg_into([room])[0]
            if not n_bytes:
                raise EOFError
            if self._body is None:
                self._n_scratch += n_bytes
                frames = self._cut()
            else:
                self._n_body += n_bytes
                frames = self._complete_if_whole()
            if n_bytes < len(room):
                break
        return frames

    def _room(self) -> NDArray[np.uint8]:
        """Return where the next bytes of the stream belong."""
        body = self._body
        if body is None:
            return self._scratch[self._n_scratch :]
        if self._n_body == len(body):
            assert self._expected is not None
            body, shorter = np.empty(min(2 * self._n_body, self._expected.body_bytes), np.uint8), body
            body[: self._n_body] = shorter
            self._body = body
        return body[self._n_body :]

    def _check_guess(self, n_bytes: int, body: NDArray[np.uint8], alike: _Alike) -> list[Frame]:
        """Take in bytes that came where a message like the last one was expected: a part of one, or another."""
        n_start = min(n_bytes, len(alike.start))
        n_body = n_bytes - n_start
        if n_start == len(alike.start) and self._start == alike.start:
            self._expected, self._body, self._n_body = alike.expected, body, n_body
            self._prefix, self._header = alike.start[: CHECKED_PREFIX.size], alike.start[CHECKED_PREFIX.size :]
            return self._complete_if_whole()
        self._alike, self._n_scratch = None, n_start
        self._scratch.data[:n_start] = self._start[:n_start]
        return [*self._cut(), *self.feed(body.data[:n_body])]

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """Yield the frames that these bytes complete; raise FrameError on anything that is not a frame."""
        stream = _Bytes(memoryview(data))
        while stream.rest:
            with contextlib.suppress(BlockingIOError):
                yield from self.read(stream)

    def _cut(self) -> list[Frame]:
        """Return the frames that begin in the scratch; what is left of them goes to its front."""
        frames: list[Frame] = []
        at, view = 0, self._scratch.data
        while True:
            if self._expected is None:
                at = self._cut_alike(at, frames)
                if self._n_scratch - at < CHECKED_PREFIX.size:
                    break
                self._prefix = bytes(view[at : at + CHECKED_PREFIX.size])
                self._expected = _read_prefix(self._prefix)
                at += CHECKED_PREFIX.size
            expected = self._expected
            if self._n_scratch - at < expected.header_bytes:
                break
            self._header = bytes(view[at : at + expected.header_bytes])
            at += expected.header_bytes
            if zlib.crc32(self._header) != expected.header_crc:
                raise FrameError("the checksum of a frame's header is wrong")
            self._body = np.empty(min(expected.body_bytes, FIRST_BODY_BYTES), np.uint8)
            n_bytes = self._n_body = min(len(self._body), self._n_scratch - at)
            self._body[:n_bytes] = self._scratch[at : at + n_bytes]
            at += n_bytes
            whole = self._complete_if_whole()
            if not whole:
                break
            frames += whole
        self._scratch[: self._n_scratch - at] = self._scratch[at : self._n_scratch]
        self._n_scratch -= at
        if self._expected is not None and self._expected.header_bytes > len(self._scratch):
            self._scratch = np.resize(self._scratch, self._expected.header_bytes)
        return frames

    def _cut_alike(self, at: int, frames: list[Frame]) -> int:
        """Add the frames that lie whole in the scratch and begin like the last one; return where they end."""
        alike = self._alike
        if alike is None:
            return at
        start, _, (run, dst, src, tag, _, specs, _), n_bytes, _ = alike
        view, n_start = self._scratch.data, len(start)
        while at + n_bytes <= self._n_scratch and view[at : at + n_start] == start:
            body = self._scratch[at + n_start : at + n_bytes].copy()
            frames.append(new_frame((run, dst, src, tag, _arrays(specs, body))))
            at += n_bytes
        return at

    def _complete_if_whole(self) -> list[Frame]:
        """Return the frame that is under way if its last byte has come."""
        expected, body = self._expected, self._body
        assert expected is not None
        assert body is not None
        if self._n_body < expected.body_bytes:
            return []
        if expected.body_crc is not None and zlib.crc32(body.data) != expected.body_crc:
            raise FrameError("the checksum of a frame's body is wrong")
        header = _understand(self._header)
        frame = _parse(header, body)
        start = self._prefix + self._header
        if expected.body_crc is None and header.kind == "data" and len(start) <= SCRATCH_BYTES:
            is_guessed = SCRATCH_BYTES <= expected.body_bytes <= MAX_GUESSED_BYTES
            self._alike = _Alike(start, expected, header, len(start) + expected.body_bytes, is_guessed)
            self._start = bytearray(len(start))
        self._expected = self._body = None
        return [frame]


@lru_cache(maxsize=N_ANNOUNCED)
def _read_prefix(data: bytes) -> _Expected:
    """Return what a prefix announces; raise FrameError for anything else."""
    magic, version, flags, header_bytes, body_bytes, header_crc, body_crc, crc = CHECKED_PREFIX.unpack(data)
    if magic == MAGIC and version != VERSION:
        raise FrameError(f"a frame has version {version}; accepted: {VERSION}")
    if magic != MAGIC or zlib.crc32(data[: PREFIX.size]) != crc:
        raise FrameError(f"a frame begins with {data[:16]!r}")
    if flags not in (0, BODY_CHECKED) or header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
        raise FrameError(f"a frame announces {header_bytes} + {body_bytes} bytes (flags {flags})")
    return _Expected(header_bytes, body_bytes, header_crc, body_crc if flags else None)


def _understand(header: bytes) -> _Header:
    try:
        return _read_header(header)
    except (ValueError, TypeError, KeyError, OverflowError, msgpack.UnpackException) as error:
        raise FrameError(f"a frame cannot be read: {error}") from None


@lru_cache(maxsize=N_ANNOUNCED)
def _read_header(header: bytes) -> _Header:
    run, dst, src, tag, kind, given = msgpack.unpackb(header)
    if not type(run) is type(dst) is type(src) is int or type(tag) is not str or kind not in ("data", "shape"):
        raise ValueError("its header is not that of a message")
    specs, body_bytes = [], 0
    for name, shape in given:
        specs.append((number_format(name), _shape(shape), body_bytes))
        body_bytes += math.prod(shape) * specs[-1][0].itemsize
    if kind == "shape" and len(specs) != 1:
        raise ValueError(f"it announces {len(specs)} shapes")
    return _Header(run, dst, src, tag, kind, tuple(specs), body_bytes if kind == "data" else 0)


def _shape(shape: Any) -> tuple[int, ...]:
    for n in shape:
        if type(n) is not int or n < 0:
            raise ValueError(f"{shape!r:.60} is not a shape")
    return tuple(shape)


def _parse(header: _Header, body: NDArray[np.uint8]) -> Frame:
    run, dst, src, tag, kind, specs, body_bytes = header
    if len(body) != body_bytes:
        raise FrameError(f"a frame cannot be read: its body has {len(body)} bytes, its arrays {body_bytes}")
    payload = _arrays(specs, body) if kind == "data" else ShapeArray(specs[0][1], specs[0][0])
    return new_frame((run, dst, src, tag, payload))


def _arrays(specs: Sequence[tuple[np.dtype[Any], tuple[int, ...], int]], body: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """Return the arrays that a body consists of, as views."""
    arrays: list[NDArray[Any]] = []
    for dtype, shape, offset in specs:
        arrays.append(np.ndarray(shape, dtype, body, offset))
    return arrays
