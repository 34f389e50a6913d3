"""Chips as Ray actors: one actor per chip, or several chips packed into each.

Ray is the control plane: it starts, watches and stops the actors (`cluster.backends.on_ray.nodes`) and carries programs
and results. The chips' messages go over direct connections (`cluster.backends.dataplane`), what they hand over while
they run over the control connection (`cluster.backends.control`). One Ray call per run and actor, never one per message
or step.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from cluster.backends.on_ray import nodes as ray_nodes  # first: it says what Ray's import reads

# isort: split
import ray
from attrs import define, field, frozen

from cluster.backends.base import Outcome, Program, Setting, run_host
from cluster.backends.control import ControlClient, ControlServer, DriverGoneError, pack_call, pack_value
from cluster.backends.dataplane import DataPlane
from cluster.backends.folders import RunFolder
from cluster.backends.greeting import Address, Listeners
from cluster.backends.options import RayOptions
from cluster.backends.packing import pack_kept, pack_traffic, unpack_kept
from cluster.backends.placement import ActorPlace, Node, name_chips, place_actors
from cluster.backends.processes import keep_freed_memory, n_cores
from cluster.backends.resources import free_memory_bytes
from cluster.backends.supervision import POLL_S, LossError, Watch, chips_of_actor
from cluster.backends.wire import FrameError
from cluster.checkpoints import MOST_RESTARTS, Checkpoints, Keeping, Kept, OnRestart, Restart, traffic_of
from cluster.chip import Emit
from cluster.host import Host
from cluster.records import Collective
from cluster.selection import Choose, Chooser
from configs.errors import ChipDiedError, ConfigError, OutOfMemoryError, ProgramError, RunError
from workloads.roles import Roles

_LOG = logging.getLogger("chipmesh")

CAUSE_DEADLINE_S = 3.0
LEAVE_DEADLINE_S = 1.0
STOP_DEADLINE_S = 20.0


@frozen(eq=False)
class _Attempt:
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

    def up(self) -> tuple[int, Address]:
        """Return the process id and where this actor listens."""
        return os.getpid(), self._plane.listeners.address

    def run(self, attempt: _Attempt, program: Program, args: Sequence[Any]) -> Outcome:
        """Run a program on this actor's chips."""
        from threadpoolctl import threadpool_limits  # noqa: PLC0415  keeps the driver's start short

        self._control.run = attempt.run
        try:
            with threadpool_limits(limits=1), self._control.beating():
                outcome = self._play(attempt, program, args)
                self._plane.flush()
            self._control.send("done", self._plane.sent)
        except (DriverGoneError, BrokenPipeError):
            self._end.join()  # which ends the process
        return outcome

    def _play(self, attempt: _Attempt, program: Program, args: Sequence[Any]) -> Outcome:
        self._plane.begin(attempt.run, attempt.token, attempt.addresses)
        mine = [rank for rank in self._ranks if rank in attempt.kept]
        kept = dict(zip(mine, map(unpack_kept, ray.get([attempt.kept[rank] for rank in mine])), strict=True))
        keeping = Keeping(attempt.every, self._keep, kept, attempt.n_emitted)
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


@define(eq=False)
class RayBackend:
    """Actors at their places, on a private Ray or on a cluster."""

    setting: Setting
    options: RayOptions
    folder: RunFolder
    control: ControlServer
    places: list[ActorPlace]
    owner: Mapping[int, int]
    reach: bool
    """Whether there are actors on other hosts, which are reached over TCP."""
    _cleanup: contextlib.ExitStack
    actors: list[Any] = field(factory=list)
    pids: list[int] = field(factory=list)
    addresses: list[Address] = field(factory=list)
    _choose: Choose = field(init=False)
    _run: int = 0
    _token: str = ""
    """Of the connections between the actors: a new one after a loss."""
    _failed: bool = False

    @_choose.default
    def _default_choose(self) -> Choose:
        return Chooser(self.setting.system, self.setting.contention, self.setting.topology)

    @classmethod
    def start(cls, setting: Setting, options: RayOptions) -> Self:
        """Start Ray, or connect to the cluster, and start the actors; return when all of them are up.

        Raises ConfigError if there is no such cluster or the chips do not fit on it, RunError if actors do not come up.
        """
        ray_nodes.refuse_second()
        with contextlib.ExitStack() as cleanup:
            folder = RunFolder.make()
            cleanup.callback(folder.remove)
            mine, places = _places(setting, options, folder, cleanup)
            reach = len({mine.id, *(place.node.id for place in places)}) > 1
            listeners = Listeners.open(folder.path / "driver.sock", mine.id, mine.ip if reach else None)
            control = ControlServer(listeners, secrets.token_hex(16), _LOG.warning)
            cleanup.callback(control.close)
            owner = {rank: index for index, place in enumerate(places) for rank in place.ranks}
            backend = cls(setting, options, folder, control, list(places), owner, reach, cleanup, token=control.token)
            cleanup.callback(backend._end)
            backend._start()
            backend._cleanup = cleanup.pop_all()
            return backend

    def _start(self) -> None:
        for index in range(len(self.places)):
            self.actors.append(self._create(index))
        up = self._await_up(range(len(self.actors)), "actors")
        self.pids, self.addresses = [pid for pid, _ in up], [address for _, address in up]

    def _create(self, index: int) -> Any:
        """Let an actor begin to start."""
        place, driver, token = self.places[index], self.control.listeners.address, self.control.token
        ip = place.node.ip if self.reach else None
        return ray_nodes.create(
            ActorHost, place, self.setting, index, self.owner, self.folder.path.name, driver, place.node.id, ip, token
        )

    def _await_up(self, indices: Iterable[int], what: str) -> list[tuple[int, Address]]:
        """Return what actors say when they are up, in the order of the indices."""
        refs = [self.actors[index].up.remote() for index in indices]
        return ray_nodes.await_all(refs, what, self.options.start_deadline_s, self.options.on_status)

    def run(
        self, program: Program, args: Sequence[Any], emit: Emit, on_restart: OnRestart, roles: Roles | None = None
    ) -> list[Outcome]:
        """Run the program on every chip, whatever the roles."""
        del roles
        if self._failed:
            raise RunError("an earlier run on this cluster failed and its actors are lost; launch a new one")
        self._failed = True  # until this run has succeeded
        checkpoints = Checkpoints(self.setting.n_chips)
        watch = Watch(self.control, self.owner, emit, self._choose, ray.put, checkpoints)
        loss: LossError | None = None
        n_losses, from_step = 0, 0
        while True:
            try:
                if loss is not None:
                    self._bring_back(loss, checkpoints, on_restart)
                outcomes = self._attempt(program, args, watch)
            except LossError as error:
                if self.setting.on_failure == "fail":
                    raise ChipDiedError(f"{error.what}; the run is lost") from None
                loss, n_losses = error, n_losses + 1 if checkpoints.step == from_step else 1
                from_step = checkpoints.step
                if n_losses > MOST_RESTARTS:
                    again = f"{MOST_RESTARTS} restarts from step {from_step} came no further"
                    raise ChipDiedError(f"{error.what}; {again}; the run is lost") from None
            else:
                self._failed = False
                return outcomes

    def _attempt(self, program: Program, args: Sequence[Any], watch: Watch) -> list[Outcome]:
        """Run the program from the last checkpoint; raise LossError, with all actors that must be replaced."""
        self._run += 1
        watch.begin(self._run)
        every = self.setting.checkpoint_every if self.setting.on_failure == "restart" else 0
        attempt = _Attempt(
            self._run, self._token, self.addresses, every, watch.checkpoints.latest(), dict(watch.n_emitted)
        )
        refs = {actor.run.remote(attempt, program, args): index for index, actor in enumerate(self.actors)}
        outcomes: dict[int, Outcome] = {}
        try:
            while len(outcomes) < len(refs):
                self._listen(watch, refs)
                pending = [ref for ref, index in refs.items() if index not in outcomes]
                for ref in ray.wait(pending, num_returns=len(pending), timeout=0)[0]:
                    outcomes[refs[ref]] = self._outcome(ref, refs, watch)
                    watch.end(refs[ref])
            self._listen(watch, refs, timeout_s=0.0)
        except LossError as loss:
            if self.setting.on_failure == "fail":
                raise
            lost = self._stop(refs, set(loss.actors))
            others = [rank for index in lost if index not in loss.actors for rank in self.places[index].ranks]
            raise LossError(lost, f"{loss.what}; with it {name_chips(others)}" if others else loss.what) from None
        return [outcomes[index] for index in range(len(self.actors))]

    def _listen(self, watch: Watch, refs: Mapping[Any, int], timeout_s: float = POLL_S) -> None:
        """Hand on what the chips have to say; raise LossError for an actor that has ended or hangs."""
        try:
            watch.listen(timeout_s)
        except LossError as loss:
            raise self._death(loss.actors[0], refs, watch) from None
        silent = watch.silent()
        if silent is not None:
            index, limit_s = silent
            self._kill(index)
            how = f"hung ({self._process(index)}, no sign of life for {limit_s:.0f} s)"
            raise LossError((index,), f"{self._chips(index)} {how} {watch.after}")

    def _stop(self, refs: Mapping[Any, int], lost: set[int]) -> tuple[int, ...]:
        """End the attempt on all actors that are left; return those that are not."""
        waiting = {ref: index for ref, index in refs.items() if index not in lost}
        for index in waiting.values():
            self.control.tell(index, self._run, "stop")
        deadline = time.monotonic() + STOP_DEADLINE_S
        while waiting and time.monotonic() < deadline:
            # what still comes is of no use, but who sends it waits until it is read
            lost |= {index for index, message in self.control.poll(POLL_S) if message is None}
            for ref in ray.wait(list(waiting), num_returns=len(waiting), timeout=0)[0]:
                index = waiting.pop(ref)
                if _is_gone(ref):
                    lost.add(index)
        return tuple(sorted(lost | set(waiting.values())))

    def _bring_back(self, loss: LossError, checkpoints: Checkpoints, on_restart: OnRestart) -> None:
        """Start new actors in the place of those that are lost, on other nodes if their own is lost too."""
        began_s = time.monotonic()
        for index in loss.actors:
            self._kill(index)
            self.control.forget(index)
        left = [place.node.id for index, place in enumerate(self.places) if index not in loss.actors]
        in_doubt = {self.places[index].node.id for index in loss.actors}.difference(
            left, [self.control.listeners.address.host]
        )
        self._token = secrets.token_hex(16)
        try:
            lost_nodes = ray_nodes.lost_nodes(in_doubt)
            for index in loss.actors:
                self.places[index] = ray_nodes.place_again(self.places[index], lost_nodes)
                self.actors[index] = self._create(index)
            up = self._await_up(loss.actors, "new actors")
        except RunError as error:
            raise LossError(loss.actors, f"{loss.what}; {error}") from None
        for index, (pid, address) in zip(loss.actors, up, strict=True):
            self.pids[index], self.addresses[index] = pid, address
        chips = tuple(rank for index in loss.actors for rank in self.places[index].ranks)
        on_restart(Restart(loss.what, chips, checkpoints.step, time.monotonic() - began_s))

    def _kill(self, index: int) -> None:
        """End the process of an actor, which may hang and heed nothing."""
        local = self.addresses[index].host == self.control.listeners.address.host
        if local and self.control.is_connected(index):  # else the number may be another process's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pids[index], signal.SIGKILL)
        ray.kill(self.actors[index])

    def close(self) -> None:
        """Stop Ray, or let go of the cluster, and remove the run's folder."""
        self._cleanup.close()

    def _end(self) -> None:
        """End the actors: those that heed Ray leave in order, the others are killed."""
        with contextlib.suppress(Exception):  # an actor, or Ray itself, may be gone already
            leaving = [actor.leave.remote() for actor in self.actors]
            ray.wait(leaving, num_returns=len(leaving), timeout=LEAVE_DEADLINE_S)
            for actor in self.actors:
                ray.kill(actor)

    def _outcome(self, ref: Any, refs: Mapping[Any, int], watch: Watch) -> Outcome:
        """Return what an actor brings back, or raise what ended it."""
        index = refs[ref]
        try:
            outcome: Outcome = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ChipDiedError | FrameError):
                raise self._find_death(cause, index, refs, watch) from None
            if isinstance(cause, OutOfMemoryError):
                raise LossError((index,), f"{cause} ({self._process(index)}) {watch.after}") from None
            if isinstance(cause, ConfigError | RunError):
                raise cause from None
            raise ProgramError(f"{self._chips(index)}: {error}") from None
        except ray.exceptions.RayError:
            raise self._death(index, refs, watch) from None
        return outcome

    def _find_death(self, seen: RunError, by: int, refs: Mapping[Any, int], watch: Watch) -> LossError:
        """Return whose death a surviving actor noticed: the one whose control connection closed, if any did."""
        deadline = time.monotonic() + CAUSE_DEADLINE_S
        while time.monotonic() < deadline:
            for index, message in self.control.poll(POLL_S):
                if message is None:
                    return self._death(index, refs, watch)
        return LossError((), f"{self._chips(by)} ({self._process(by)}) lost a connection {watch.after}: {seen}")

    def _death(self, index: int, refs: Mapping[Any, int], watch: Watch) -> LossError:
        """Return the loss of an actor that is gone, with the cause that Ray knows."""
        ref = next(r for r, i in refs.items() if i == index)
        cause = "its process ended"
        elsewhere = self.addresses[index].host != self.control.listeners.address.host
        try:
            ray.get(ref, timeout=CAUSE_DEADLINE_S)
        except ray.exceptions.OutOfMemoryError:
            cause = "Ray ended it, as its node ran out of memory"
        except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError):
            cause = "its node does not answer" if elsewhere else cause
        except ray.exceptions.RayActorError as error:
            cause = ray_nodes.first_cause(str(error))
        except ray.exceptions.RayError:
            pass  # the process is gone all the same
        return LossError((index,), f"{self._chips(index)} died ({self._process(index)}) {watch.after}: {cause}")

    def _chips(self, index: int) -> str:
        return name_chips(self.places[index].ranks)

    def _process(self, index: int) -> str:
        where = f" on {self.places[index].node.ip}" if self.reach else ""
        return f"process {self.pids[index]}{where}"


def _is_gone(ref: Any) -> bool:
    """Tell whether the actor of a call that has ended is gone."""
    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError:
        return False
    except ray.exceptions.RayError:
        return True
    return False


def _places(
    setting: Setting, options: RayOptions, folder: RunFolder, cleanup: contextlib.ExitStack
) -> tuple[Node, tuple[ActorPlace, ...]]:
    """Start Ray or connect to it; return this node and the actors' places."""
    groups = options.all_groups(setting.n_chips)
    if options.address is None:
        mine = Node("", "127.0.0.1", n_cores(), free_memory_bytes())
        places = place_actors(groups, [mine], options.chips_per_actor, options.chip_bytes)
        cleanup.callback(ray_nodes.stop)
        ray_nodes.start_private(folder.path, len(places))
        return mine, places
    cleanup.callback(ray_nodes.stop)
    ray_nodes.connect(options.address)
    nodes = ray_nodes.cluster_nodes()
    places = place_actors(groups, nodes, options.chips_per_actor, options.chip_bytes)
    used = len({place.node.id for place in places})
    options.on_status(f"starting {len(places)} actors on {used} of {len(nodes)} nodes")
    return ray_nodes.own_node(), places
