"""The control connection: every actor tells the driver what its chips hand over, and whether it is stuck.

One Unix socket in the driver; messages are msgpack objects, one after the other. Ray carries programs and results; this
carries what must come while a program runs, when an actor is deaf to Ray calls.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from attrs import define, field

from cluster.backends.wire import FrameError

READ_BYTES = 1 << 18
MAX_MESSAGE_BYTES = 1 << 30


def pack_value(value: Any) -> Any:
    """Return a value in a form that msgpack takes; arrays become (dtype, shape, bytes).

    Raises TypeError for anything but arrays, numbers, strings, bytes, None, and lists and dicts of these.
    """
    if isinstance(value, np.ndarray):
        return {"__array__": [value.dtype.name, list(value.shape), np.ascontiguousarray(value).tobytes()]}
    return value


def unpack_value(value: Any) -> Any:
    """Undo `pack_value`."""
    if isinstance(value, dict) and "__array__" in value:
        name, shape, data = value["__array__"]
        import ml_dtypes  # noqa: PLC0415  only for its number formats

        return np.frombuffer(data, np.dtype(getattr(ml_dtypes, name, name))).reshape(shape)
    return value


@define(eq=False)
class ControlClient:
    """An actor's end."""

    sock: socket.socket

    @classmethod
    def connect(cls, path: str, token: str, index: int) -> ControlClient:
        """Connect to the driver and say who calls."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(path)
        client = cls(sock)
        client.send("hello", token, index)
        return client

    def send(self, *message: Any) -> None:
        """Send a message."""
        self.sock.sendall(msgpack.packb(message))


@define(eq=False)
class _Actor:
    sock: socket.socket
    unpacker: Any
    index: int = -1


@define(eq=False)
class ControlServer:
    """The driver's end."""

    path: Path
    token: str
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)
    _listener: socket.socket = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(1024)
        self._selector.register(self._listener, selectors.EVENT_READ, None)

    def poll(self, timeout_s: float) -> Iterator[tuple[int, list[Any] | None]]:
        """Yield (actor, message) for what has come within the time; None for an actor whose connection closed."""
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                sock, _ = self._listener.accept()
                unpacker = msgpack.Unpacker(max_buffer_size=MAX_MESSAGE_BYTES, strict_map_key=False)
                self._selector.register(sock, selectors.EVENT_READ, _Actor(sock, unpacker))
            else:
                yield from self._read(key.data)

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
        actor.unpacker.feed(data)
        for message in actor.unpacker:
            if actor.index >= 0:
                yield actor.index, message
            elif self._is_hello(message):
                actor.index = message[2]
            else:
                self._drop(actor)
                raise FrameError("a process without the run's token called the driver")

    def _is_hello(self, message: Any) -> bool:
        return isinstance(message, list) and message[:2] == ["hello", self.token] and isinstance(message[2], int)

    def _drop(self, actor: _Actor) -> None:
        self._selector.unregister(actor.sock)
        actor.sock.close()

    def close(self) -> None:
        """Close all connections."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
