"""Run the programs of several chips in one process, in a fixed order.

A chip is a coroutine that asks for messages. Messages between chips of one host are handed over by reference; those
for chips elsewhere go to the transport. Receives name their source, so values never depend on the order of arrival.

An operation that a chip has started goes on beside its program as a coroutine of its own; its end is a message of the
chip to itself, which the program waits for like any other.

A host may have threads: then chips that are about to compute run at the same time (numpy lets go of the interpreter
while it multiplies), and what they send meanwhile is handed over afterwards, chip after chip. Chips in the middle of a
collective and started operations, which only pass messages on, are resumed one by one: starting a thread would cost
more than they do.

A chip that is alone on its host waits for messages where its program stands, as nobody else could go on meanwhile.

A collective among chips of one host needs no messages: whoever comes last to the meeting carries it out for all. If no
program can go on, because a chip that is missing waits for something else first, or never comes, those who wait at a
meeting carry out their parts by messages after all. So programs end, or wait for each other, as they do in many hosts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator, Hashable, Sequence
from concurrent.futures import Executor
from functools import partial
from types import coroutine
from typing import Any, Protocol

from attrs import define, field

from configs.errors import ChipmeshError, OutOfMemoryError, ProgramError

Key = tuple[int, str]
"""(source rank, tag) of a message."""
ABSENT = object()
"""In place of a message that has not come; None is one."""


class Wait(tuple[Key, bool]):
    """What a blocked program yields: the message that it waits for, and whether it may compute when it has it."""

    __slots__ = ()


@define(eq=False)
class Mailbox:
    """Messages that have arrived for one chip."""

    rank: int
    pauses: bool = False
    """Whether a program stops before it computes, although its message is there: to compute together with others."""
    fetch: Callable[[Key], Any] | None = None
    """Waits for a message on the spot, where nobody else could go on meanwhile; returns ABSENT if somebody could."""
    messages: dict[Key, deque[Any]] = field(factory=dict)

    def put(self, key: Key, payload: Any) -> None:
        """Keep a message."""
        self.messages.setdefault(key, deque()).append(payload)

    def pop(self, key: Key) -> Any:
        """Return the next message under the key; raise KeyError if none has arrived."""
        queue = self.messages[key]
        payload = queue.popleft()
        if not queue:
            del self.messages[key]
        return payload

    def ready(self, key: Key, computes: bool = True) -> Any:
        """Return the next message under the key if it can be had without giving way to others, else ABSENT."""
        if key not in self.messages:
            return ABSENT if self.fetch is None else self.fetch(key)
        return ABSENT if computes and self.pauses else self.pop(key)

    @coroutine
    def take(self, key: Key, computes: bool = True) -> Generator[Wait, Any, Any]:
        """Return the next message under the key, waiting for it; `computes` False: only to pass messages on."""
        message = self.ready(key, computes)
        return message if message is not ABSENT else (yield Wait((key, computes)))


class Transport(Protocol):
    """Carries messages to and from chips of other hosts."""

    def send(self, dst: int, src: int, tag: str, payload: Any) -> None:
        """Send a message without waiting."""

    def poll(self, waiting: Callable[[], Sequence[tuple[int, Key]]]) -> Sequence[tuple[int, int, int, str, Any]]:
        """Return messages (run, dst, src, tag, payload) of this run that have arrived, waiting for at least one.

        `waiting` tells who waits for what, for the report of a stall. Raises RunError if a peer is gone.
        """


@define(eq=False)
class _Running:
    """A chip's program on its way, or an operation that it has started."""

    rank: int
    program: Coroutine[Wait, Any, Any]
    mailbox: Mailbox
    started: bool = False
    computes: bool = True
    value: Any = None


@define(eq=False)
class _Meeting:
    """Who has come to carry out a collective together, with what they hold."""

    tag: str
    parts: dict[int, Any] = field(factory=dict)
    is_off: bool = False


@define(eq=False)
class Host:
    """The chips of one process; `threads` run them beside this one, up to `n_threads` that compute at the same time."""

    transport: Transport | None = None
    threads: Executor | None = None
    n_threads: int = 1
    mailboxes: dict[int, Mailbox] = field(factory=dict)
    _running: dict[_Running, None] = field(factory=dict)
    _waiting: dict[tuple[int, Key], deque[_Running]] = field(factory=dict)
    """Who waits for a message to a rank, in the order of asking."""
    _ready: deque[tuple[_Running, Any]] = field(factory=deque)
    _about_to_compute: list[tuple[_Running, Any]] = field(factory=list)
    _held_back: dict[int, list[Callable[[], None]]] | None = None
    _meetings: dict[Hashable, _Meeting] = field(factory=dict)
    _together: dict[tuple[int, ...], bool] = field(factory=dict)
    _failure: BaseException | None = None

    def mailbox(self, rank: int) -> Mailbox:
        """Return the mailbox of a chip that lives here, made on first use."""
        return self.mailboxes.setdefault(rank, Mailbox(rank, pauses=self.threads is not None))

    def post(self, dst: int, src: int, tag: str, payload: Any) -> None:
        """Send a message to a chip, here or elsewhere."""
        if self._held_back is not None:
            self._held_back[src].append(partial(self.post, dst, src, tag, payload))
        elif dst in self.mailboxes:
            self._deliver(dst, src, tag, payload)
        elif self.transport is not None:
            self.transport.send(dst, src, tag, payload)
        else:
            raise ProgramError(f"chip {src} sends to chip {dst}, which does not take part")

    def hand_over(self, rank: int, action: Callable[[], None]) -> None:
        """Do what lets others know of a chip: now, or when all chips that compute at the same time have stopped."""
        if self._held_back is None:
            action()
        else:
            self._held_back[rank].append(action)

    def holds(self, ranks: tuple[int, ...]) -> bool:
        """Return whether all these chips live here."""
        known = self._together.get(ranks)
        if known is None:
            known = self._together[ranks] = all(rank in self.mailboxes for rank in ranks)
        return known

    def meet(
        self, rank: int, ranks: tuple[int, ...], call: Hashable, tag: str, part: Any,
        carry_out: Callable[[list[Any]], None],
    ) -> None:  # fmt: skip
        """Come to a call that these ranks of this host make.

        Each gets a message from itself under the tag: True once `carry_out` was called with the parts of all, in their
        order; False if they do not all come, and everyone is to go on alone.
        """
        meeting = self._meetings.get((ranks, call))
        if meeting is None:
            meeting = self._meetings[ranks, call] = _Meeting(tag)
        meeting.parts[rank] = part
        is_whole = len(meeting.parts) == len(ranks)
        if is_whole:
            del self._meetings[ranks, call]
        if meeting.is_off:
            self._deliver(rank, rank, tag, False)
        elif is_whole:
            carry_out([meeting.parts[member] for member in ranks])
            for member in ranks:
                self._deliver(member, member, tag, True)

    def _call_off(self) -> bool:
        """Call off all meetings that are not whole; return whether there were any."""
        waiting = [meeting for meeting in self._meetings.values() if not meeting.is_off]
        for meeting in waiting:
            meeting.is_off = True
            for member in sorted(meeting.parts):
                self._deliver(member, member, meeting.tag, False)
        return bool(waiting)

    def run(self, start: dict[int, Callable[[], Coroutine[Wait, Any, Any]]]) -> dict[int, Any]:
        """Run the programs of these ranks to their end and return what they return.

        Raises ProgramError if a program fails or all of them wait for messages that nobody will send.
        """
        programs = [_Running(rank, begin(), self.mailbox(rank)) for rank, begin in sorted(start.items())]
        self._running = dict.fromkeys(programs)
        self._about_to_compute = [(chip, None) for chip in programs]
        if len(programs) == 1 and self.transport is not None:
            programs[0].mailbox.fetch = partial(self._fetch, programs[0].rank, self.transport)
        try:
            while True:
                while self._ready or self._about_to_compute:
                    if self._ready:
                        self._resume(*self._ready.popleft())
                    else:
                        self._resume_together()
                if self._meetings and self._call_off():
                    continue
                if not self._waiting:
                    return {chip.rank: chip.value for chip in programs}
                if self.transport is None:
                    raise ProgramError(describe_deadlock(self._who_waits()))
                if self._failure is not None:
                    raise self._failure
                for _, dst, src, tag, payload in self.transport.poll(self._who_waits):
                    self._deliver(dst, src, tag, payload)
        finally:
            for chip in list(self._running):
                chip.program.close()

    def _fetch(self, rank: int, transport: Transport, key: Key) -> Any:
        """Wait for a message to the only chip of this host; return ABSENT if an operation that it has started goes on.

        What goes wrong is kept for `run` to raise, where no program can catch it.
        """
        message = ABSENT
        try:
            while message is ABSENT and len(self._running) == 1 and self._failure is None:
                for _, dst, src, tag, payload in transport.poll(lambda: [(rank, key)]):
                    if message is ABSENT and (src, tag) == key:
                        message = payload
                    else:
                        self._deliver(dst, src, tag, payload)
        except BaseException as failure:  # noqa: BLE001  also what ends the process
            self._failure = failure
        return message

    def start(self, rank: int, operation: Coroutine[Wait, Any, Any]) -> None:
        """Let an operation of a chip go on beside its program; it begins now."""
        running = _Running(rank, operation, self.mailbox(rank), started=True)
        self._running[running] = None
        self._resume(running, None)

    def _who_waits(self) -> list[tuple[int, Key]]:
        """Return (rank, key) of all that wait for another chip: who waits for an own operation waits with that one."""
        waiting = [(rank, key) for (rank, key), queue in self._waiting.items() for _ in queue if key[0] != rank]
        return sorted(waiting)

    def _deliver(self, dst: int, src: int, tag: str, payload: Any) -> None:
        place = dst, (src, tag)
        queue = self._waiting.get(place)
        if queue is None:
            self.mailboxes[dst].put((src, tag), payload)
            return
        chip = queue.popleft()
        if not queue:
            del self._waiting[place]
        self._schedule(chip, payload)

    def _schedule(self, chip: _Running, payload: Any) -> None:
        if self.threads is not None and chip.computes:
            self._about_to_compute.append((chip, payload))
        else:
            self._ready.append((chip, payload))

    def _resume_together(self) -> None:
        """Let all programs that are about to compute go on at the same time, each on the first thread that is free.

        A thread that has not begun when all are taken is not waited for: where programs do little before they wait
        again, this one has run them all by then.
        """
        chips, self._about_to_compute = sorted(self._about_to_compute, key=lambda item: item[0].rank), []
        if self.threads is None or len(chips) == 1:
            self._ready.extend(chips)
            return
        self._held_back = {chip.rank: [] for chip, _ in chips}
        left = deque(chips)
        elsewhere = [self.threads.submit(self._resume_each, left) for _ in range(min(self.n_threads, len(chips)) - 1)]
        failures = [self._resume_each(left), *(future.result() for future in elsewhere if not future.cancel())]
        actions, self._held_back = self._held_back, None
        failed = [failure for failure in failures if failure is not None]
        if failed:
            raise min(failed, key=lambda failure: failure[0])[1]  # the lowest rank's, however many threads there are
        for action in (action for rank in sorted(actions) for action in actions[rank]):
            action()

    def _resume_each(self, left: deque[tuple[_Running, Any]]) -> tuple[int, ChipmeshError] | None:
        """Let programs go on, one after the other, as long as any is left; return the rank and error of one that fails.

        Those of lower ranks have been taken before, so that the lowest that fails is always among the returned.
        """
        while left:
            try:
                chip, payload = left.popleft()
            except IndexError:  # another thread was faster
                break
            try:
                self._resume(chip, payload)
            except ChipmeshError as error:
                left.clear()
                return chip.rank, error
        return None

    def _resume(self, chip: _Running, payload: Any) -> None:
        """Let a program go on until it waits for a message that has not arrived, or ends."""
        try:
            wait = chip.program.send(payload)
        except StopIteration as end:
            chip.value = end.value
            del self._running[chip]
            return
        except ChipmeshError:
            raise
        except MemoryError as error:
            raise OutOfMemoryError(f"chip {chip.rank} ran out of memory: {str(error) or 'none is left'}") from error
        except Exception as error:
            raise ProgramError(f"chip {chip.rank}: the program raised {type(error).__name__}: {error}") from error
        if not isinstance(wait, Wait):
            raise ProgramError(f"chip {chip.rank}: the program awaits {wait!r}, which is no operation of its chip")
        key, computes = wait
        chip.computes = computes and not chip.started
        if key in chip.mailbox.messages:
            self._schedule(chip, chip.mailbox.pop(key))
        else:
            self._waiting.setdefault((chip.rank, key), deque()).append(chip)


def describe_deadlock(waiting: Sequence[tuple[int, Key]]) -> str:
    """Say who waits for whom.

    >>> describe_deadlock([(0, (1, "hidden")), (1, (0, "hidden"))])
    'deadlock: chip 0 waits for chip 1 (hidden), chip 1 waits for chip 0 (hidden)'
    """
    shown = [f"chip {rank} waits for chip {src} ({tag})" for rank, (src, tag) in waiting[:8]]
    more = len(waiting) - len(shown)
    return "deadlock: " + ", ".join(shown) + (f" and {more} more" if more > 0 else "")
