"""The actors of a run, by index: where they are, how they start, what they are told, how they end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import ray
from attrs import define, field

from cluster.backends.base import Program, Setting
from cluster.backends.control import ControlServer
from cluster.backends.folders import RunFolder
from cluster.backends.greeting import Address
from cluster.backends.on_ray import nodes
from cluster.backends.on_ray.actor import ActorHost, Assignment
from cluster.backends.options import RayOptions
from cluster.backends.placement import ActorPlace, name_chips
from cluster.backends.resources import is_ready, oom_kills
from configs.errors import RunError

PROGRESS_S = 1.0
KNOCK_S = 1.5
COUNT_S = 2.0
LEAVE_DEADLINE_S = 1.0


@define(eq=False)
class Actors:
    """The actors of a run.

    owner: the actor of every chip.  reach: whether there are actors on other hosts, which are reached over TCP.
    addresses: where they listen.
    """

    setting: Setting
    options: RayOptions
    folder: RunFolder
    control: ControlServer
    places: list[ActorPlace]
    owner: Mapping[int, int]
    reach: bool
    pids: list[int] = field(factory=list)
    addresses: list[Address] = field(factory=list)
    _handles: list[Any] = field(factory=list)
    _oom_kills: dict[str, int | None] = field(factory=dict)
    """How many processes every host had ended for lack of memory when it was last asked."""

    def __len__(self) -> int:
        return len(self.places)

    def start(self) -> None:
        """Start all of them at once; return when they are up.

        Raises RunError if one does not come up in time.
        """
        for index in range(len(self)):
            self._handles.append(self._begin(index))
        up = self._await_up(range(len(self)), "actors")
        self.pids, self.addresses = [pid for pid, _ in up], [address for _, address in up]

    def replace(self, lost: Collection[int]) -> list[int]:
        """Start new ones in the place of those that are lost, on other nodes if their own is lost too; return them.

        With a node, all that are on it are lost. Raises RunError if no node is left, or they do not come up in time.
        """
        on = {place.node.id for place in self.places if place.node.id not in ("", self._own_host)}
        left = [place.node.id for index, place in enumerate(self.places) if index not in lost]
        lost_nodes = nodes.lost_nodes(on, {self.places[index].node.id for index in lost}.intersection(on) - set(left))
        replaced = sorted({*lost, *(i for i, place in enumerate(self.places) if place.node.id in lost_nodes)})
        for index in replaced:
            self.kill(index)
            self.control.forget(index)
        for index in replaced:
            self.places[index] = nodes.place_again(self.places[index], lost_nodes)
            self._handles[index] = self._begin(index)
        for index, (pid, address) in zip(replaced, self._await_up(replaced, "new actors"), strict=True):
            self.pids[index], self.addresses[index] = pid, address
        return replaced

    def _begin(self, index: int) -> Any:
        """Let an actor begin to start; it takes its share of the node's cores as long as it lives."""
        node, ip = self.places[index].node, self.places[index].node.ip if self.reach else None
        there = {"num_cpus": self.places[index].cpus, "scheduling_strategy": nodes.on_node(node.id)} if node.id else {}
        options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0} | there
        driver, token = self.control.listeners.address, self.control.token
        actor_class = ray.remote(ActorHost).options(**options)
        return actor_class.remote(self.setting, index, self.owner, self.folder.path.name, driver, node.id, ip, token)

    def _await_up(self, indices: Iterable[int], what: str) -> list[tuple[int, Address]]:
        """Return the process and address of actors once they are up, in the order of the indices."""
        refs = [self._handles[index].up.remote() for index in indices]
        up = await_all(refs, what, self.options.start_deadline_s, self.options.on_status)
        self._oom_kills |= {address.host: count for _, address, count in up}
        return [(pid, address) for pid, address, _ in up]

    def run(self, assignment: Assignment, program: Program, args: Sequence[Any]) -> dict[Any, int]:
        """Let all of them run a program; return the references to their outcomes, each with its actor."""
        return {actor.run.remote(assignment, program, args): index for index, actor in enumerate(self._handles)}

    def kill(self, index: int) -> None:
        """End the process of an actor, which may hang and heed nothing."""
        if self.is_here(index) and self.control.is_connected(index):  # else the number may be another process's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pids[index], signal.SIGKILL)
        ray.kill(self._handles[index])

    def end(self) -> None:
        """End all of them: those that heed Ray leave in order, the busy ones at once; who heeds nothing is killed."""
        with contextlib.suppress(Exception):  # an actor, or Ray itself, may be gone already
            leaving = {actor.leave.remote(): index for index, actor in enumerate(self._handles)}
            _, busy = ray.wait(list(leaving), num_returns=len(leaving), timeout=LEAVE_DEADLINE_S)
            for ref in busy:
                self.control.forget(leaving[ref])
            if busy:
                ray.wait(busy, num_returns=len(busy), timeout=LEAVE_DEADLINE_S)
            for actor in self._handles:
                ray.kill(actor)

    @property
    def _own_host(self) -> str:
        return self.control.listeners.address.host

    def is_here(self, index: int) -> bool:
        """Tell whether an actor that has come up is on the driver's host."""
        return self.addresses[index].host == self._own_host

    def answers(self, index: int) -> bool:
        """Tell whether the host of an actor answers, whatever the actor does."""
        if self.is_here(index):
            return True
        try:
            socket.create_connection((self.addresses[index].ip, self.addresses[index].port), KNOCK_S).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True

    def beside(self, index: int) -> set[int]:
        """Return the actors on the host of an actor, this one among them."""
        return {other for other, address in enumerate(self.addresses) if address.host == self.addresses[index].host}

    def waits_for_core(self, index: int) -> bool:
        """Tell whether an actor would do something if a core of its host were free, where the driver can see it."""
        return self.is_here(index) and is_ready(self.pids[index])

    def out_of_memory(self, index: int) -> bool:
        """Tell whether an actor's host has ended a process for lack of memory since this was last asked."""
        host = self.addresses[index].host
        before = self._oom_kills.get(host)
        self._oom_kills[host] = oom_kills() if self.is_here(index) else nodes.ask(host, oom_kills, COUNT_S)
        now = self._oom_kills[host]
        return before is not None and now is not None and now > before

    def chips(self, indices: Iterable[int]) -> str:
        """Return the chips of actors in words."""
        return name_chips([rank for index in indices for rank in self.places[index].ranks])

    def with_it(self, others: Collection[int]) -> str:
        """Return in words what was lost besides, if anything."""
        return f"; with it {self.chips(sorted(others))}" if others else ""

    def process(self, index: int) -> str:
        """Return the process of an actor in words."""
        where = f" on {self.places[index].node.ip}" if self.reach else ""
        return f"process {self.pids[index]}{where}"


def await_all(refs: Sequence[Any], what: str, deadline_s: float, on_status: Callable[[str], None]) -> list[Any]:
    """Return the results of calls, saying every second how many of them are there.

    Raises RunError with `what` if one fails or they are not there in time.
    """
    end_s = time.monotonic() + deadline_s
    left, n_said = list(refs), 0
    while left:
        wait_s = min(PROGRESS_S, end_s - time.monotonic())
        if wait_s <= 0:
            raise RunError(
                f"{len(left)} of {len(refs)} {what} were not up after {deadline_s:g} s; does the cluster have the free "
                "cores and memory, and the Python packages?"
            )
        done, left = ray.wait(left, num_returns=len(left), timeout=wait_s)
        for ref in done:
            _raise_failure(ref, what)
        n_up = len(refs) - len(left)
        if left and n_up != n_said:
            n_said = n_up
            on_status(f"{n_up} of {len(refs)} {what} are up")
    return list(ray.get(list(refs)))


def _raise_failure(ref: Any, what: str) -> None:
    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise RunError(f"one of the {what} did not start: {error.cause}") from None
    except ray.exceptions.RayError as error:
        raise RunError(f"one of the {what} did not start: {first_cause(str(error))}") from None


def first_cause(text: str) -> str:
    r"""Return the line of Ray's report that says how a process ended.

    >>> first_cause("The actor died.\nWorker exit detail: Worker exits. End of file. Some common causes include: …")
    'Worker exits. End of file'
    """
    for line in text.splitlines():
        for key in ("exit detail:", "The actor is dead because", "The actor died because"):
            if key in line:
                return line.split(key, 1)[1].split(" Some common causes", 1)[0].strip().rstrip(".")
    return text.strip().partition("\n")[0]
