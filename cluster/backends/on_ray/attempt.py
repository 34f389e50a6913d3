"""An attempt to run the programs on all actors: how it ends, and what was lost if it cannot go on."""

from __future__ import annotations

import time
from typing import Any

import ray
from attrs import define

from cluster.backends.base import Outcome
from cluster.backends.on_ray.actors import Actors, first_cause
from cluster.backends.supervision import POLL_S, LossError, Watch
from cluster.backends.wire import FrameError
from configs.errors import ChipDiedError, ConfigError, OutOfMemoryError, ProgramError, RunError

CAUSE_DEADLINE_S = 3.0
STOP_DEADLINE_S = 20.0
NO_ANSWER = "its node does not answer"
OUT_OF_MEMORY = "killed, probably by the kernel's out-of-memory killer"


@define(eq=False)
class Attempt:
    """An attempt of this number; `calls` are the references to the actors' outcomes, each with its actor."""

    run: int
    actors: Actors
    watch: Watch
    calls: dict[Any, int]

    def outcomes(self) -> list[Outcome]:
        """Hand on what the chips have to say until all programs have ended; return what they bring back.

        Raises LossError for the first loss, what a program raised, or ProgramError for a deadlock.
        """
        outcomes: dict[int, Outcome] = {}
        while len(outcomes) < len(self.calls):
            self._listen()
            pending = [ref for ref, index in self.calls.items() if index not in outcomes]
            for ref in ray.wait(pending, num_returns=len(pending), timeout=0)[0]:
                outcomes[self.calls[ref]] = self._outcome(ref)
                self.watch.end(self.calls[ref])
        self._listen(timeout_s=0.0)
        return [outcomes[index] for index in range(len(self.actors))]

    def stop(self, loss: LossError) -> LossError:
        """End the programs on all actors that are left; return the loss with all actors that must be replaced."""
        lost = set(loss.actors).union(*(self.actors.beside(i) for i in loss.actors if not self.actors.answers(i)))
        waiting = {ref: index for ref, index in self.calls.items() if index not in lost}
        for index in waiting.values():
            self.actors.control.tell(index, self.run, "stop")
        deadline = time.monotonic() + STOP_DEADLINE_S
        while waiting and time.monotonic() < deadline:
            # what still comes is of no use, but who sends it waits until it is read
            lost |= {index for index, message in self.actors.control.poll(POLL_S) if message is None}
            for ref in ray.wait(list(waiting), num_returns=len(waiting), timeout=0)[0]:
                index = waiting.pop(ref)
                if _is_gone(ref):
                    lost.add(index)
        lost |= set(waiting.values())
        return LossError(tuple(sorted(lost)), loss.what + self.actors.with_it(lost.difference(loss.actors)))

    def _listen(self, timeout_s: float = POLL_S) -> None:
        """Hand on what the chips have to say; raise LossError for an actor that has ended or hangs."""
        try:
            self.watch.listen(timeout_s)
        except LossError as loss:
            raise self._death(loss.actors[0]) from None
        silent = self.watch.silent()
        if silent is not None:
            self._judge(*silent)

    def _judge(self, index: int, limit_s: float) -> None:
        """Raise LossError for an actor that is silent, unless it only waits for a core."""
        if not self.actors.answers(index):
            raise self._died(index, NO_ANSWER)
        if self.actors.waits_for_core(index):
            self.watch.excuse(index)
            return
        self.actors.kill(index)
        how = f"hung ({self.actors.process(index)}, no sign of life for {limit_s:.0f} s)"
        raise LossError((index,), f"{self.actors.chips([index])} {how} {self.watch.after}")

    def _outcome(self, ref: Any) -> Outcome:
        """Return what an actor brings back, or raise what ended it."""
        index = self.calls[ref]
        try:
            outcome: Outcome = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ChipDiedError | FrameError):
                raise self._find_death(cause, index) from None
            if isinstance(cause, OutOfMemoryError):
                raise LossError((index,), f"{cause} ({self.actors.process(index)}) {self.watch.after}") from None
            if isinstance(cause, ConfigError | RunError):
                raise cause from None
            raise ProgramError(f"{self.actors.chips([index])}: {error}") from None
        except ray.exceptions.RayError:
            raise self._death(index) from None
        return outcome

    def _find_death(self, seen: RunError, by: int) -> LossError:
        """Return whose death a surviving actor noticed: the one whose control connection closed, if any did."""
        deadline = time.monotonic() + CAUSE_DEADLINE_S
        while time.monotonic() < deadline:
            for index, message in self.actors.control.poll(POLL_S):
                if message is None:
                    return self._death(index)
        return LossError(
            (), f"{self.actors.chips([by])} ({self.actors.process(by)}) lost a connection {self.watch.after}: {seen}"
        )

    def _death(self, index: int) -> LossError:
        """Return the loss of an actor that is gone, with the cause that Ray knows."""
        ref = next(r for r, i in self.calls.items() if i == index)
        cause = "its process ended"
        try:
            ray.get(ref, timeout=CAUSE_DEADLINE_S)
        except ray.exceptions.OutOfMemoryError:
            cause = "Ray ended it, as its node ran out of memory"
        except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError):
            cause = cause if self.actors.is_here(index) else NO_ANSWER
        except ray.exceptions.RayActorError as error:
            cause = OUT_OF_MEMORY if self.actors.out_of_memory(index) else first_cause(str(error))
        except ray.exceptions.RayError:
            pass  # the process is gone all the same
        return self._died(index, cause)

    def _died(self, index: int, cause: str) -> LossError:
        who = f"{self.actors.chips([index])} died ({self.actors.process(index)}) {self.watch.after}"
        return LossError((index,), f"{who}: {cause}")


def _is_gone(ref: Any) -> bool:
    """Tell whether the actor of a call that has ended is gone."""
    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError:
        return False
    except ray.exceptions.RayError:
        return True
    return False
