"""Checkpoints: what a chip needs to go on with a step, kept outside its process, so that a lost chip is no lost run.

Programs are coroutines, which nothing can copy. So a program says at which moments it can begin, and with what: there
`Chip.checkpoint` keeps its state and the chip's records so far, and `Chip.resume` brings them back in another process.
What happens afterwards depends on these alone, so a run that was taken up again ends with the same values and timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from attrs import define, field, frozen

from cluster.records import Collective, Receive, Record, Send, Start, Trace
from configs.errors import ProgramError
from workloads.array import Array

MOST_RESTARTS = 10  # in a row, from the same step


@frozen(eq=False)
class Kept:
    """A chip between two steps: what its program goes on with, its records so far, and how many values it emitted.

    sent: (what, destination, tag) of its messages that are received after the moment.
    """

    step: int
    state: Any
    records: list[Record]
    trace: Trace
    n_emitted: int
    sent: Sequence[tuple[Array, int, str]] = ()


class Traffic(NamedTuple):
    """What a chip has sent less what it has received, by (source, destination, tag); its calls, by (group, members).

    Messages that are kept, to be received later, do not count.
    """

    messages: Mapping[tuple[int, int, str], int]
    calls: Mapping[tuple[str, tuple[int, ...]], int]


NO_TRAFFIC = Traffic({}, {})


def traffic_of(kept: Kept) -> Traffic:
    """Return what a chip has communicated up to a checkpoint.

    >>> from cluster.records import Send
    >>> traffic_of(Kept(4, None, [Send(3, "on", 64)], Trace(1, np.zeros(2, np.int32)), 0)).messages
    {(1, 3, 'on'): 2}
    """
    messages: dict[tuple[int, int, str], int] = {}
    calls: dict[tuple[str, tuple[int, ...]], int] = {}
    rank, counts = kept.trace.rank, np.bincount(kept.trace.numbers, minlength=len(kept.records)).tolist()
    for record, n in zip(kept.records, counts, strict=True):
        match record.operation if isinstance(record, Start) else record:
            case Send(dst=dst, tag=tag):
                messages[rank, dst, tag] = messages.get((rank, dst, tag), 0) + n
            case Receive(src=src, tag=tag):
                messages[src, rank, tag] = messages.get((src, rank, tag), 0) - n
            case Collective(group=group, ranks=ranks):
                calls[group, ranks] = calls.get((group, ranks), 0) + n
    for _, dst, tag in kept.sent:
        messages[rank, dst, tag] = messages.get((rank, dst, tag), 0) - 1
    return Traffic(messages, calls)


def refuse_under_way(step: int, traffic: Mapping[int, Traffic]) -> None:
    """Raise ProgramError if anything was under way between the chips when they kept a step: it would be lost."""
    where = f"the checkpoint of step {step}"
    balance: dict[tuple[int, int, str], int] = {}
    for one in traffic.values():
        for key, n in one.messages.items():
            balance[key] = balance.get(key, 0) + n
    for (src, dst, tag), n in sorted(balance.items()):
        if n:
            late = "has not received" if n > 0 else "has received"
            raise ProgramError(
                f"{where}: chip {dst} {late} what chip {src} sends it ({tag!r}) {'before' if n > 0 else 'after'} it; "
                "accepted: a moment at which nothing is on its way"
            )
    for rank, one in traffic.items():
        for (group, ranks), n in one.calls.items():
            for other in ranks:
                m = traffic.get(other, NO_TRAFFIC).calls.get((group, ranks), 0)
                if m < n:
                    raise ProgramError(
                        f"{where}: chip {rank} has called {n} collectives of group {group!r} and chip {other} {m}; "
                        "accepted: the same moment on all chips"
                    )


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
    _traffic: dict[int, dict[int, Traffic]] = field(factory=dict)

    def add(self, rank: int, step: int | None, what: Any, traffic: Traffic = NO_TRAFFIC) -> None:
        """Take what a chip keeps for a step, and what it has communicated; None for a chip that stands apart.

        Raises ProgramError if something was under way when all chips kept the step.
        """
        if step is None:
            self._apart.add(rank)
        elif step > self.step:
            self._kept.setdefault(step, {})[rank] = what
            self._traffic.setdefault(step, {})[rank] = traffic
        counting = [s for s, chips in self._kept.items() if len(chips.keys() | self._apart) == self.n_chips]
        for complete in sorted(s for s in counting if s > self.step):
            refuse_under_way(complete, self._traffic[complete])
            self.step = complete
        self._kept = {s: chips for s, chips in self._kept.items() if s >= self.step}
        self._traffic = {s: chips for s, chips in self._traffic.items() if s > self.step}

    def latest(self) -> Mapping[int, Any]:
        """Return what every chip goes on with, and forget what came after it."""
        self._apart.clear()
        self._kept = {s: chips for s, chips in self._kept.items() if s == self.step}
        self._traffic.clear()
        return self._kept.get(self.step, {})
