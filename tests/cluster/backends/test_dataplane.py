"""The data plane by hand: several ends in one process, none of which may ever block on a send."""

from __future__ import annotations

import contextlib
import socket
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest

from cluster.backends import dataplane
from cluster.backends.dataplane import DataPlane
from cluster.backends.greeting import Listeners, break_off, hello, is_cut_off, prepare
from cluster.backends.wire import MAGIC, PREFIX, VERSION, Frame, FrameError
from configs.errors import ChipDiedError
from tests.cluster.backends.common import stream_of
from workloads.array import ShapeArray

TOKEN = "0123456789abcdef"
OWNER = {0: 0, 1: 0, 2: 1, 3: 1, 4: 2}
"""Chips 0-1 in process 0, chips 2-3 in process 1, chip 4 in process 2."""


@pytest.fixture(autouse=True)
def _nothing_left_open():
    """No test leaves a socket or a file open."""
    folder = Path("/proc/self/fd")
    before = {entry.name for entry in folder.iterdir()}
    yield
    assert {entry.name for entry in folder.iterdir()} == before


@pytest.fixture
def reports():
    """What each end said when it was idle."""
    return [[], [], []]


@pytest.fixture
def refusals():
    """What each end said of connections that it shut out."""
    return [[], [], []]


@pytest.fixture(params=["one host", "three hosts"])
def planes(request, tmp_path, monkeypatch, reports, refusals):
    """Three ends, on one host or as if on three, closed afterwards."""
    hosts, ip = ("aaa", None) if request.param == "one host" else ("abc", "127.0.0.1")
    monkeypatch.setattr(dataplane, "IDLE_REPORT_S", 0.05)

    def report_of(index):
        return lambda sent, received, waiting: reports[index].append((dict(sent), received, waiting))

    listeners = [Listeners.open(tmp_path / f"{index}.sock", hosts[index], ip) for index in range(3)]
    addresses = [each.address for each in listeners]
    made = [
        DataPlane(i, OWNER, listeners[i], TOKEN, report_of(i), refusals[i].append, addresses, run=1) for i in range(3)
    ]
    yield made
    for plane in made:
        plane.close()


def call(plane, caller="a"):
    """Return a connection to a plane from a process of the host `caller`, that has said nothing yet."""
    sock = plane.listeners.address.connect(caller)
    sock.settimeout(5)
    return sock


def turn(plane):
    """Let a plane handle what its sockets are ready for, without waiting."""
    while plane._turn(list, 0):
        pass


def test_messages_arrive_in_order_with_their_addresses(planes):
    """Everything between two processes comes in the order in which it was sent."""
    a, b, _ = planes
    for i in range(50):
        a.send(2 + i % 2, i % 2, f"t{i}", [np.full(i, i, np.float32)])
    got = []
    while len(got) < 50:
        got += b.poll(list)
    assert [(dst, src, tag, payload[0].tolist()) for _, dst, src, tag, payload in got] == [
        (2 + i % 2, i % 2, f"t{i}", [i] * i) for i in range(50)
    ]


def test_shapes_travel_too(planes):
    """Without data there is a shape and a dtype."""
    a, b, _ = planes
    a.send(2, 0, "", ShapeArray((3, 4), np.dtype(np.float32)))
    [(_, _, _, _, payload)] = b.poll(list)
    assert (payload.shape, payload.dtype) == ((3, 4), np.float32)


def test_connections_are_opened_when_first_used(planes):
    """Who sends nothing connects to nobody."""
    a, b, c = planes
    assert not a._outgoing
    a.send(2, 0, "", [np.zeros(1)])
    b.poll(list)
    assert set(a._outgoing) == {1}
    assert not b._outgoing
    assert not c._outgoing


def test_large_arrays_both_ways_at_once(planes):
    """Far more than the sockets hold, sent by all before anybody reads."""
    size = 16 << 20
    owners = {0: 0, 2: 1, 4: 2}
    for src, p in owners.items():
        for dst in owners.keys() - {src}:
            planes[p].send(dst, src, "big", [np.full(size, src, np.uint8)])
    assert all(any(c.unsent for c in plane._outgoing.values()) for plane in planes)
    got = {}
    for _ in range(10_000):
        for plane in planes:
            turn(plane)
            got |= {(f.dst, f.src): f.payload[0] for f in plane._arrived.get(1, ())}
        if len(got) == 6:
            break
    assert set(got) == {(d, s) for d in owners for s in owners if d != s}
    assert all(len(v) == size and (v == src).all() for (_, src), v in got.items())
    for plane in planes:
        plane.flush()


def test_flush_waits_until_all_is_taken(planes, reports):
    """`flush` returns once a slow reader has taken the last byte, and says meanwhile that it is stuck."""
    a, b, _ = planes
    a.send(2, 0, "big", [np.zeros(8 << 20, np.uint8)])
    flushing = threading.Thread(target=a.flush)
    flushing.start()
    flushing.join(0.3)
    assert flushing.is_alive()
    assert reports[0][-1] == ({1: 1}, 0, [])
    [(_, _, _, _, payload)] = b.poll(list)
    flushing.join(10)
    assert not flushing.is_alive()
    assert payload[0].nbytes == 8 << 20


def test_an_idle_end_reports_what_it_waits_for(planes, reports):
    """With nothing to read for a while, the counts and the wait go to the driver."""
    a, b, _ = planes
    a.send(2, 0, "x", [])
    b.poll(list)
    later = threading.Timer(0.2, lambda: a.send(3, 1, "y", []))
    later.start()
    b.poll(lambda: [(3, (1, "y"))])
    later.join()
    assert reports[1][0] == ({}, 1, [(3, (1, "y"))])
    assert a.sent == {1: 2}


def test_frames_of_a_later_run_are_kept_for_it(planes):
    """A process that is already in the next run may send to one that is not."""
    a, b, c = planes
    a.run = 2
    a.send(2, 0, "later", [])
    turn(b)
    c.send(2, 4, "now", [])
    assert [tag for _, _, _, tag, _ in b.poll(list)] == ["now"]
    b.run = 2
    assert [tag for _, _, _, tag, _ in b.poll(list)] == ["later"]


@pytest.mark.parametrize(
    "greeting",
    [
        hello("wrong" + TOKEN[5:], 1), hello(TOKEN[:-1], 1), hello("", 1), hello(TOKEN, -1), hello(TOKEN, 77),
        b"\xff" * 64, b"\0" * 200, bytes(64), hello(TOKEN, 1)[:40] + b"\xff" * 24,
    ],
)  # fmt: skip
def test_a_wrong_hello_closes_that_connection_only(planes, refusals, greeting):
    """A stranger is shut out, its bytes are not read, and the run goes on."""
    a, b, _ = planes
    frame = stream_of([Frame(1, 2, 0, "evil", [])])
    with call(b) as stranger:
        stranger.sendall(greeting + frame)
        a.send(2, 0, "good", [])
        got = []
        while not got:
            got += b.poll(list)
        turn(b)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    assert [tag for _, _, _, tag, _ in got] == ["good"]
    assert not b._arrived
    assert refusals == [[], ["a connection to chips 2-3 was shut out: it did not say the run's token"], []]


def test_a_hello_in_pieces(planes):
    """The hello and the first frame may come cut anywhere, and a stranger who says nothing holds nobody up."""
    _, b, _ = planes
    data = hello(TOKEN, 0) + stream_of([Frame(1, 2, 0, "x", [np.arange(3)])])
    with call(b) as silent, call(b) as peer:
        for i in range(len(data)):
            peer.sendall(data[i : i + 1])
            turn(b)
        [(_, dst, src, tag, payload)] = b.poll(list)
        assert (dst, src, tag, payload[0].tolist()) == (2, 0, "x", [0, 1, 2])
        silent.close()
        turn(b)  # a stranger that leaves is no death


@pytest.mark.parametrize("drips", [False, True])
def test_a_stranger_that_never_says_who_it_is(planes, refusals, monkeypatch, drips):
    """Whoever is silent, or does not come to the end of its hello, is shut out after a while; peers are not."""
    monkeypatch.setattr(dataplane, "HELLO_DEADLINE_S", 0.2)
    a, b, _ = planes
    a.send(2, 0, "before", [])
    b.poll(list)
    with call(b) as stranger:
        turn(b)
        assert len(b._strangers) == 1
        for _ in range(20 * drips):
            with contextlib.suppress(OSError):  # shut out already
                stranger.sendall(b"C")
            turn(b)
        while not refusals[1]:
            b._turn(list)
        assert refusals[1] == ["a connection to chips 2-3 was shut out: it did not say who it is within 0.2 s"]
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    a.send(2, 0, "after", [])
    assert [tag for _, _, _, tag, _ in b.poll(list)] == ["after"]


def test_a_flood_of_strangers(planes, refusals, monkeypatch):
    """Of many that say nothing, the oldest go; a peer still comes through."""
    monkeypatch.setattr(dataplane, "MAX_STRANGERS", 5)
    a, b, _ = planes
    with contextlib.ExitStack() as open_sockets:
        for _ in range(20):
            open_sockets.enter_context(call(b))
        a.send(2, 0, "good", [])
        assert [tag for _, _, _, tag, _ in b.poll(list)] == ["good"]
        assert len(b._strangers) == 5
    assert len(refusals[1]) == 15


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff" * 64, "a frame begins with"),
        (stream_of([Frame(1, 2, 0, "x", [])])[:40] + bytes(60), "checksum of a frame's header"),
        (PREFIX.pack(MAGIC, VERSION, 0, 1 << 30, 1 << 60, 0, 0), "a frame a"),
    ],
)
def test_a_peer_that_sends_what_is_no_frame(planes, data, words):
    """Its connection is closed and the run ends with its chips' names: a message is lost."""
    _, b, _ = planes
    if len(data) == PREFIX.size:
        data += zlib.crc32(data).to_bytes(4, "little")
    with call(b) as peer:
        peer.sendall(hello(TOKEN, 0) + data)
        with pytest.raises(FrameError, match=f"from chips 0-1: .*{words}.*; the connection is closed"):
            b.poll(list)
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""


def test_half_a_frame_and_a_hang_up(planes):
    """A peer that ends in the middle of a message is a death, and the half message is nothing."""
    _, b, _ = planes
    with call(b) as peer:
        peer.sendall(hello(TOKEN, 4 // 2) + stream_of([Frame(1, 2, 4, "x", [np.arange(9)])])[:-5])
    with pytest.raises(ChipDiedError, match="chip 4: the connection closed"):
        b.poll(list)
    assert not b._arrived


def test_bodies_are_summed_up_between_hosts(planes):
    """What passes a network carries its checksum; what stays in a host does not."""
    a, b, _ = planes
    a.send(2, 0, "", [np.arange(3)])
    between = a.listeners.address.host != b.listeners.address.host
    assert a._outgoing[1].checks_body == between
    assert b.poll(list)[0].payload[0].tolist() == [0, 1, 2]


def test_who_sends_too_much_waits_and_reads_meanwhile(planes, monkeypatch):
    """The queue to a peer is bounded: two that send far more to each other get everything through all the same."""
    monkeypatch.setattr(dataplane, "MAX_UNSENT_BYTES", 1 << 20)
    a, b, _ = planes
    most, n, big = [0, 0], 40, np.zeros(1 << 20, np.uint8)

    def talk(me, plane, dst, src):
        for _ in range(n):
            plane.send(dst, src, "big", [big])
            most[me] = max(most[me], plane._outgoing[1 - me].unsent_bytes)
        got = 0
        while got < n:
            got += len(plane.poll(list))
        plane.flush()

    threads = [threading.Thread(target=talk, args=(0, a, 2, 0)), threading.Thread(target=talk, args=(1, b, 0, 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert max(most) <= 1 << 20


def test_a_peer_that_closes_is_a_death(planes):
    """Who waits for a closed peer learns which chips it had."""
    a, b, _ = planes
    a.send(2, 0, "", [])
    b.poll(list)
    a.close()
    with pytest.raises(ChipDiedError, match="chips 0-1: the connection closed"):
        b.poll(lambda: [(2, (0, "x"))])


def test_the_sender_notices_too(planes):
    """Sending to a closed peer, or one that never was there, names its chip."""
    a, b, c = planes
    c.send(2, 4, "", [])
    b.poll(list)
    b.close()
    with pytest.raises(ChipDiedError, match=r"chips 2-3: the connection (broke|closed)"):
        send_much(c)
    with pytest.raises(ChipDiedError, match="chips 2-3: no connection"):
        a.send(3, 0, "", [])


def send_much(plane):
    """Send until somebody must have noticed."""
    for _ in range(100):
        plane.send(2, 4, "", [np.zeros(1 << 16, np.uint8)])
        turn(plane)


def test_a_death_while_flushing(planes):
    """A peer that dies with a full socket ends the flush."""
    a, _, c = planes
    a.send(4, 0, "", [np.zeros(8 << 20, np.uint8)])
    threading.Timer(0.2, c.close).start()
    with pytest.raises(ChipDiedError, match=r"chip 4: the connection (broke|closed)"):
        a.flush()


def test_who_does_not_read_is_not_cut_off():
    """A full TCP connection and a Unix socket are let be; test_machines has one that is lost."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        prepare(sock)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(1 << 16))
        assert not is_cut_off(sock)
        break_off(sock)
        with pytest.raises(BlockingIOError):
            sock.send(b"x")
    assert not is_cut_off(sock)
    with socket.socket(socket.AF_UNIX) as local:
        assert not is_cut_off(local)
