"""Who may talk to whom: listeners, and what the first bytes of a connection must be.

A connection begins with a hello of 64 bytes: the protocol's version, the run's random token, who calls. Whoever does
not send it in time, or sends another, is shut out before anything else of it is read.
"""

from __future__ import annotations

import contextlib
import hmac
import socket
from pathlib import Path

from attrs import frozen

from cluster.backends.wire import VERSION

HELLO_BYTES = 64
HELLO_DEADLINE_S = 5.0
CONNECT_DEADLINE_S = 5.0
MOST_REPEATS = 5
"""After so many repeats of what was sent, in about 6 s on a near network, the other host is taken for lost."""
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
    """Give a Unix socket room for several messages; let TCP send at once, and notice that the other host is lost.

    By default a Unix socket takes less than two messages of 64 KiB: then every second one is sent in two parts. TCP
    asks the other end of an idle connection for 8 s whether it is there; while something is under way, `is_cut_off`
    tells. (TCP_USER_TIMEOUT would do both, but also break the connection to a process that computes and does not read.)
    """
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_BUFFER_BYTES)  # the system may give less
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # as far as the system has them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def is_cut_off(sock: socket.socket) -> bool:
    """Tell whether the other host of a TCP connection has long not answered what it was sent (tcp(7), TCP_INFO).

    A process that does not read is no reason: its host answers. False where the system does not say.
    """
    if sock.family == socket.AF_UNIX or not hasattr(socket, "TCP_INFO"):
        return False
    try:
        _, _, repeats, probes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 4)
    except OSError:  # it is closed already
        return False
    return max(repeats, probes) >= MOST_REPEATS


def break_off(sock: socket.socket) -> None:
    """End a connection whose other host is lost: whoever waits on it learns of it; any thread may call this."""
    if is_cut_off(sock):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


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
