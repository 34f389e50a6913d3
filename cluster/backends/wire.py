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


def encode(frame: Frame, *, check_body: bool = False) -> list[Any]:
    """Return the buffers to send: prefix and header in one, then every array as it lies in memory."""
    run, dst, src, tag, payload = frame
    if isinstance(payload, ShapeArray):
        return [_announce(run, dst, src, tag, "shape", ((payload.dtype, payload.shape),))[1]]
    specs, buffers = [], []
    for value in payload:
        array = np.asarray(value, order="C")  # ascontiguousarray would give scalars an axis
        specs.append((array.dtype, array.shape))
        if array.nbytes:
            buffers.append(array.reshape(-1).view(np.uint8).data)
    header, unchecked = _announce(run, dst, src, tag, "data", tuple(specs))
    return [prefix(header, buffers, check_body=True) + header if check_body else unchecked, *buffers]


@lru_cache(maxsize=N_ANNOUNCED)
def _announce(
    run: int, dst: int, src: int, tag: str, kind: str, specs: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]
) -> tuple[bytes, bytes]:
    """Return the header of a message, and it with a prefix for a body without a checksum."""
    header = msgpack.packb([run, dst, src, tag, kind, [(dtype.name, shape) for dtype, shape in specs]])
    n_bytes = sum(math.prod(shape) * dtype.itemsize for dtype, shape in specs) if kind == "data" else 0
    return header, _prefix(header, n_bytes, None) + header


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


class _Expected(NamedTuple):
    """What a prefix announces."""

    header_bytes: int
    body_bytes: int
    header_crc: int
    body_crc: int | None


@define(eq=False)
class FrameReader:
    """Cuts a stream of bytes into frames; the state is the bytes that do not make a frame yet.

    Whoever reads the socket puts bytes where `rooms` says, then calls `advance`: what is left of a body goes straight
    into the memory that its arrays are views of. After a message of some size the next is guessed to begin like it, as
    the steps of a collective do: then a single read brings it whole. A wrong guess costs a copy.
    """

    _scratch: NDArray[np.uint8] = field(factory=lambda: np.empty(SCRATCH_BYTES, np.uint8))
    _n_scratch: int = 0
    _prefix: bytes = b""
    _expected: _Expected | None = None
    _header: bytes | None = None
    _body: NDArray[np.uint8] | None = None
    _n_body: int = 0
    _like: tuple[bytes, _Expected, bytes] | None = None
    """What the next message may begin with, and what that means."""
    _guess: NDArray[np.uint8] | None = None
    """Room for the body of the next message, if it is one like the last."""

    def rooms(self) -> list[memoryview]:
        """Return where the next bytes of the stream belong, one room after the other."""
        if self._body is not None:
            return [self._room_of_body(self._body)]
        if self._like is None or self._n_scratch or self._expected is not None:
            return [self._scratch.data[self._n_scratch :]]
        before, expected, _ = self._like
        if self._guess is None:
            self._guess = np.empty(expected.body_bytes, np.uint8)
        return [self._scratch.data[: len(before)], self._guess.data]

    def _room_of_body(self, body: NDArray[np.uint8]) -> memoryview:
        assert self._expected is not None
        if self._n_body == len(body):
            self._body = np.empty(min(2 * self._n_body, self._expected.body_bytes), np.uint8)
            self._body[: self._n_body] = body
            return self._body.data[self._n_body :]
        return body.data[self._n_body :]

    def advance(self, n_bytes: int) -> list[Frame]:
        """Return the frames that are complete with so many more bytes; raise FrameError on what is not a frame."""
        if self._guess is not None:
            return self._check_guess(n_bytes, self._guess)
        if self._body is None:
            self._n_scratch += n_bytes
            return self._cut()
        self._n_body += n_bytes
        return self._complete_if_whole()

    def _check_guess(self, n_bytes: int, guess: NDArray[np.uint8]) -> list[Frame]:
        """Take in bytes that came where a message like the last one was expected."""
        assert self._like is not None
        before, expected, header = self._like
        self._guess = None
        n_body = n_bytes - len(before)
        if n_body >= 0 and self._scratch.data[: len(before)] == before:
            self._expected, self._header, self._body, self._n_body = expected, header, guess, n_body
            return self._complete_if_whole()
        self._like, self._n_scratch = None, min(n_bytes, len(before))
        return [*self._cut(), *self.feed(guess.data[: max(0, n_body)])]

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """Yield the frames that these bytes complete; raise FrameError on anything that is not a frame."""
        rest = memoryview(data)
        while rest:
            n_before = len(rest)
            for room in self.rooms():
                n_bytes = min(len(room), len(rest))
                room[:n_bytes] = rest[:n_bytes]
                rest = rest[n_bytes:]
            yield from self.advance(n_before - len(rest))

    def _cut(self) -> list[Frame]:
        """Return the frames that begin in the scratch; what is left of them goes to its front."""
        frames, at, view = [], 0, self._scratch.data
        while True:
            if self._expected is None:
                if self._n_scratch - at < CHECKED_PREFIX.size:
                    break
                self._prefix = bytes(view[at : at + CHECKED_PREFIX.size])
                self._expected = _read_prefix(self._prefix)
                at += CHECKED_PREFIX.size
            if self._n_scratch - at < self._expected.header_bytes:
                break
            self._begin_body(self._expected, bytes(view[at : at + self._expected.header_bytes]))
            at += self._expected.header_bytes
            assert self._body is not None
            n_bytes = min(len(self._body), self._n_scratch - at)
            self._body.data[:n_bytes] = view[at : at + n_bytes]
            self._n_body, at = n_bytes, at + n_bytes
            whole = self._complete_if_whole()
            if not whole:
                break
            frames += whole
        self._scratch[: self._n_scratch - at] = self._scratch[at : self._n_scratch]
        self._n_scratch -= at
        if self._expected is not None and self._expected.header_bytes > len(self._scratch):
            self._scratch = np.resize(self._scratch, self._expected.header_bytes)
        return frames

    def _begin_body(self, expected: _Expected, header: bytes) -> None:
        if zlib.crc32(header) != expected.header_crc:
            raise FrameError("the checksum of a frame's header is wrong")
        self._header = header
        self._body = np.empty(min(expected.body_bytes, FIRST_BODY_BYTES), np.uint8)

    def _complete_if_whole(self) -> list[Frame]:
        """Return the frame that is under way if its last byte has come."""
        expected, header, body = self._expected, self._header, self._body
        assert expected is not None
        assert header is not None
        assert body is not None
        if self._n_body < expected.body_bytes:
            return []
        if expected.body_crc is not None and zlib.crc32(body.data) != expected.body_crc:
            raise FrameError("the checksum of a frame's body is wrong")
        guessable = expected.body_crc is None and SCRATCH_BYTES <= expected.body_bytes <= MAX_GUESSED_BYTES
        if self._like is None and guessable and len(self._prefix + header) <= SCRATCH_BYTES:
            self._like = (self._prefix + header, expected, header)
        self._expected = self._header = self._body = None
        return [_decode(header, body)]


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


def _decode(header: bytes, body: NDArray[np.uint8]) -> Frame:
    try:
        return _parse(header, body)
    except (ValueError, TypeError, KeyError, OverflowError, msgpack.UnpackException) as error:
        raise FrameError(f"a frame cannot be read: {error}") from None


def _parse(header: bytes, body: NDArray[np.uint8]) -> Frame:
    run, dst, src, tag, kind, sizes = _read_header(header)
    if kind == "shape":
        ((dtype, shape, _),) = sizes
        return Frame(run, dst, src, tag, ShapeArray(shape, dtype))
    arrays, offset = [], 0
    for dtype, shape, count in sizes:
        end = offset + count * dtype.itemsize
        if end > len(body):
            raise ValueError(f"its arrays end after byte {len(body)}, where its body does")
        arrays.append(np.frombuffer(body, dtype, count, offset).reshape(shape) if count else np.empty(shape, dtype))
        offset = end
    if offset != len(body):
        raise ValueError(f"its body has {len(body)} bytes, its arrays {offset}")
    return Frame(run, dst, src, tag, arrays)


@lru_cache(maxsize=N_ANNOUNCED)
def _read_header(header: bytes) -> tuple[int, int, int, str, str, list[tuple[np.dtype[Any], tuple[int, ...], int]]]:
    """Return what a header says, with the number of elements of every array."""
    run, dst, src, tag, kind, specs = msgpack.unpackb(header)
    if not type(run) is type(dst) is type(src) is int or type(tag) is not str or kind not in ("data", "shape"):
        raise ValueError("its header is not that of a message")
    return run, dst, src, tag, kind, [(number_format(name), _shape(shape), math.prod(shape)) for name, shape in specs]


def _shape(shape: Any) -> tuple[int, ...]:
    for n in shape:
        if type(n) is not int or n < 0:
            raise ValueError(f"{shape!r:.60} is not a shape")
    return tuple(shape)
