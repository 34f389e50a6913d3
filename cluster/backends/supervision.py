"""What the driver hears of a run and concludes: values, checkpoints, deadlocks, and which processes are lost.

Nothing here knows what starts the processes; `cluster.backends.on_ray` does, and adds what Ray reports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field

from cluster.backends.control import ControlServer, unpack_call, unpack_value
from cluster.backends.packing import unpack_traffic
from cluster.backends.placement import name_chips
from cluster.checkpoints import Checkpoints
from cluster.chip import Emit
from cluster.host import describe_deadlock
from cluster.records import Collective
from cluster.selection import Choose
from configs.errors import ConfigError, ProgramError

SILENT_S = 6.0  # several beats: a busy machine may delay some
FIRST_S = 9.0  # until Ray has told an actor to begin
RESULT_S = 60.0  # no beats come while a result travels
POLL_S = 0.05


class LossError(Exception):
    """What an attempt to run the programs has lost.

    actors: whose process is gone, or must go; none if only a connection broke.  what: chip, step and cause, for people.
    """

    def __init__(self, actors: tuple[int, ...], what: str) -> None:
        super().__init__(what)
        self.actors = actors
        self.what = what


def chips_of_actor(owner: Mapping[int, int], index: int) -> tuple[int, ...]:
    """Return the chips that an actor holds; `owner` has the actor of every chip."""
    return tuple(rank for rank, actor in owner.items() if actor == index)


@define(eq=False)
class Watch:
    """A run as the driver hears of it, over all attempts; `begin` starts the next one.

    store: puts bytes where they outlive the actor that sent them, and returns what brings them back.
    n_emitted: how many values of every chip were handed on.
    """

    control: ControlServer
    owner: Mapping[int, int]
    emit: Emit
    choose: Choose
    store: Callable[[bytes], Any]
    checkpoints: Checkpoints
    n_emitted: dict[int, int] = field(factory=dict)
    _after: str = "before its first result"
    _run: int = 0
    _began_s: float = 0.0
    _idle: dict[int, tuple[Mapping[int, int], int, Any]] = field(factory=dict)
    _done: dict[int, Mapping[int, int]] = field(factory=dict)
    _over: set[int] = field(factory=set)

    def begin(self, run: int) -> None:
        """Listen to the attempt of this number alone."""
        self._run, self._began_s = run, time.monotonic()
        self._idle.clear()
        self._done.clear()
        self._over.clear()

    def end(self, index: int) -> None:
        """Expect nothing more of an actor: its result is here."""
        self._over.add(index)

    @property
    def after(self) -> str:
        """How far the run is, in words."""
        return self._after

    def listen(self, timeout_s: float = POLL_S) -> None:
        """Hand on what the chips have to say, until nothing more comes.

        Raises LossError without words for an actor whose connection has closed, ProgramError for a deadlock.
        """
        heard = True
        while heard:
            heard = False
            for index, message in self.control.poll(timeout_s):
                heard, timeout_s = True, 0.0
                if message is None:
                    raise LossError((index,), "")
                run, kind, *rest = message
                if run == self._run:
                    self._take(index, kind, rest)

    def _take(self, index: int, kind: str, rest: list[Any]) -> None:
        if kind == "emit":
            rank, name, value, step = rest
            self._after = f"after {name} {step} of chip {rank}"
            self._idle.clear()
            self.n_emitted[rank] = self.n_emitted.get(rank, 0) + 1
            self.emit(rank, name, unpack_value(value), step)
        elif kind == "choose":
            self.control.tell(index, self._run, "answer", self._chosen(unpack_call(rest[0])))
        elif kind == "kept":
            rank, step, what, traffic = rest
            if step is None:
                self.checkpoints.add(rank, None, None)
            else:
                self.checkpoints.add(rank, step, self.store(what), unpack_traffic(traffic))
        elif kind == "done":
            self._done[index] = rest[0]
        elif kind == "refused":
            self.control.refused(rest[0])
        elif kind == "idle":
            self._idle[index] = tuple(rest)
            self._check_deadlock()

    def silent(self) -> tuple[int, float] | None:
        """Return an actor whose process lives and does nothing, and the time limit that it broke, if there is one.

        Everything that had come must have been read: a driver that was itself asleep blames nobody for it.
        """
        now = time.monotonic()
        for index in sorted(set(self.owner.values()) - self._over):
            heard_s = self.control.heard_s.get(index, 0.0)
            limit_s = RESULT_S if index in self._done else SILENT_S if heard_s > self._began_s else FIRST_S
            if now - max(heard_s, self._began_s) > limit_s:
                return index, limit_s
        return None

    def excuse(self, index: int) -> None:
        """Take an actor that was silent for one that has just been heard of."""
        self.control.heard_s[index] = time.monotonic()

    def _chosen(self, call: Collective) -> dict[str, Any]:
        try:
            return {"algorithm": self.choose(call)}
        except ConfigError as error:
            return {"problems": error.problems}

    def _check_deadlock(self) -> None:
        """Raise if every actor that has not ended is idle, and no message is on its way to any of them.

        An idle actor wakes only by a message, so counts that agree show that no report is out of date.
        """
        running = set(self.owner.values()) - self._done.keys()
        if running - self._idle.keys():
            return
        all_sent = [*self._done.values(), *(self._idle[i][0] for i in running)]
        if any(sum(sent.get(i, 0) for sent in all_sent) != self._idle[i][1] for i in running):
            return
        waiting = sorted((rank, tuple(key)) for i in running for rank, key in self._idle[i][2])
        if not waiting:  # all programs have ended, but somebody does not take what it was sent
            senders = ", ".join(name_chips(chips_of_actor(self.owner, i)) for i in sorted(running))
            raise ProgramError(f"messages of {senders} are never received: the programs they are for have ended")
        raise ProgramError(describe_deadlock(waiting))
