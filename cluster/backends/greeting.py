"""Who may talk to whom: listeners, and what the first bytes of a connection must be.

A connection begins with a hello of 64 bytes: the protocol's version, the run's random token, who calls. Whoever does
not send it in time, or sends another, is shut out before anything else of it is read.
"""

from __future__ import annotations

import hmac
import socket
from pathlib import Path

from attrs import frozen

from cluster.backends.wire import VERSION

HELLO_BYTES = 64
HELLO_DEADLINE_S = 5.0
CONNECT_DEADLINE_S = 5.0
DEAD_PEER_S = 8
"""A TCP connection whose other end takes or answers nothing for so long is broken: its host is lost."""
BACKLOG = 1024
UNIX_BUFFER_BYTES = 1 << 20


@frozen
class Address:
    """Where a process listens.

    host: stands for the machine; processes of one reach each other over Unix sockets.  path: that of its Unix socket.
    ip, port: for processes of other hosts; port 0: there are none, and nobody listens.
    """

    host: str
    path: str
    ip: str = ""
    port: int = 0

    def connect(self, host: str) -> socket.socket:
        """Return a connection from a process on the host `host`; raise OSError if nobody is there."""
        local = host == self.host
        sock = socket.socket(socket.AF_UNIX if local else _family(self.ip), socket.SOCK_STREAM)
        try:
            if local:
                sock.connect(self.path)
            else:
                sock.settimeout(CONNECT_DEADLINE_S)
                sock.connect((self.ip, self.port))
                sock.settimeout(None)
            prepare(sock)
        except OSError:
            sock.close()
            raise
        return sock


@frozen(eq=False)
class Listeners:
    """What a process listens on: a Unix socket, and a TCP port of its host's address if others are to reach it."""

    address: Address
    sockets: tuple[socket.socket, ...]

    @classmethod
    def open(cls, path: Path, host: str, ip: str | None = None) -> Listeners:
        """Listen on the Unix socket `path` and, if an `ip` of this host is given, on a free port of it."""
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path.unlink(missing_ok=True)  # of a process that is lost
        local.bind(str(path))
        sockets = [local]
        if ip is not None:
            remote = socket.socket(_family(ip), socket.SOCK_STREAM)
            sockets.append(remote)
            try:
                remote.bind((ip, 0))
            except OSError:
                for sock in sockets:
                    sock.close()
                raise
        for sock in sockets:
            sock.listen(BACKLOG)
            sock.setblocking(False)
        port = sockets[-1].getsockname()[1] if ip is not None else 0
        return cls(Address(host, str(path), ip or "", port), tuple(sockets))


def _family(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def prepare(sock: socket.socket) -> None:
    """Give a Unix socket room for several messages; let TCP send at once, and notice soon that the other host is lost.

    By default a Unix socket takes less than two messages of 64 KiB: then every second one is sent in two parts.
    """
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_BUFFER_BYTES)  # the system may give less
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3),
                        ("TCP_USER_TIMEOUT", DEAD_PEER_S * 1000)):  # fmt: skip
        if hasattr(socket, name):  # as far as the system has them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def hello(token: str, index: int) -> bytes:
    """Return the first bytes of a connection: the version, the run's token and who calls.

    >>> hello("secret", 3).rstrip(), len(hello("secret", 3))
    (b'CM2 secret 3', 64)
    """
    return f"CM{VERSION} {token} {index}".encode().ljust(HELLO_BYTES)


def read_hello(greeting: bytes, token: str) -> int | None:
    """Return who calls, or None for a hello of another version or without the run's token.

    How long the comparison takes does not tell how much of the token is right.
    """
    start, _, index = greeting.decode("ascii", "replace").strip().rpartition(" ")
    right = hmac.compare_digest(start.encode(), f"CM{VERSION} {token}".encode())
    return int(index) if right and index.isdecimal() else None
