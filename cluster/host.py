"""Run the programs of several chips in one process, in a fixed order.

A chip is a coroutine that asks for messages. Messages between chips of one host are handed over by reference; those
for chips elsewhere go to the transport. Receives name their source, so values never depend on the order of arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Protocol

from attrs import define, field

from configs.errors import ChipmeshError, ProgramError

Key = tuple[int, str]
"""(source rank, tag) of a message."""


class Wait:
    """What a blocked program yields: the message that it waits for."""

    __slots__ = ("key",)

    def __init__(self, key: Key) -> None:
        self.key = key

    def __await__(self) -> Generator[Wait, Any, Any]:
        return (yield self)


@define(eq=False)
class Mailbox:
    """Messages that have arrived for one chip."""

    rank: int
    _messages: dict[Key, deque[Any]] = field(factory=dict)

    def put(self, key: Key, payload: Any) -> None:
        """Keep a message."""
        self._messages.setdefault(key, deque()).append(payload)

    def pop(self, key: Key) -> Any:
        """Return the next message under the key; raise KeyError if none has arrived."""
        queue = self._messages[key]
        payload = queue.popleft()
        if not queue:
            del self._messages[key]
        return payload

    async def take(self, key: Key) -> Any:
        """Return the next message under the key, waiting for it."""
        try:
            return self.pop(key)
        except KeyError:
            return await Wait(key)


class Transport(Protocol):
    """Carries messages to and from chips of other hosts."""

    def send(self, dst: int, src: int, tag: str, payload: Any) -> None:
        """Send a message without waiting."""

    def poll(self, waiting: Sequence[tuple[int, Key]]) -> list[tuple[int, int, str, Any]]:
        """Return messages (dst, src, tag, payload) that have arrived, waiting for at least one.

        `waiting` says who waits for what, for the report of a stall. Raises RunError if a peer is gone.
        """


@define(eq=False)
class _Running:
    """A chip's program on its way."""

    rank: int
    program: Coroutine[Wait, Any, Any]
    mailbox: Mailbox
    waits_for: Key | None = None
    done: bool = False
    value: Any = None


@define(eq=False)
class Host:
    """The chips of one process."""

    transport: Transport | None = None
    mailboxes: dict[int, Mailbox] = field(factory=dict)
    _running: dict[int, _Running] = field(factory=dict)
    _ready: deque[tuple[_Running, Any]] = field(factory=deque)

    def mailbox(self, rank: int) -> Mailbox:
        """Return the mailbox of a chip that lives here, made on first use."""
        return self.mailboxes.setdefault(rank, Mailbox(rank))

    def post(self, dst: int, src: int, tag: str, payload: Any) -> None:
        """Send a message to a chip, here or elsewhere."""
        if dst in self.mailboxes:
            self._deliver(dst, src, tag, payload)
        elif self.transport is not None:
            self.transport.send(dst, src, tag, payload)
        else:
            raise ProgramError(f"chip {src} sends to chip {dst}, which does not take part")

    def run(self, start: dict[int, Callable[[], Coroutine[Wait, Any, Any]]]) -> dict[int, Any]:
        """Run the programs of these ranks to their end and return what they return.

        Raises ProgramError if a program fails or all of them wait for messages that nobody will send.
        """
        self._running = {r: _Running(r, begin(), self.mailbox(r)) for r, begin in sorted(start.items())}
        self._ready = deque((chip, None) for chip in self._running.values())
        try:
            while True:
                while self._ready:
                    self._resume(*self._ready.popleft())
                waiting = [(c.rank, c.waits_for) for c in self._running.values() if c.waits_for is not None]
                if not waiting:
                    return {rank: chip.value for rank, chip in self._running.items()}
                if self.transport is None:
                    raise ProgramError(describe_deadlock(waiting))
                for dst, src, tag, payload in self.transport.poll(waiting):
                    self._deliver(dst, src, tag, payload)
        finally:
            for chip in self._running.values():
                chip.program.close()

    def _deliver(self, dst: int, src: int, tag: str, payload: Any) -> None:
        chip = self._running.get(dst)
        if chip is not None and chip.waits_for == (src, tag):
            chip.waits_for = None
            self._ready.append((chip, payload))
        else:
            self.mailboxes[dst].put((src, tag), payload)

    def _resume(self, chip: _Running, payload: Any) -> None:
        """Let a program go on until it waits for a message that has not arrived, or ends."""
        try:
            chip.waits_for = chip.program.send(payload).key
        except StopIteration as end:
            chip.done, chip.value = True, end.value
        except ChipmeshError:
            raise
        except Exception as error:
            raise ProgramError(f"chip {chip.rank}: the program raised {type(error).__name__}: {error}") from error


def describe_deadlock(waiting: Sequence[tuple[int, Key]]) -> str:
    """Say who waits for whom.

    >>> describe_deadlock([(0, (1, "hidden")), (1, (0, "hidden"))])
    'deadlock: chip 0 waits for chip 1 (hidden), chip 1 waits for chip 0 (hidden)'
    """
    shown = [f"chip {rank} waits for chip {src} ({tag})" for rank, (src, tag) in waiting[:8]]
    more = len(waiting) - len(shown)
    return "deadlock: " + ", ".join(shown) + (f" and {more} more" if more > 0 else "")
