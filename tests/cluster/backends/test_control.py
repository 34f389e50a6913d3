"""The control connection: what actors say reaches the driver in order; strangers and deaths are told apart."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.backends.control import ControlClient, ControlServer, StoppedError, pack_value, unpack_value
from cluster.backends.greeting import Listeners, hello
from cluster.backends.wire import FrameError
from configs.errors import RunError

TOKEN, HOST = "secret-of-the-run", "here"


@pytest.fixture(autouse=True)
def _nothing_left_open():
    """No test leaves a socket or a file open."""
    folder = Path("/proc/self/fd")
    before = {entry.name for entry in folder.iterdir()}
    yield
    assert {entry.name for entry in folder.iterdir()} == before


@pytest.fixture
def server(tmp_path):
    """A driver's end."""
    server = ControlServer(Listeners.open(tmp_path / "driver.sock", HOST), TOKEN, [].append)
    yield server
    server.close()


def heard(server, n=99, timeout_s=0.2):
    """Return what comes until nothing more does, without the number of the run, which is 0."""
    found = []
    while len(found) < n:
        before = len(found)
        for index, message in server.poll(timeout_s):
            assert message is None or message[0] == 0
            found.append((index, message and message[1:]))
        if len(found) == before and not server._selector.select(0.05):
            break
    return found


def connect(server, index=3):
    """Return an actor's end."""
    return ControlClient.connect(server.listeners.address, HOST, TOKEN, index)


def test_beats_come_until_the_block_ends(server, monkeypatch):
    """Signs of life come from beside the program, and stop with it."""
    monkeypatch.setattr("cluster.backends.control.BEAT_S", 0.01)
    client = connect(server)
    with client.beating(lambda: None):
        assert heard(server, 3)[:3] == [(3, ["beat"])] * 3
    heard(server)
    assert "beat" not in {thread.name for thread in threading.enumerate()}
    assert heard(server) == []
    client.sock.close()


def test_messages_come_in_order(server):
    """Everything that an actor says comes, under its number."""
    client = connect(server)
    for i in range(100):
        client.send("emit", i, "name", {"a": [1, 2.5, None, b"x"]}, i)
    assert heard(server, 100) == [(3, ["emit", i, "name", {"a": [1, 2.5, None, b"x"]}, i]) for i in range(100)]
    client.sock.close()


def test_two_actors_and_the_end_of_one(server):
    """A connection that closes is told as None, once; the others go on."""
    a, b = connect(server, 0), connect(server, 1)
    a.send("x")
    b.send("y")
    assert sorted(heard(server)) == [(0, ["x"]), (1, ["y"])]
    a.sock.close()
    b.send({"1": {2: 3}})
    assert sorted(heard(server), key=str) == [(0, None), (1, [{"1": {2: 3}}])]
    assert heard(server) == []
    b.sock.close()


@pytest.mark.parametrize(
    "data",
    [
        hello("wrong", 0), hello(TOKEN + "x", 0), hello(TOKEN, -1), b"\xff" * 64, bytes(300),
        b"\xdd\xff\xff\xff\xff" * 40, msgpack.packb(["hello", TOKEN, 0]) + bytes(80),
    ],
)  # fmt: skip
def test_strangers_are_shut_out_and_the_run_goes_on(server, data):
    """A caller without the token gets its connection closed, nothing of it is unpacked."""
    client = connect(server)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(5)
        stranger.connect(server.listeners.address.path)
        stranger.sendall(data)
        client.send("good")
        assert heard(server) == [(3, ["good"])]
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
    client.sock.close()


def test_a_stranger_that_leaves_early_is_no_actor(server):
    """Half a hello and a hang-up are nothing."""
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(server.listeners.address.path)
        stranger.sendall(hello(TOKEN, 0)[:30])
    assert heard(server) == []


def test_a_message_in_pieces(server):
    """The hello and messages may come a byte at a time."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(server.listeners.address.path)
        found = []
        for byte in hello(TOKEN, 5) + msgpack.packb([0, "emit", list(range(30))]):
            peer.sendall(bytes([byte]))
            found += server.poll(0.0)
            found += server.poll(0.0)
        found += server.poll(0.2)
    assert found == [(5, [0, "emit", list(range(30))])]


@pytest.mark.parametrize("garbage", [b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xa2\xff\xff"])
def test_garbage_from_an_actor_is_an_error_that_names_it(server, garbage):
    """Bytes that are no message end the run; an announced size allocates nothing."""
    client = connect(server)
    client.sock.sendall(garbage)
    with pytest.raises(FrameError, match="actor 3 sent what is not a message"):
        heard(server)
    client.sock.close()


def test_answers_and_the_end_of_an_attempt(server):
    """What is meant for another attempt is not heard; one that is ended says so to whoever asks or looks."""
    client = connect(server)
    client.run = 2
    client.send("choose", "x")
    assert list(server.poll(1)) == []  # the new connection
    assert list(server.poll(1)) == [(3, [2, "choose", "x"])]
    server.tell(3, 1, "stop")
    server.tell(3, 2, "answer", {"a": 1})
    assert client.receive() == [{"a": 1}]
    server.tell(3, 2, "answer", "late")
    server.tell(3, 2, "stop")
    with pytest.raises(StoppedError):
        client.ask("choose", "y")
    server.forget(3)
    server.tell(3, 2, "answer", 1)  # gone: not told
    with pytest.raises(RunError, match="the driver is gone"):
        client.receive()
    client.sock.close()


VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text() | st.binary()


@given(st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)))
def test_plain_values_survive(value):
    """What is plain comes out equal."""
    assert unpack_value(msgpack.unpackb(msgpack.packb(pack_value(value)), strict_map_key=False)) == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3).T, np.zeros((0, 4), np.float32), np.array(2.5), np.array([True]),
        np.array([1.5, -2], ml_dtypes.bfloat16),
    ],
    ids=lambda a: f"{a.dtype}{list(a.shape)}",
)  # fmt: skip
def test_arrays_survive(array):
    """Dtype, shape and bits of an array come out as they went in."""
    found = unpack_value(msgpack.unpackb(msgpack.packb(pack_value(array))))
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_objects_are_refused():
    """Nothing is pickled on this connection."""
    with pytest.raises(TypeError):
        msgpack.packb(pack_value(object()))
