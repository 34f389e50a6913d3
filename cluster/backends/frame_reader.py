"""Reading frames: a stream of bytes cut into the messages of `cluster.backends.wire`."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from cluster.backends.wire import (
    CHECKED_PREFIX,
    Announced,
    Frame,
    FrameError,
    Header,
    arrays_of,
    frame_of,
    new_frame,
    read_header,
    read_prefix,
)

SCRATCH_BYTES = 1 << 14
MAX_GUESSED_BYTES = 1 << 20
"""Longer bodies are not guessed: they come in many reads anyway."""
FIRST_BODY_BYTES = 1 << 26
"""Room for longer bodies is made as they come: an announced length takes no memory."""


class _Alike(NamedTuple):
    """A message that begins like the last one: prefix and header, what they say, and the bytes of all of it."""

    start: bytes
    expected: Announced
    header: Header
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
    _expected: Announced | None = None
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
            return [new_frame((run, dst, src, tag, arrays_of(specs, body)))]
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
                self._expected = read_prefix(self._prefix)
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
            frames.append(new_frame((run, dst, src, tag, arrays_of(specs, body))))
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
        header = read_header(self._header)
        frame = frame_of(header, body)
        start = self._prefix + self._header
        if expected.body_crc is None and header.kind == "data" and len(start) <= SCRATCH_BYTES:
            is_guessed = SCRATCH_BYTES <= expected.body_bytes <= MAX_GUESSED_BYTES
            self._alike = _Alike(start, expected, header, len(start) + expected.body_bytes, is_guessed)
            self._start = bytearray(len(start))
        self._expected = self._body = None
        return [frame]
