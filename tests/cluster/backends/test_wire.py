"""Frames: what goes in comes out, however the stream is cut; anything else is a FrameError, or waits for more."""

from __future__ import annotations

import contextlib
import tracemalloc
import zlib
from itertools import pairwise

import ml_dtypes
import msgpack
import numpy as np
import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cluster.backends.frame_reader import SCRATCH_BYTES, FrameReader
from cluster.backends.wire import (
    BODY_CHECKED,
    MAGIC,
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    PREFIX,
    VERSION,
    Frame,
    FrameError,
    encode,
    prefix,
)
from tests.cluster.backends.common import stream_of
from workloads.array import ShapeArray

DTYPES = [np.dtype(d) for d in ("f2", "f4", "f8", "i1", "u1", "i4", "i8", "?", ml_dtypes.bfloat16)]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@st.composite
def arrays(draw):
    """Any array: contiguous or not, with any bits, without elements, of no dimension."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(SHAPES)
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    if dtype == np.bool_:
        array = np.frombuffer(draw(st.binary(min_size=n_bytes, max_size=n_bytes)), np.uint8).reshape(shape) % 2 == 1
    else:
        array = np.frombuffer(draw(st.binary(min_size=n_bytes, max_size=n_bytes)), dtype).reshape(shape)
    return array.T if draw(st.booleans()) else array


ranks = st.integers(0, 2**31)
payloads = st.lists(arrays(), max_size=3) | st.builds(ShapeArray, SHAPES, st.sampled_from(DTYPES))
frames = st.builds(Frame, ranks, ranks, ranks, st.text(max_size=12), payloads)


def announce(n_header=0, n_body=0, header_crc=0, magic=MAGIC, version=VERSION, flags=0):
    """Return a prefix that holds, whatever it announces."""
    fields = PREFIX.pack(magic, version, flags, n_header, n_body, header_crc, 0)
    return fields + zlib.crc32(fields).to_bytes(4, "little")


def read(data, cuts=()):
    """Return the frames of a stream that comes in pieces."""
    reader, edges = FrameReader(), [0, *sorted(cuts), len(data)]
    return [f for a, b in pairwise(edges) for f in reader.feed(data[a:b])]


def check_equal(found, sent):
    """Assert that frames are equal to the bit."""
    assert found[:4] == sent[:4]
    if isinstance(sent.payload, ShapeArray):
        assert (found.payload.shape, found.payload.dtype) == (sent.payload.shape, sent.payload.dtype)
        return
    assert len(found.payload) == len(sent.payload)
    for a, b in zip(found.payload, sent.payload, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == np.ascontiguousarray(b).tobytes()


@given(st.lists(frames, max_size=4), st.booleans(), st.data())
def test_round_trip_in_any_cuts(sent, check_body, data):
    """Frames come out whole and in order from a stream cut anywhere."""
    stream = stream_of(sent, check_body=check_body)
    found = read(stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    assert len(found) == len(sent)
    for a, b in zip(found, sent, strict=True):
        check_equal(a, b)


@define
class Trickle:
    """A socket that has so many bytes now."""

    rest: memoryview
    n_left: int = 0

    def recvmsg_into(self, rooms):
        """Fill one room after the other."""
        if self.rest and not self.n_left:
            raise BlockingIOError
        n_before = len(self.rest)
        for room in map(memoryview, rooms):
            n = min(len(room), len(self.rest), self.n_left)
            room[:n], self.rest, self.n_left = self.rest[:n], self.rest[n:], self.n_left - n
        return n_before - len(self.rest), [], 0, None


LONG = [Frame(1, 0, 1, tag, [np.arange(n, dtype=np.float32)]) for n in (4095, 4096, 20_000) for tag in ("a", "other")]
"""Bodies below, at and above what makes the next message be guessed to begin alike."""


@given(
    st.lists(st.sampled_from([*LONG, Frame(1, 0, 1, "", [])]), max_size=8), st.booleans(),
    st.lists(st.integers(1, 100_000) | st.integers(1, 200), max_size=30),
)  # fmt: skip
def test_alike_or_not_in_any_reads(sent, check_body, reads):
    """Messages that begin like the one before, or otherwise, come out whole however much a read brings."""
    reader, stream, found = FrameReader(), Trickle(memoryview(stream_of(sent, check_body=check_body))), []
    for n_most in (*reads, *([1 << 20] * 40)):
        stream.n_left = n_most
        with contextlib.suppress(BlockingIOError, EOFError):
            found += reader.read(stream)
    assert len(stream.rest) == 0
    assert len(found) == len(sent)
    for a, b in zip(found, sent, strict=True):
        check_equal(a, b)


def test_byte_by_byte():
    """A stream may come a byte at a time."""
    sent = [Frame(1, 2, 3, "x", [np.arange(5), np.zeros((0, 3), np.float32)]), Frame(1, 2, 3, "", [])]
    stream = stream_of(sent)
    found = read(stream, range(len(stream)))
    for a, b in zip(found, sent, strict=True):
        check_equal(a, b)


def test_received_arrays_outlive_the_stream():
    """Arrays are not views of a buffer that the next frame overwrites."""
    reader = FrameReader()
    first = [*reader.feed(stream_of([Frame(1, 0, 0, "", [np.arange(4)])]))]
    list(reader.feed(stream_of([Frame(1, 0, 0, "", [np.zeros(4, np.int64)])])))
    assert first[0].payload[0].tolist() == [0, 1, 2, 3]


@given(frames, st.data())
def test_truncated_frames_wait(frame, data):
    """A part of a frame gives nothing and no error."""
    stream = stream_of([frame])
    assert read(stream[: data.draw(st.integers(0, len(stream) - 1))]) == []


@given(st.binary(max_size=200))
def test_random_bytes(data):
    """Random bytes are refused, or too few to tell."""
    with contextlib.suppress(FrameError):
        assert read(data) == []


@given(st.binary(max_size=64), st.integers(0, 80))
def test_random_bytes_after_a_good_prefix(header, body_bytes):
    """Whatever stands in the header, nothing but a frame or a FrameError comes out."""
    with contextlib.suppress(FrameError):
        read(prefix(header, [bytes(body_bytes)]) + header + bytes(body_bytes))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=6)
    | st.sampled_from(["data", "shape", "float32", "bfloat16", "object", "O", "V8", "U3", "finfo", "__doc__", "i4,i4"])
    | st.binary(max_size=6),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)  # fmt: skip
SPECS = st.lists(st.tuples(VALUES, VALUES | st.lists(st.integers(-3, 2**62), max_size=3)), max_size=2)


HEADERS = VALUES | st.tuples(VALUES, VALUES, VALUES, VALUES, st.sampled_from(["data", "shape"]), SPECS)


@given(HEADERS, st.integers(0, 16))
def test_well_formed_headers_that_mean_nothing(header, body_bytes):
    """Headers of any structure: a frame of plain values, or a FrameError."""
    packed = msgpack.packb(header)
    try:
        for frame in read(prefix(packed, [bytes(body_bytes)]) + packed + bytes(body_bytes)):
            assert all(type(n) is int for n in frame[:3])
            assert isinstance(frame.tag, str)
    except FrameError:
        pass


@st.composite
def damaged(draw):
    """Frames, and their stream after bytes of it were changed, lost, added or repeated."""
    sent = draw(st.lists(frames, min_size=1, max_size=3))
    stream = bytearray(stream_of(sent, check_body=True))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(len(stream) - 1, 0)))
        end = min(len(stream), start + draw(st.sampled_from([1, 4, 32, 100])))
        how = draw(st.sampled_from(["change", "lose", "add", "repeat"]))
        if how == "change" and stream:
            stream[start] ^= draw(st.integers(1, 255))
        elif how == "lose":
            del stream[start:end]
        elif how == "add":
            stream[start:start] = draw(st.binary(min_size=1, max_size=40))
        elif how == "repeat":
            stream[end:end] = stream[start:end]
    return sent, bytes(stream), draw(st.lists(st.integers(0, len(stream)), max_size=4))


def same(a, b):
    """Return whether two frames are equal to the bit."""
    try:
        check_equal(a, b)
    except (AssertionError, AttributeError, TypeError):
        return False
    return True


def check_damage(sent, stream, cuts):
    """Assert that what comes out of a damaged stream was sent, or that it is refused."""
    reader, edges, found = FrameReader(), [0, *sorted(cuts), len(stream)], []
    with contextlib.suppress(FrameError):
        for a, b in pairwise(edges):
            found += reader.feed(stream[a:b])
    assert all(any(same(frame, original) for original in sent) for frame in found)


@settings(max_examples=300)
@given(damaged())
def test_nothing_comes_out_that_was_not_sent(case):
    """With the body's checksum, no damage passes for a message."""
    check_damage(*case)


@pytest.mark.heavy
@settings(max_examples=10_000)
@given(damaged())
def test_nothing_comes_out_that_was_not_sent_in_ten_thousand_cases(case):
    """The same for long."""
    check_damage(*case)


@given(frames, st.data())
def test_a_flipped_byte_before_the_body(frame, data):
    """Without the body's checksum, everything that says what a message is still holds."""
    stream = bytearray(stream_of([frame]))
    stream[data.draw(st.integers(0, len(encode(frame)[0][0]) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FrameError):
        read(bytes(stream))


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", "a frame begins with"),
        (announce(4, 4)[:-1] + b"!", "a frame begins with"),
        (announce(4, 4, version=1), "a frame has version 1; accepted: 2"),
        (announce(magic=b"XXX"), "a frame begins with"),
        (announce(flags=2), "a frame announces"),
        (announce(MAX_HEADER_BYTES + 1), "a frame announces"),
        (announce(4, MAX_BODY_BYTES + 1), "a frame announces"),
        (announce(1) + b"\xc0", "the checksum of a frame's header"),
        (prefix(b"\xc1", []) + b"\xc1", "a frame cannot be read"),
        (prefix(b"\xc0", [b"abc"]) + b"\xc0abc", "a frame cannot be read"),
        (prefix(b"\xc0", [b"abc"], check_body=True) + b"\xc0abd", "the checksum of a frame's body"),
    ],
)
def test_what_is_not_a_frame_is_refused_at_once(start, words):
    """Another protocol, version or damaged prefix and lengths above the limits need no further byte."""
    with pytest.raises(FrameError, match=words):
        read(start)


def test_the_checksum_is_a_flag():
    """A body is only summed up where that is asked for."""
    body = [np.arange(4)]
    assert encode(Frame(1, 2, 3, "", body))[0][0][4] == 0
    assert encode(Frame(1, 2, 3, "", body), check_body=True)[0][0][4] == BODY_CHECKED


@pytest.mark.parametrize("n_bytes", [SCRATCH_BYTES - 100, SCRATCH_BYTES, 3 * SCRATCH_BYTES + 1])
def test_long_headers_and_bodies(n_bytes):
    """Neither needs to fit into what is read at once."""
    sent = [Frame(1, 2, 3, "t" * n_bytes, [np.arange(n_bytes, dtype=np.uint8)])] * 3
    for a, b in zip(read(stream_of(sent), range(0, 9 * n_bytes, n_bytes // 3)), sent, strict=True):
        check_equal(a, b)


def test_a_body_that_grows(monkeypatch):
    """Memory for a long body is taken as it comes."""
    monkeypatch.setattr("cluster.backends.frame_reader.FIRST_BODY_BYTES", 1000)
    sent = [Frame(1, 2, 3, "", [np.arange(5000), np.arange(7)])] * 2
    stream = stream_of(sent)
    for a, b in zip(read(stream, range(0, len(stream), 777)), sent, strict=True):
        check_equal(a, b)


@pytest.mark.parametrize(
    "spec", [("float32", [2]), ("float32", [-1]), ("object", [1]), ("float32", [2**62, 4]), ("float32", [1] * 99)]
)
def test_arrays_that_are_not_in_the_body(spec):
    """Shapes larger or smaller than the body, and dtypes that are no numbers, are refused."""
    header = msgpack.packb([1, 2, 3, "", "data", [spec]])
    with pytest.raises(FrameError):
        read(prefix(header, [bytes(4)]) + header + bytes(4))


def test_announced_bytes_are_not_allocated():
    """A prefix that announces 16 GiB takes no memory."""
    tracemalloc.start()
    try:
        assert read(announce(100, MAX_BODY_BYTES)) == []
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
