"""Operations that a program awaits or starts, and the handles of those that it started.

`await chip.all_reduce(x)` blocks; `handle = chip.start(chip.all_reduce(x))` lets the operation go on beside the
program, and `await handle` waits for its result. An operation that is asked for and then forgotten, a result that
nobody takes and one that is taken twice are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from attrs import define, field, frozen

from cluster.host import Host, Mailbox
from cluster.records import Await, Collective, Communication, Record, Send, Start
from configs.errors import ProgramError

T = TypeVar("T")


@define(eq=False)
class Operation(Generic[T]):
    """A collective, send or receive that a program has asked for; it begins when it is awaited or started.

    carry_out: told whether the program goes on meanwhile, and may write to what it has given.
    """

    record: Communication
    carry_out: Callable[[bool], Coroutine[Any, Any, T]]
    engine: CommunicationEngine

    def __await__(self) -> Generator[Any, Any, T]:
        self.engine.begin(self, self.record)
        return self.carry_out(False).__await__()


@frozen(eq=False)
class Handle(Generic[T]):
    """An operation that a program has started, the `number`-th of its chip; await it once, for its result."""

    record: Communication
    number: int
    engine: CommunicationEngine

    def __await__(self) -> Generator[Any, Any, T]:
        return self.engine.result(self).__await__()


@define(eq=False)
class CommunicationEngine:
    """What one chip has asked for and started; `note` leaves a record in its trace."""

    rank: int
    host: Host
    mailbox: Mailbox
    note: Callable[[Record], None]
    _asked: Operation[Any] | None = None
    _n_started: int = 0
    _open: dict[int, Communication] = field(factory=dict)

    def ask(self, record: Communication, carry_out: Callable[[bool], Coroutine[Any, Any, T]]) -> Operation[T]:
        """Return an operation; raise ProgramError if the one before was forgotten."""
        if self._asked is not None:
            self._refuse_forgotten()
        operation = self._asked = Operation(record, carry_out, self)
        return operation

    def begin(self, operation: Operation[Any], noted: Record) -> None:
        """Take note that an operation begins; raise ProgramError if it has begun before."""
        if operation is not self._asked:
            raise ProgramError(f"chip {self.rank}: {describe(operation.record)} is awaited or started a second time")
        self._asked = None
        self.note(noted)

    def start(self, operation: Operation[T]) -> Handle[T]:
        """Let an operation go on beside the program."""
        if not isinstance(operation, Operation) or operation.engine is not self:
            accepted = "accepted: an operation of this chip, as in chip.start(chip.all_reduce(x))"
            raise ProgramError(f"chip {self.rank} starts {operation!r}; {accepted}")
        self.begin(operation, Start(operation.record))
        handle: Handle[T] = Handle(operation.record, self._n_started, self)
        self._n_started += 1
        self._open[handle.number] = handle.record
        self.host.start(self.rank, self._finish(handle, operation.carry_out(True)))
        return handle

    async def _finish(self, handle: Handle[T], carried_out: Coroutine[Any, Any, T]) -> None:
        """Carry out an operation; its end is a message of the chip to itself, which wakes the program."""
        self.host.post(self.rank, self.rank, _end(handle), await carried_out)

    async def result(self, handle: Handle[T]) -> T:
        """Wait for the end of a started operation."""
        if self._open.pop(handle.number, None) is None:
            what = f"{describe(handle.record)}, started as number {handle.number}"
            raise ProgramError(f"chip {self.rank}: {what}, is awaited a second time")
        self.note(Await(handle.record, self._n_started - 1 - handle.number))
        value: T = await self.mailbox.take((self.rank, _end(handle)))
        return value

    def close(self) -> None:
        """Raise ProgramError if the program has ended without taking what it asked for."""
        self._refuse_forgotten()
        if self._open:
            left = "; ".join(f"{describe(record)} (number {n})" for n, record in list(self._open.items())[:4])
            more = f" and {len(self._open) - 4} more" if len(self._open) > 4 else ""
            raise ProgramError(f"chip {self.rank} started and never awaited: {left}{more}")

    def _refuse_forgotten(self) -> None:
        if self._asked is not None:
            what = describe(self._asked.record)
            raise ProgramError(f"chip {self.rank}: {what} is asked for and neither awaited nor started")


def _end(handle: Handle[Any]) -> str:
    return f"end {handle.number}"


def describe(record: Communication) -> str:
    """Say what an operation is.

    >>> describe(Send(3, "on", 64))
    "send 'on' to chip 3"
    """
    if isinstance(record, Collective):
        return f"{record.op} of group {record.group!r}"
    if isinstance(record, Send):
        return f"send {record.tag!r} to chip {record.dst}"
    return f"recv {record.tag!r} from chip {record.src}"
