"""What runs in an actor of Ray: a host of some chips, connected to the driver and to its peers."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from attrs import frozen

from cluster.backends.base import Outcome, Program, Setting, run_host
from cluster.backends.control import ControlClient, DriverGoneError, pack_call, pack_value
from cluster.backends.dataplane import DataPlane
from cluster.backends.folders import RunFolder
from cluster.backends.greeting import Address, Listeners
from cluster.backends.packing import pack_kept, pack_traffic, unpack_kept
from cluster.backends.processes import keep_freed_memory
from cluster.backends.resources import oom_kills
from cluster.backends.supervision import chips_of_actor
from cluster.checkpoints import Keeping, Kept, traffic_of
from cluster.host import Host
from cluster.records import Collective
from configs.errors import ConfigError


@frozen(eq=False)
class Assignment:
    """What every actor is told of an attempt to run the programs.

    token: of the connections between actors, a new one after a loss.  kept: references to what chips go on with.
    """

    run: int
    token: str
    addresses: Sequence[Address]
    every: int
    kept: Mapping[int, Any]
    n_emitted: Mapping[int, int]


class ActorHost:
    """What runs in an actor: a host of some chips."""

    def __init__(
        self, setting: Setting, index: int, owner: Mapping[int, int], folder: str, driver: Address, host: str,
        ip: str | None, token: str,
    ) -> None:  # fmt: skip
        keep_freed_memory()
        self._setting = setting
        self._ranks = chips_of_actor(owner, index)
        self._folder = RunFolder.join(folder)
        self._control = ControlClient.connect(driver, host, token, index)
        listeners = Listeners.open(self._folder.path / f"{index}.sock", host, ip)
        self._plane = DataPlane(index, owner, listeners, token, self._report, self._refused)
        self._plane.watch(self._control.sock, self._control.receive)
        self._end = threading.Thread(target=self._leave_with_driver, name="end", daemon=True)
        self._end.start()

    def _leave_with_driver(self) -> None:
        """End this process when the driver has gone or lets go of it, also in the middle of a program."""
        self._control.await_end()
        self._folder.leave()
        os._exit(1)

    def leave(self) -> None:
        """End this process in order."""
        self._folder.leave()
        ray.actor.exit_actor()

    def up(self) -> tuple[int, Address, int | None]:
        """Return the process id, where this actor listens, and the `oom_kills` of its host."""
        return os.getpid(), self._plane.listeners.address, oom_kills()

    def run(self, order: Assignment, program: Program, args: Sequence[Any]) -> Outcome:
        """Run a program on this actor's chips."""
        from threadpoolctl import threadpool_limits  # noqa: PLC0415  keeps the driver's start short

        self._control.run = order.run
        try:
            with threadpool_limits(limits=1), self._control.beating(self._plane.break_off):
                outcome = self._play(order, program, args)
                self._plane.flush()
            self._control.send("done", self._plane.sent)
        except (DriverGoneError, BrokenPipeError):
            self._end.join()  # which ends the process
        return outcome

    def _play(self, order: Assignment, program: Program, args: Sequence[Any]) -> Outcome:
        self._plane.begin(order.run, order.token, order.addresses)
        mine = [rank for rank in self._ranks if rank in order.kept]
        kept = dict(zip(mine, map(unpack_kept, ray.get([order.kept[rank] for rank in mine])), strict=True))
        keeping = Keeping(order.every, self._keep, kept, order.n_emitted)
        host = Host(self._plane)
        return run_host(self._setting, self._ranks, host, program, args, self._emit, self._choose, keeping)

    def _emit(self, rank: int, name: str, value: Any, index: int) -> None:
        self._control.send("emit", rank, name, pack_value(value), index)

    def _keep(self, rank: int, kept: Kept | None) -> None:
        if kept is None:
            self._control.send("kept", rank, None, None, None)
        else:
            self._control.send("kept", rank, kept.step, pack_kept(rank, kept), pack_traffic(traffic_of(kept)))

    def _choose(self, call: Collective) -> str:
        """Ask the driver, which has the timeline engine loaded and remembers."""
        answer = self._control.ask("choose", pack_call(call))
        if "problems" in answer:
            raise ConfigError(tuple(answer["problems"]))
        chosen: str = answer["algorithm"]
        return chosen

    def _report(self, sent: Mapping[int, int], received: int, waiting: Any) -> None:
        self._control.send("idle", sent, received, waiting)

    def _refused(self, words: str) -> None:
        self._control.send("refused", words)
