"""Several programs on one chip, turn by turn: what one of them communicates goes on while the next one computes.

The order of the turns is fixed, so it depends on no time, and chips that run the same programs start the operations of
a group in the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar, cast

from attrs import frozen

from workloads.array import Array
from workloads.chip import Chip

T = TypeVar("T")

MESSAGES = frozenset({"send", "recv"})
COMMUNICATION = MESSAGES | {
    "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "all_to_all_v", "broadcast", "reduce", "gather",
    "scatter", "permute", "barrier",
}  # fmt: skip


@frozen(eq=False)
class _Turn(Generic[T]):
    """What a program yields at the end of its turn: the operation that it waits for, or the handle of one."""

    operation: Awaitable[T]
    started: bool = False

    def __await__(self) -> Generator[_Turn[T], T, T]:
        return (yield self)


@frozen(eq=False)
class _Meeting:
    """What a program yields when it waits until all programs of its chip have come as far."""

    def __await__(self) -> Generator[_Meeting, None, None]:
        yield self


def meet() -> Awaitable[None]:
    """Wait until all programs of the chip, those of `take_turns`, have come to their meeting or to their end."""
    return _Meeting()


class _SharedChip:
    """A chip as one of several programs sees it: awaiting an operation of `beside` ends the turn."""

    def __init__(self, chip: Chip, name: str, beside: Collection[str]) -> None:
        self._chip, self._name, self._beside = chip, name, beside
        self.rank, self.n_chips, self.real, self.apply = chip.rank, chip.n_chips, chip.real, chip.apply

    @property
    def layer(self) -> int | None:
        """The layer that the program is in."""
        return self._chip.layer

    @layer.setter
    def layer(self, layer: int | None) -> None:
        self._chip.layer = layer

    def __getattr__(self, attribute: str) -> Any:
        """Return an operation that ends the turn, or what the chip has under this name."""
        found = getattr(self._chip, attribute)
        return partial(_turn, found) if attribute in self._beside else found

    def send(self, x: Array, dst: int, tag: str = "") -> Awaitable[None]:
        """Send to the same program on another chip."""
        operation = self._chip.send
        return (partial(_turn, operation) if "send" in self._beside else operation)(x, dst, self._own(tag))

    def recv(self, src: int, tag: str = "") -> Awaitable[Array]:
        """Receive from the same program on another chip."""
        operation = self._chip.recv
        return (partial(_turn, operation) if "recv" in self._beside else operation)(src, self._own(tag))

    def start(self, operation: Awaitable[T]) -> Awaitable[T]:
        """Let an operation go on beside all programs; awaiting it ends the turn."""
        return _Turn(self._chip.start(operation.operation if isinstance(operation, _Turn) else operation), started=True)

    def _own(self, tag: str) -> str:
        return f"{tag} {self._name}".strip()


def _turn(operation: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> _Turn[Any]:
    return _Turn(operation(*args, **kwargs))


def shared(chip: Chip, name: str, beside: Collection[str] = COMMUNICATION) -> Chip:
    """Return the chip as program `name` of several sees it, for `take_turns`.

    Operations of `beside` end the program's turn; others block all programs of the chip.
    """
    return cast("Chip", _SharedChip(chip, name, beside))


@frozen(eq=False)
class _Turns(Generic[T]):
    chip: Chip
    programs: Sequence[Coroutine[Any, Any, T]]
    at_meeting: Callable[[], None]

    def __await__(self) -> Generator[Any, Any, list[T]]:
        results: dict[int, T] = {}
        turns: deque[tuple[int, Awaitable[Any] | None]] = deque((i, None) for i in range(len(self.programs)))
        layers, met = [self.chip.layer for _ in self.programs], list[int]()
        try:
            while turns:
                i, handle = turns.popleft()
                self.chip.layer = layers[i]
                value = None if handle is None else (yield from handle.__await__())
                try:
                    asked = self.programs[i].send(value)
                    while not isinstance(
                        asked, _Turn | _Meeting
                    ):  # the program waits for an operation that blocks the chip
                        asked = self.programs[i].send((yield asked))
                except StopIteration as end:
                    results[i] = end.value
                else:
                    layers[i] = self.chip.layer
                    if isinstance(asked, _Meeting):
                        met.append(i)
                    else:
                        turns.append((i, asked.operation if asked.started else self.chip.start(asked.operation)))
                if met and not turns:
                    self.at_meeting()
                    turns.extend((i, None) for i in met)
                    met.clear()
        finally:
            for program in self.programs:
                program.close()
        return [results[i] for i in range(len(self.programs))]


def _nothing() -> None:
    """Do nothing at a meeting."""


def take_turns(
    chip: Chip, programs: Sequence[Coroutine[Any, Any, T]], at_meeting: Callable[[], None] = _nothing
) -> Awaitable[list[T]]:
    """Run programs on `shared` views of the chip to their ends, turn by turn; return what they return.

    A turn lasts until the program awaits an operation, which is started then; its next turn begins with the result.
    `at_meeting` is called at each meeting (`meet`), before the programs go on in the order in which they came.
    """
    return _Turns(chip, programs, at_meeting)
