"""The data plane: direct connections between the processes that hold chips, over Unix sockets.

Each process listens on a socket of its own in the run's private folder (mode 0700) and opens a connection to a peer
when it first has something for it. The first thing on a connection is a hello with the run's random token. All sockets
are non-blocking: what a peer does not take yet waits here, so that two processes that send to each other never lock.
"""

from __future__ import annotations

import hmac
import selectors
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from cluster.backends.wire import Frame, FrameReader, encode
from cluster.host import Key
from configs.errors import ChipDiedError

READ_BYTES = 1 << 18
HELLO_BYTES = 64
IDLE_REPORT_S = 1.0


def socket_path(folder: Path, index: int) -> str:
    """Return where process `index` listens."""
    return str(folder / f"{index}.sock")


def hello(token: str, index: int) -> bytes:
    """Return the first bytes of a connection: the run's token and who calls."""
    return f"{token} {index}".encode().ljust(HELLO_BYTES)


def read_hello(greeting: bytes, token: str) -> int | None:
    """Return who calls, or None for a hello without the run's token."""
    given, _, index = greeting.decode("ascii", "replace").strip().partition(" ")
    return int(index) if hmac.compare_digest(given.encode(), token.encode()) and index.isdigit() else None


@define(eq=False)
class _Connection:
    """A connection to or from a peer."""

    sock: socket.socket
    peer: int = -1
    greeting: bytes = b""
    reader: FrameReader = field(factory=FrameReader)
    unsent: deque[memoryview] = field(factory=deque)


@define(eq=False)
class DataPlane:
    """One process's end of the data plane; a `cluster.host.Transport` for one run at a time.

    owner: the process of every chip.  sent: messages to every process so far.  received: messages from all of them.
    report: called with (sent, received, waiting) when nothing has moved for a second.
    """

    index: int
    owner: Mapping[int, int]
    folder: Path
    token: str
    report: Any
    run: int = 0
    sent: dict[int, int] = field(factory=dict)
    received: int = 0
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)
    _outgoing: dict[int, _Connection] = field(factory=dict)
    _arrived: deque[Frame] = field(factory=deque)
    _listener: socket.socket = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(socket_path(self.folder, self.index))
        self._listener.listen(1024)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, None)

    # --- Transport ----------------------------------------------------------------------------------------------

    def send(self, dst: int, src: int, tag: str, payload: Any) -> None:
        """Send a message without waiting."""
        peer = self.owner[dst]
        connection = self._connection(peer)
        buffers = deque(memoryview(b) for b in encode(Frame(self.run, dst, src, tag, payload)))
        self.sent[peer] = self.sent.get(peer, 0) + 1
        was_idle = not connection.unsent
        connection.unsent += buffers
        if was_idle:
            self._flush(connection)

    def poll(self, waiting: Sequence[tuple[int, Key]]) -> list[tuple[int, int, str, Any]]:
        """Return the messages that have arrived for this run, waiting for at least one."""
        while True:
            mine = [f for f in self._arrived if f.run == self.run]
            if mine:
                self._arrived = deque(f for f in self._arrived if f.run != self.run)
                return [(f.dst, f.src, f.tag, f.payload) for f in mine]
            events = self._selector.select(IDLE_REPORT_S)
            if not events:
                self.report(self.sent, self.received, waiting)
            for key, mask in events:
                self._handle(key.data, mask)

    def flush(self) -> None:
        """Wait until the peers have taken everything that was sent."""
        while any(c.unsent for c in self._outgoing.values()):
            events = self._selector.select(IDLE_REPORT_S)
            if not events:
                self.report(self.sent, self.received, [])
            for key, mask in events:
                self._handle(key.data, mask)

    def close(self) -> None:
        """Close all connections."""
        for key in list((self._selector.get_map() or {}).values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    # --- sockets ------------------------------------------------------------------------------------------------

    def _connection(self, peer: int) -> _Connection:
        if peer not in self._outgoing:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(socket_path(self.folder, peer))
                sock.sendall(hello(self.token, self.index))
            except OSError as error:
                sock.close()
                raise ChipDiedError(f"{self._chips(peer)}: no connection: {error.strerror}") from None
            sock.setblocking(False)
            self._outgoing[peer] = _Connection(sock, peer)
            self._selector.register(sock, selectors.EVENT_READ, self._outgoing[peer])
        return self._outgoing[peer]

    def _handle(self, connection: _Connection | None, mask: int) -> None:
        if connection is None:
            self._accept()
            return
        if mask & selectors.EVENT_WRITE:
            self._flush(connection)
        if mask & selectors.EVENT_READ:
            self._read(connection)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, _Connection(sock))

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            if connection.peer >= 0:
                raise ChipDiedError(f"{self._chips(connection.peer)}: the connection closed")
            return
        if connection.peer < 0:
            data = self._greet(connection, data)
        for frame in connection.reader.feed(data):
            self.received += 1
            self._arrived.append(frame)

    def _greet(self, connection: _Connection, data: bytes) -> bytes:
        """Check the hello; drop a connection with a wrong one. Returns what follows it."""
        connection.greeting += data
        if len(connection.greeting) < HELLO_BYTES:
            return b""
        peer = read_hello(connection.greeting[:HELLO_BYTES], self.token)
        if peer is None or peer not in self.owner.values():
            self._drop(connection)
            return b""
        connection.peer = peer
        return connection.greeting[HELLO_BYTES:]

    def _flush(self, connection: _Connection) -> None:
        """Send what the peer takes now; watch for room if something is left."""
        try:
            while connection.unsent:
                taken = connection.sock.sendmsg([*connection.unsent][:64])
                while connection.unsent and taken >= len(connection.unsent[0]):
                    taken -= len(connection.unsent.popleft())
                if taken:
                    connection.unsent[0] = connection.unsent[0][taken:]
        except BlockingIOError:
            pass
        except OSError as error:
            raise ChipDiedError(f"{self._chips(connection.peer)}: the connection broke: {error.strerror}") from None
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        if self._selector.get_key(connection.sock).events != wanted:
            self._selector.modify(connection.sock, wanted, connection)

    def _drop(self, connection: _Connection) -> None:
        self._selector.unregister(connection.sock)
        connection.sock.close()

    def _chips(self, peer: int) -> str:
        chips = [chip for chip, owner in self.owner.items() if owner == peer]
        return f"chip {chips[0]}" if len(chips) == 1 else f"chips {chips[0]}-{chips[-1]}"
