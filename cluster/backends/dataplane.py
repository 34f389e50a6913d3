"""The data plane: direct connections between the processes that hold chips.

Processes of one host reach each other over Unix sockets in the run's private folder (mode 0700), those of different
hosts over TCP. A process opens a connection to a peer when it first has something for it; where every process listens
is said once, before the first run.

Nothing here can lock. A process waits in three places only: for messages (`poll`), for room in the queue to a peer
(`send`), and for its queues to empty (`flush`). In all three it goes on to read whatever comes, from everybody, into
memory, and to write whatever the others take. So of two processes that wait for each other's socket to have room, each
empties the other's; a process that computes comes to one of the three in the end. What is left are programs that wait
for messages that nobody sends, or send what nobody receives: they are found by the reports of idle processes.
"""

from __future__ import annotations

import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from attrs import define, field

from cluster.backends.frame_reader import FrameReader
from cluster.backends.greeting import (
    HELLO_BYTES,
    HELLO_DEADLINE_S,
    Address,
    Listeners,
    break_off,
    hello,
    prepare,
    read_hello,
)
from cluster.backends.placement import name_chips
from cluster.backends.wire import Frame, FrameError, as_bytes, encode, new_frame
from cluster.host import Key
from configs.errors import ChipDiedError

IDLE_REPORT_S = 1.0
MAX_UNSENT_BYTES = 1 << 26
"""What may wait for a peer, before who sends more waits too; a single message may be longer."""
MAX_BUFFERS = 64
"""Handed to the system in one call, which takes no more than IOV_MAX: 1024 on Linux and macOS."""
MAX_STRANGERS = 128
"""Connections that have not said who they are; the oldest goes if there are more."""


@define(eq=False)
class _Connection:
    """A connection to or from a peer."""

    sock: socket.socket
    peer: int = -1
    checks_body: bool = False
    greeting: bytes = b""
    deadline_s: float = 0.0
    reader: FrameReader = field(factory=FrameReader)
    unsent: deque[Any] = field(factory=deque)
    unsent_bytes: int = 0
    watches_room: bool = False


@define(eq=False)
class DataPlane:
    """One process's end of the data plane; a `cluster.host.Transport` for one run at a time.

    owner: the process of every chip.  addresses: where every process listens.
    report: called with (sent, received, waiting) when nothing has moved for a second.
    refused: called with words on a connection that was shut out.
    sent: messages to every process so far.  received: messages from all of them.
    """

    index: int
    owner: Mapping[int, int]
    listeners: Listeners
    token: str
    report: Callable[[Mapping[int, int], int, Any], None]
    refused: Callable[[str], None]
    addresses: Sequence[Address] = ()
    run: int = 0
    sent: dict[int, int] = field(factory=Counter)
    received: int = 0
    _poller: select.poll = field(factory=select.poll)
    _watched: dict[int, tuple[socket.socket, _Connection | Callable[[], Any]]] = field(factory=dict)
    """By descriptor: sockets that are looked at, each a connection or with what is done when something has come."""
    _outgoing: dict[int, _Connection] = field(factory=dict)
    _strangers: dict[_Connection, None] = field(factory=dict)
    """Who has not said hello yet, the oldest first."""
    _arrived: dict[int, list[Frame]] = field(factory=dict)
    """What has come and was not asked for yet, by run: a peer may have begun one before this process."""

    def __attrs_post_init__(self) -> None:
        for sock in self.listeners.sockets:
            self.watch(sock, partial(self._accept, sock))

    def begin(self, run: int, token: str, addresses: Sequence[Address]) -> None:
        """Begin a run; with another token, all peers begin anew with no connections and nothing under way."""
        self.run, self.addresses = run, addresses
        self._arrived = {of: frames for of, frames in self._arrived.items() if of >= run}
        if token == self.token:
            return
        self.token = token
        for _, what in list(self._watched.values()):
            if isinstance(what, _Connection):
                self._drop(what)
        self._outgoing.clear()
        self._arrived.clear()
        self.sent, self.received = Counter(), 0

    def watch(self, sock: socket.socket, action: _Connection | Callable[[], Any]) -> None:
        """Call `action` whenever something has come on a socket while messages are waited for."""
        self._poller.register(sock, select.POLLIN)
        self._watched[sock.fileno()] = (sock, action)

    # --- Transport ----------------------------------------------------------------------------------------------

    def send(self, dst: int, src: int, tag: str, payload: Any) -> None:
        """Send a message; wait only if too much is on its way to that process already."""
        peer = self.owner[dst]
        connection = self._outgoing.get(peer) or self._connect(peer)
        buffers, n_bytes = encode(new_frame((self.run, dst, src, tag, payload)), check_body=connection.checks_body)
        self.sent[peer] += 1
        taken = 0 if connection.unsent else self._write(connection, buffers)
        if taken < n_bytes:  # most messages go at once
            connection.unsent += [buffers[0], *map(as_bytes, buffers[1:])]
            connection.unsent_bytes += n_bytes
            self._strike_out(connection, taken)
        while connection.unsent_bytes > MAX_UNSENT_BYTES:
            self._turn(list)

    def poll(self, waiting: Callable[[], Sequence[tuple[int, Key]]]) -> Sequence[Frame]:
        """Return the messages that have arrived for this run, waiting for at least one."""
        while self.run not in self._arrived:
            self._turn(waiting)
        return self._arrived.pop(self.run)

    def flush(self) -> None:
        """Wait until the peers have taken everything that was sent."""
        while any(c.unsent for c in self._outgoing.values()):
            self._turn(list)

    def break_off(self) -> None:
        """End the connections to hosts that are lost; any thread may call this."""
        for sock, _ in list(self._watched.values()):
            break_off(sock)

    def close(self) -> None:
        """Close all connections."""
        for sock, _ in list(self._watched.values()):
            sock.close()
        self._watched.clear()

    # --- sockets ------------------------------------------------------------------------------------------------

    def _turn(self, waiting: Callable[[], Sequence[tuple[int, Key]]], wait_s: float | None = None) -> bool:
        """Read and write what the sockets are ready for, waiting for the first of them; return whether any was."""
        events = self._poller.poll((IDLE_REPORT_S if wait_s is None else wait_s) * 1e3)
        for descriptor, mask in events:  # not `selectors`, which does as much again for every event
            sock_and_what = self._watched.get(descriptor)
            if sock_and_what is None:  # shut out since it was found ready
                continue
            _, what = sock_and_what
            if not isinstance(what, _Connection):
                what()
            elif mask == select.POLLIN and what.peer >= 0:  # as with most events
                self._read(what)
            else:
                self._handle(what, mask)
        if self._strangers:
            self._shut_out_silent()
        if not events and wait_s is None:
            self.report(self.sent, self.received, waiting())
        return bool(events)

    def _connect(self, peer: int) -> _Connection:
        address, mine = self.addresses[peer], self.listeners.address
        try:
            sock = address.connect(mine.host)
        except OSError as error:
            raise ChipDiedError(f"{self._chips(peer)}: no connection: {error.strerror or error}") from None
        try:
            sock.sendall(hello(self.token, self.index))
        except OSError as error:
            sock.close()
            raise ChipDiedError(f"{self._chips(peer)}: no connection: {error.strerror}") from None
        sock.setblocking(False)
        connection = self._outgoing[peer] = _Connection(sock, peer, checks_body=address.host != mine.host)
        self.watch(sock, connection)
        return connection

    def _handle(self, connection: _Connection, mask: int) -> None:
        if mask & select.POLLOUT:
            self._flush(connection)
        if mask & ~select.POLLOUT:  # something has come, or the other end has gone
            if connection.peer < 0:
                self._greet(connection)
            else:
                self._read(connection)

    def _read(self, connection: _Connection) -> None:
        try:
            frames = connection.reader.read(connection.sock)
        except BlockingIOError:
            return
        except (OSError, EOFError):
            self._drop(connection)
            raise ChipDiedError(f"{self._chips(connection.peer)}: the connection closed") from None
        except FrameError as error:
            self._drop(connection)
            raise FrameError(f"from {self._chips(connection.peer)}: {error}; the connection is closed") from None
        self.received += len(frames)
        for frame in frames:
            self._arrived.setdefault(frame[0], []).append(frame)

    def _write(self, connection: _Connection, buffers: Iterable[Any]) -> int:
        """Return how many bytes the peer takes now."""
        try:
            return connection.sock.sendmsg(islice(buffers, MAX_BUFFERS))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ChipDiedError(f"{self._chips(connection.peer)}: the connection broke: {error.strerror}") from None

    def _flush(self, connection: _Connection) -> None:
        """Send what the peer takes now of what waits for it."""
        while connection.unsent and self._strike_out(connection, self._write(connection, connection.unsent)):
            pass

    def _strike_out(self, connection: _Connection, n_bytes: int) -> bool:
        """Strike sent bytes out of what waits for a peer; watch for room if more is left. Return whether it was any."""
        unsent, left = connection.unsent, n_bytes
        connection.unsent_bytes -= n_bytes
        while unsent and left >= len(unsent[0]):
            left -= len(unsent.popleft())
        if left:
            unsent[0] = memoryview(unsent[0])[left:]
        if bool(unsent) != connection.watches_room:
            connection.watches_room = bool(unsent)
            self._poller.modify(connection.sock, select.POLLIN | (select.POLLOUT if unsent else 0))
        return n_bytes > 0

    def _drop(self, connection: _Connection) -> None:
        self._strangers.pop(connection, None)
        self._poller.unregister(connection.sock)
        del self._watched[connection.sock.fileno()]
        connection.sock.close()

    def _chips(self, peer: int) -> str:
        return name_chips([chip for chip, owner in self.owner.items() if owner == peer])

    # --- strangers ----------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # it has gone again
            return
        sock.setblocking(False)
        prepare(sock)
        connection = _Connection(sock, deadline_s=time.monotonic() + HELLO_DEADLINE_S)
        self.watch(sock, connection)
        self._strangers[connection] = None
        self._greet(connection)  # a peer has sent its hello at once
        if len(self._strangers) > MAX_STRANGERS:
            self._shut_out(next(iter(self._strangers)), "did not say who it is, while many others came")

    def _greet(self, connection: _Connection) -> None:
        """Take a hello, or a part of it; whatever follows is the reader's."""
        try:
            data = connection.sock.recv(HELLO_BYTES - len(connection.greeting))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.greeting += data
        if not data:
            self._drop(connection)
        elif len(connection.greeting) == HELLO_BYTES:
            peer = read_hello(connection.greeting, self.token)
            if peer is None or peer not in self.owner.values():
                self._shut_out(connection, "did not say the run's token")
            else:
                del self._strangers[connection]
                connection.peer = peer

    def _shut_out_silent(self) -> None:
        """Close the connections of those who have not said who they are in time."""
        now_s = time.monotonic()
        for connection in list(self._strangers):
            if connection.deadline_s < now_s:
                self._shut_out(connection, f"did not say who it is within {HELLO_DEADLINE_S:g} s")

    def _shut_out(self, connection: _Connection, why: str) -> None:
        self._drop(connection)
        self.refused(f"a connection to {self._chips(self.index)} was shut out: it {why}")
