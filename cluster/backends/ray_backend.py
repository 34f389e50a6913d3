"""Chips as Ray actors: one actor per chip, or several chips packed into each. The only module that imports Ray.

Ray is the control plane: it starts, watches and stops the actors and carries programs and results. The chips' messages
go over direct connections (`cluster.backends.dataplane`), what they hand over while they run over the control
connection (`cluster.backends.control`). One Ray call per run and actor, never one per message or step.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

# Read by the import. Else SIGTERM prints a stack, and every worker that dies a paragraph on the driver's stdout.
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
import ray
from attrs import define, field, frozen

from cluster.backends.base import Outcome, Program, Setting, run_host
from cluster.backends.control import ControlClient, ControlServer, DriverGoneError, pack_call, pack_value
from cluster.backends.dataplane import DataPlane
from cluster.backends.greeting import Address, Listeners
from cluster.backends.packing import pack_kept, unpack_kept
from cluster.backends.processes import MOST_TRIES, Lost
from cluster.backends.supervision import POLL_S, SILENT_S, LossError, Watch, chips_of_actor, name_chips
from cluster.backends.wire import FrameError
from cluster.checkpoints import MOST_RESTARTS, Checkpoints, Keeping, Kept, OnRestart, Restart
from cluster.chip import Emit
from cluster.host import Host
from cluster.records import Collective
from cluster.selection import Choose, Chooser
from configs.errors import ChipDiedError, ConfigError, OutOfMemoryError, ProgramError, RunError
from workloads.roles import Roles

_LOG = logging.getLogger("chipmesh")

START_DEADLINE_S = 180.0
CAUSE_DEADLINE_S = 3.0
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
        self, setting: Setting, index: int, owner: Mapping[int, int], driver: Address, host: str, ip: str | None,
        token: str,
    ) -> None:  # fmt: skip
        self._setting = setting
        self._ranks = chips_of_actor(owner, index)
        self._control = ControlClient.connect(driver, host, token, index)
        listeners = Listeners.open(Path(driver.path).with_name(f"{index}.sock"), host, ip)
        self._plane = DataPlane(index, owner, listeners, token, self._report, self._refused)
        self._plane.watch(self._control.sock, self._control.receive)

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
            os._exit(1)
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
        self._control.send("kept", rank, *((None, None) if kept is None else (kept.step, pack_kept(rank, kept))))

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
    """A private local Ray with one actor per `chips_per_actor` chips."""

    setting: Setting
    folder: Path
    control: ControlServer
    owner: Mapping[int, int]
    actors: list[Any]
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
    def start(cls, setting: Setting, chips_per_actor: int) -> Self:
        """Start Ray and the actors; return when all of them are up."""
        token, folder = secrets.token_hex(16), Path(tempfile.mkdtemp(prefix="chipmesh-"))
        owner = {rank: rank // chips_per_actor for rank in range(setting.n_chips)}
        control = ControlServer(Listeners.open(folder / "driver.sock", host=""), token, _LOG.warning)
        backend = cls(setting, folder, control, owner, [], token=token)
        try:
            backend._start()
        except BaseException:
            backend.close()
            raise
        return backend

    def _start(self) -> None:
        n_actors = max(self.owner.values()) + 1
        with _own_sigterm():
            _init_ray(self.folder, n_actors)
        self.actors = [self._create(index) for index in range(n_actors)]
        try:
            up = ray.get([actor.up.remote() for actor in self.actors], timeout=START_DEADLINE_S)
            self.pids, self.addresses = [pid for pid, _ in up], [address for _, address in up]
        except ray.exceptions.GetTimeoutError:
            raise RunError(f"{n_actors} actors were not up after {START_DEADLINE_S:.0f} s") from None
        except ray.exceptions.RayError as error:
            raise RunError(f"an actor did not start: {error}") from None

    def _create(self, index: int) -> Any:
        """Let an actor begin to start."""
        remote = ray.remote(ActorHost).options(num_cpus=0, max_restarts=0, max_task_retries=0)
        driver, token = self.control.listeners.address, self.control.token
        return remote.remote(self.setting, index, self.owner, driver, "", None, token)

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
            raise LossError(self._stop(refs, set(loss.actors)), loss.what) from None
        return [outcomes[index] for index in range(len(self.actors))]

    def _listen(self, watch: Watch, refs: Mapping[Any, int], timeout_s: float = POLL_S) -> None:
        """Hand on what the chips have to say; raise LossError for an actor that has ended or hangs."""
        try:
            watch.listen(timeout_s)
        except LossError as loss:
            raise self._death(loss.actors[0], refs, watch) from None
        silent = watch.silent()
        if silent is not None:
            self._kill(silent)
            how = f"hung ({self._process(silent)}, no sign of life for {SILENT_S:.0f} s)"
            raise LossError((silent,), f"{self._chips(silent)} {how} {watch.after}")

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
        """Start new actors in the place of those that are lost; Ray finds nodes for them."""
        began_s = time.monotonic()
        for index in loss.actors:
            self._kill(index)
            self.control.forget(index)
            self.actors[index] = self._create(index)
        self._token = secrets.token_hex(16)
        up = {index: self.actors[index].up.remote() for index in loss.actors}
        try:
            for index, ref in up.items():
                self.pids[index], self.addresses[index] = ray.get(ref, timeout=START_DEADLINE_S)
        except ray.exceptions.RayError as error:
            what = f"{self._chips(index)} did not come back: {_first_cause(str(error)) or type(error).__name__}"
            raise LossError(loss.actors, what) from None
        chips = tuple(rank for index in loss.actors for rank in chips_of_actor(self.owner, index))
        on_restart(Restart(loss.what, chips, checkpoints.step, time.monotonic() - began_s))

    def _kill(self, index: int) -> None:
        """End the process of an actor, which may hang and heed nothing."""
        local = self.addresses[index].host == self.control.listeners.address.host
        if local and self.control.is_connected(index):  # else the number may be another process's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pids[index], signal.SIGKILL)
        ray.kill(self.actors[index])

    def close(self) -> None:
        """Stop Ray and remove the run's folder."""
        self.control.close()
        try:
            with contextlib.suppress(Exception):  # an actor may be gone already
                for actor in self.actors:
                    ray.kill(actor)
            ray.shutdown()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

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
        try:
            ray.get(ref, timeout=CAUSE_DEADLINE_S)
        except ray.exceptions.OutOfMemoryError:
            cause = "Ray ended it, as its node ran out of memory"
        except ray.exceptions.RayActorError as error:
            cause = _first_cause(str(error)) or cause
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            pass  # the process is gone all the same
        return LossError((index,), f"{self._chips(index)} died ({self._process(index)}) {watch.after}: {cause}")

    def _chips(self, index: int) -> str:
        return name_chips(chips_of_actor(self.owner, index))

    def _process(self, index: int) -> str:
        return f"process {self.pids[index]}"


def _is_gone(ref: Any) -> bool:
    """Tell whether the actor of a call that has ended is gone."""
    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError:
        return False
    except ray.exceptions.RayError:
        return True
    return False


def _init_ray(folder: Path, n_actors: int, n_cpus: int | None = None) -> None:
    """Start a private Ray on this machine, with its files in the run's folder."""
    # More workers than its start-up concurrency make Ray print warnings on the driver's stdout, which is not Ray's.
    ray.init(
        address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        _temp_dir=str(folder / "ray"), _node_ip_address="127.0.0.1", object_store_memory=100 * 2**20,
        _system_config={"worker_maximum_startup_concurrency": n_actors + 1}, num_cpus=n_cpus,
    )  # fmt: skip


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the driver's handler of SIGTERM, which Ray replaces by one that exits with the signal's number.

    Ray's libraries crash at the end of a process in which their start was interrupted; such a process ends at once.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        atexit.register(os._exit, 1)
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _first_cause(text: str) -> str:
    r"""Return the line of Ray's report that says how the process ended.

    >>> _first_cause("The actor died.\nWorker exit detail: Worker exits. End of file. Some common causes include: …")
    'Worker exits. End of file'
    """
    for line in text.splitlines():
        for key in ("exit detail:", "The actor is dead because"):
            if key in line:
                return line.split(key, 1)[1].split(" Some common causes", 1)[0].strip().rstrip(".")
    return ""


def run_in_ray(
    function: Callable[[Any], Any], tasks: Iterable[Any], n_workers: int
) -> Iterator[tuple[Any, Any | Lost]]:
    """Yield (task, function(task)) as they are done, as `run_in_processes` does, with Ray tasks of one core each.

    On the Ray cluster that the environment names (RAY_ADDRESS), on all its cores; else on a private one of `n_workers`.
    """
    folder = Path(tempfile.mkdtemp(prefix="chipmesh-"))
    try:
        with _own_sigterm():
            if "RAY_ADDRESS" in os.environ:
                ray.init(log_to_driver=False, logging_level="ERROR")
            else:
                _init_ray(folder, n_workers, n_cpus=n_workers)
        n_at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", n_workers)))
        remote = ray.remote(function).options(num_cpus=1, max_retries=MOST_TRIES - 1)
        todo = iter(tasks)
        pending = {remote.remote(task): task for task in islice(todo, n_at_once)}
        while pending:
            for ref in ray.wait(list(pending), num_returns=1)[0]:
                task = pending.pop(ref)
                pending |= {remote.remote(following): following for following in islice(todo, 1)}
                try:
                    result = ray.get(ref)
                except ray.exceptions.RayError as error:
                    result = Lost(f"its process died: {type(error).__name__}, {MOST_TRIES} times")
                yield task, result
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
