"""The control connection: every actor tells the driver what its chips hand over, and whether it is stuck.

One connection per actor, over the driver's Unix socket or from other hosts its TCP port; messages are msgpack objects,
one after the other. Ray carries programs and results; this carries what must come while a program runs, when an actor
is deaf to Ray calls: also a beat every second, so that a process that hangs (stopped, swapped out) is told from one
that computes.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgpack
import numpy as np
from attrs import define, field

from cluster.backends.greeting import HELLO_BYTES, HELLO_DEADLINE_S, Address, Listeners, hello, prepare, read_hello
from cluster.backends.wire import FrameError, number_format
from cluster.records import Collective
from configs.errors import RunError
from workloads.array import ShapeArray

READ_BYTES = 1 << 18
MAX_MESSAGE_BYTES = 1 << 30
MAX_ITEMS = 1 << 20  # of a list or mapping: the library makes room for all that are announced
BEAT_S = 1.0


def pack_value(value: Any) -> Any:
    """Return a value in a form that msgpack takes; arrays become (dtype, shape, bytes), or without data no bytes.

    Raises TypeError for anything but arrays, numbers, strings, bytes, None, and lists and dicts of these.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"__array__": [value.dtype.name, list(value.shape), np.ascontiguousarray(value).tobytes()]}
    if isinstance(value, ShapeArray):
        return {"__array__": [value.dtype.name, list(value.shape), None]}
    return value


def unpack_value(value: Any) -> Any:
    """Undo `pack_value`."""
    if isinstance(value, dict) and "__array__" in value:
        name, shape, data = value["__array__"]
        if data is None:
            return ShapeArray(tuple(shape), number_format(name))
        return np.frombuffer(data, number_format(name)).reshape(shape)
    return value


def pack_call(call: Collective) -> list[Any]:
    """Return a call in a form that msgpack takes."""
    return [*call._replace(dtype=call.dtype.name)]  # type: ignore[arg-type]


def unpack_call(values: Sequence[Any]) -> Collective:
    """Undo `pack_call`."""
    packed = Collective(*values)
    table = tuple(map(tuple, packed.table))
    return packed._replace(
        ranks=tuple(packed.ranks), shape=tuple(packed.shape), dtype=number_format(str(packed.dtype)), table=table
    )


def _unpacker() -> Any:
    return msgpack.Unpacker(
        max_buffer_size=MAX_MESSAGE_BYTES, max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS, strict_map_key=False
    )


class StoppedError(RunError):
    """The driver has ended this attempt of the run."""


class DriverGoneError(RunError):
    """Nobody is left to run for."""


@define(eq=False)
class ControlClient:
    """An actor's end; `run` is the number of the attempt, which every message of either side carries."""

    sock: socket.socket
    run: int = 0
    _sending: threading.Lock = field(factory=threading.Lock)
    _unpacker: Any = field(factory=_unpacker)

    @classmethod
    def connect(cls, driver: Address, host: str, token: str, index: int) -> ControlClient:
        """Connect from the host `host` to the driver and say who calls."""
        sock = driver.connect(host)
        sock.sendall(hello(token, index))
        return cls(sock)

    def send(self, *message: Any) -> None:
        """Send a message; any thread may."""
        data = msgpack.packb((self.run, *message))
        with self._sending:
            self.sock.sendall(data)

    @contextlib.contextmanager
    def beating(self, look: Callable[[], None]) -> Iterator[None]:
        """Show signs of life and `look` after other connections from a thread of its own, as long as the block runs.

        Only then: nobody reads between runs, and a full socket would hold up the next message.
        """
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over, look), name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _beat(self, over: threading.Event, look: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):  # the driver is gone: `await_end` says so
            self.send("beat")
            while not over.wait(BEAT_S):
                look()
                self.send("beat")

    def await_end(self) -> None:
        """Return when the driver has closed the connection, or is gone; reads nothing."""
        poller = select.poll()
        poller.register(self.sock, getattr(select, "POLLRDHUP", select.POLLHUP))  # of Linux; others say it by POLLHUP
        poller.poll()

    def ask(self, *message: Any) -> Any:
        """Send a message and return the driver's answer; raise DriverGoneError, or StoppedError if it ends the run."""
        self.send(*message)
        while True:
            for answer in self.receive():
                return answer

    def receive(self) -> list[Any]:
        """Return the answers that have come, waiting for something to come; raise as `ask` does."""
        try:
            data = self.sock.recv(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            raise DriverGoneError("the driver is gone")
        self._unpacker.feed(data)
        found = [what for run, *what in self._unpacker if run == self.run]
        if ["stop"] in found:
            raise StoppedError("the driver has ended the run")
        return [answer for _, answer in found]


@define(eq=False)
class _Actor:
    sock: socket.socket
    unpacker: Any
    deadline_s: float
    greeting: bytes = b""
    index: int = -1


@define(eq=False)
class ControlServer:
    """The driver's end."""

    listeners: Listeners
    token: str
    refused: Callable[[str], None]
    """Called with words on a connection that was shut out."""
    heard_s: dict[int, float] = field(factory=dict)
    """When anything of each actor has come last."""
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)
    _strangers: dict[_Actor, None] = field(factory=dict)
    """Who has not said hello yet."""

    def __attrs_post_init__(self) -> None:
        for sock in self.listeners.sockets:
            self._selector.register(sock, selectors.EVENT_READ, None)

    def poll(self, timeout_s: float) -> Iterator[tuple[int, list[Any] | None]]:
        """Yield (actor, message) for what has come within the time; None for an actor whose connection closed."""
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                self._accept(key.fileobj)  # type: ignore[arg-type]
            elif key.data.sock.fileno() >= 0:  # not shut out or forgotten since it was found ready
                yield from self._read(key.data)
        for actor in [a for a in self._strangers if a.deadline_s < time.monotonic()]:
            self._shut_out(actor, f"did not say who it is within {HELLO_DEADLINE_S:g} s")

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # it has gone again
            return
        prepare(sock)
        actor = _Actor(sock, _unpacker(), time.monotonic() + HELLO_DEADLINE_S)
        self._strangers[actor] = None
        self._selector.register(sock, selectors.EVENT_READ, actor)

    def tell(self, index: int, *message: Any) -> None:
        """Send a message to an actor; one that is gone needs none."""
        for actor in self._of(index):
            with contextlib.suppress(OSError):  # the next poll says so
                actor.sock.sendall(msgpack.packb(message))

    def forget(self, index: int) -> None:
        """Close the connection of an actor, whether it still lives or not."""
        for actor in self._of(index):
            self._drop(actor)

    def is_connected(self, index: int) -> bool:
        """Tell whether an actor's connection is open, as far as is known."""
        return bool(self._of(index))

    def _of(self, index: int) -> list[_Actor]:
        keys = self._selector.get_map().values()
        return [key.data for key in keys if key.data is not None and key.data.index == index]

    def _read(self, actor: _Actor) -> Iterator[tuple[int, list[Any] | None]]:
        try:
            data = actor.sock.recv(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._drop(actor)
            if actor.index >= 0:
                yield actor.index, None
            return
        if actor.index < 0:
            data = self._greet(actor, data)
        self.heard_s[actor.index] = time.monotonic()
        try:
            actor.unpacker.feed(data)
            for message in actor.unpacker:
                yield actor.index, message
        except (ValueError, msgpack.UnpackException) as error:
            self._drop(actor)
            raise FrameError(f"actor {actor.index} sent what is not a message: {error}") from None

    def _greet(self, actor: _Actor, data: bytes) -> bytes:
        """Check the hello; drop a connection with a wrong one. Returns what follows it."""
        actor.greeting += data
        if len(actor.greeting) < HELLO_BYTES:
            return b""
        index = read_hello(actor.greeting[:HELLO_BYTES], self.token)
        if index is None:
            self._shut_out(actor, "did not say the run's token")
            return b""
        del self._strangers[actor]
        actor.index = index
        return actor.greeting[HELLO_BYTES:]

    def _shut_out(self, actor: _Actor, why: str) -> None:
        self._drop(actor)
        self.refused(f"a connection to the driver was shut out: it {why}")

    def _drop(self, actor: _Actor) -> None:
        self._strangers.pop(actor, None)
        self._selector.unregister(actor.sock)
        actor.sock.close()

    def close(self) -> None:
        """Close all connections."""
        for key in list((self._selector.get_map() or {}).values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
