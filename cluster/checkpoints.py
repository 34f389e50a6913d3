"""Checkpoints: what a chip needs to go on with a step, kept outside its process, so that a lost chip is no lost run.

Programs are coroutines, which nothing can copy. So a program says at which moments it can begin, and with what: there
`Chip.checkpoint` keeps its state and the chip's records so far, and `Chip.resume` brings them back in another process.
What happens afterwards depends on these alone, so a run that was taken up again ends with the same values and timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen

from cluster.records import Record, Trace

MOST_RESTARTS = 10  # in a row, from the same step


@frozen(eq=False)
class Kept:
    """A chip between two steps: what its program goes on with, its records so far, and how many values it emitted."""

    step: int
    state: Any
    records: list[Record]
    trace: Trace
    n_emitted: int


Keep = Callable[[int, Kept | None], None]
"""(rank, what): keeps a chip as it is now; None for one whose program has ended and that never communicated."""


def _drop(_rank: int, _kept: Kept | None) -> None:
    """Keep nothing."""


@frozen(eq=False)
class Keeping:
    """What a host is told of checkpoints: after how many steps one is due (0: never), and where its chips go on.

    n_emitted: how many values of every chip the driver has; they are not handed over a second time.
    """

    every: int = 0
    keep: Keep = _drop
    kept: Mapping[int, Kept] = field(factory=dict)
    n_emitted: Mapping[int, int] = field(factory=dict)


NO_CHECKPOINTS = Keeping()


@frozen
class Restart:
    """What a run was restarted for: what was lost and why, the chips, and the step from which the run went on."""

    lost: str
    chips: tuple[int, ...]
    from_step: int
    wall_s: float


OnRestart = Callable[[Restart], None]


@define(eq=False)
class Checkpoints:
    """The checkpoints of a run, in the driver; one counts when all chips have it.

    step: the last one that counts; 0 is the start.
    """

    n_chips: int
    step: int = 0
    _apart: set[int] = field(factory=set)
    """Chips that have ended and never communicated: they may run again from their start."""
    _kept: dict[int, dict[int, Any]] = field(factory=dict)

    def add(self, rank: int, step: int | None, what: Any) -> None:
        """Take what a chip keeps for a step; None for a chip that stands apart."""
        if step is None:
            self._apart.add(rank)
        elif step > self.step:
            self._kept.setdefault(step, {})[rank] = what
        counting = [s for s, chips in self._kept.items() if len(chips.keys() | self._apart) == self.n_chips]
        self.step = max([self.step, *counting])
        self._kept = {s: chips for s, chips in self._kept.items() if s >= self.step}

    def latest(self) -> Mapping[int, Any]:
        """Return what every chip goes on with, and forget what came after it."""
        self._apart.clear()
        self._kept = {s: chips for s, chips in self._kept.items() if s == self.step}
        return self._kept.get(self.step, {})
