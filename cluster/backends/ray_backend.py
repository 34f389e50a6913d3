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

os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # read by the import; else SIGTERM prints a stack
import ray
from attrs import define, field

from cluster.backends.base import Outcome, Program, Setting, run_host
from cluster.backends.control import (
    ControlClient,
    ControlServer,
    pack_call,
    pack_value,
    unpack_call,
    unpack_value,
)
from cluster.backends.dataplane import DataPlane
from cluster.backends.greeting import Address, Listeners
from cluster.backends.processes import MOST_TRIES, Lost
from cluster.chip import Emit
from cluster.host import Host, describe_deadlock
from cluster.records import Collective
from cluster.selection import Choose, Chooser
from configs.errors import ChipDiedError, ConfigError, ProgramError, RunError
from workloads.roles import Roles

_LOG = logging.getLogger("chipmesh")

START_DEADLINE_S = 180.0
CAUSE_DEADLINE_S = 3.0
POLL_S = 0.05
SILENT_S = 6.0  # several beats: a busy machine may delay some


class ActorHost:
    """What runs in an actor: a host of some chips."""

    def __init__(
        self, setting: Setting, index: int, owner: Mapping[int, int], driver: Address, host: str, ip: str | None,
        token: str,
    ) -> None:  # fmt: skip
        self._setting = setting
        self._ranks = [rank for rank, process in owner.items() if process == index]
        self._control = ControlClient.connect(driver, host, token, index)
        listeners = Listeners.open(Path(driver.path).with_name(f"{index}.sock"), host, ip)
        self._plane = DataPlane(index, owner, listeners, token, self._report, self._refused)

    def up(self) -> tuple[int, Address]:
        """Return the process id and where this actor listens."""
        return os.getpid(), self._plane.listeners.address

    def wire(self, addresses: Sequence[Address]) -> None:
        """Learn where every actor listens."""
        self._plane.addresses = addresses

    def run(self, run: int, program: Program, args: Sequence[Any]) -> Outcome:
        """Run a program on this actor's chips."""
        from threadpoolctl import threadpool_limits  # noqa: PLC0415  keeps the driver's start short

        self._plane.run = run
        with threadpool_limits(limits=1), self._control.beating():
            outcome = run_host(
                self._setting, self._ranks, Host(self._plane), program, args, self._emit, self._choose
            )  # fmt: skip
            self._plane.flush()
        self._control.send("done", self._plane.sent)
        return outcome

    def _emit(self, rank: int, name: str, value: Any, index: int) -> None:
        self._control.send("emit", rank, name, pack_value(value), index)

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
    _choose: Choose = field(init=False)
    _run: int = 0
    _last_emitted: str = "before its first result"
    _idle: dict[int, tuple[Mapping[int, int], int, Any]] = field(factory=dict)
    _done: dict[int, Mapping[int, int]] = field(factory=dict)
    _heard: dict[int, float] = field(factory=dict)
    """When each actor that has not ended was last heard of."""
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
        backend = cls(setting, folder, control, owner, [])
        try:
            backend._start(token)
        except BaseException:
            backend.close()
            raise
        return backend

    def _start(self, token: str) -> None:
        n_actors = max(self.owner.values()) + 1
        with _own_sigterm():
            _init_ray(self.folder, n_actors)
        remote = ray.remote(ActorHost).options(num_cpus=0, max_restarts=0, max_task_retries=0)
        driver = self.control.listeners.address
        self.actors = [
            remote.remote(self.setting, index, self.owner, driver, "", None, token) for index in range(n_actors)
        ]
        try:
            up = ray.get([actor.up.remote() for actor in self.actors], timeout=START_DEADLINE_S)
            self.pids = [pid for pid, _ in up]
            addresses = [address for _, address in up]
            ray.get([actor.wire.remote(addresses) for actor in self.actors], timeout=START_DEADLINE_S)
        except ray.exceptions.GetTimeoutError:
            raise RunError(f"{n_actors} actors were not up after {START_DEADLINE_S:.0f} s") from None
        except ray.exceptions.RayError as error:
            raise RunError(f"an actor did not start: {error}") from None

    def run(self, program: Program, args: Sequence[Any], emit: Emit, roles: Roles | None = None) -> list[Outcome]:
        """Run the program on every chip, whatever the roles."""
        del roles
        if self._failed:
            raise RunError("an earlier run on this cluster failed and its actors are lost; launch a new one")
        self._failed = True  # until this run has succeeded
        self._run += 1
        self._idle.clear()
        self._done.clear()
        self._heard = dict.fromkeys(range(len(self.actors)), time.monotonic())
        pending = [actor.run.remote(self._run, program, args) for actor in self.actors]
        actor_of = {ref: index for index, ref in enumerate(pending)}
        outcomes: dict[int, Outcome] = {}
        while pending:
            self._listen(emit, actor_of)
            self._check_beats()
            done, pending = ray.wait(pending, num_returns=len(pending), timeout=0)
            for ref in done:
                outcomes[actor_of[ref]] = self._outcome(ref, actor_of)
        self._listen(emit, actor_of, timeout_s=0.0)
        self._failed = False
        return [outcomes[index] for index in range(len(self.actors))]

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

    def _listen(self, emit: Emit, actor_of: Mapping[Any, int], timeout_s: float = POLL_S) -> None:
        """Hand on what the chips have to say."""
        heard = True
        while heard:
            heard = False
            for index, message in self.control.poll(timeout_s):
                heard, timeout_s = True, 0.0
                if message is None:
                    raise self._death(index, actor_of)
                if index in self._heard:
                    self._heard[index] = time.monotonic()
                if message[0] == "emit":
                    _, rank, name, value, step = message
                    self._last_emitted = f"after {name} {step} of chip {rank}"
                    self._idle.clear()
                    emit(rank, name, unpack_value(value), step)
                elif message[0] == "choose":
                    self.control.answer(index, self._chosen(unpack_call(message[1])))
                elif message[0] == "done":
                    self._done[index] = message[1]
                    self._heard.pop(index, None)  # Ray watches it while its result travels
                elif message[0] == "refused":
                    _LOG.warning(message[1])
                elif message[0] == "idle":
                    self._idle[index] = tuple(message[1:])
                    self._check_deadlock()

    def _check_beats(self) -> None:
        """Raise for an actor whose process lives and does nothing; it is killed, as it would not heed anything else.

        Everything that had come has been read: a driver that was itself asleep blames nobody for it.
        """
        for index, heard_s in self._heard.items():
            if time.monotonic() - heard_s > SILENT_S:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pids[index], signal.SIGKILL)
                raise ChipDiedError(
                    f"{self._chips(index)} hung (process {self.pids[index]}, no sign of life for {SILENT_S:.0f} s) "
                    f"{self._last_emitted}; the run is lost"
                )

    def _chosen(self, call: Collective) -> dict[str, Any]:
        try:
            return {"algorithm": self._choose(call)}
        except ConfigError as error:
            return {"problems": error.problems}

    def _check_deadlock(self) -> None:
        """Raise if every actor that has not ended is idle, and no message is on its way to any of them.

        An idle actor wakes only by a message, so counts that agree show that no report is out of date.
        """
        running = set(range(len(self.actors))) - self._done.keys()
        if running - self._idle.keys():
            return
        all_sent = [*self._done.values(), *(self._idle[i][0] for i in running)]
        if any(sum(sent.get(i, 0) for sent in all_sent) != self._idle[i][1] for i in running):
            return
        waiting = sorted((rank, tuple(key)) for i in running for rank, key in self._idle[i][2])
        if not waiting:  # all programs have ended, but somebody does not take what it was sent
            senders = ", ".join(self._chips(i) for i in sorted(running))
            raise ProgramError(f"messages of {senders} are never received: the programs they are for have ended")
        raise ProgramError(describe_deadlock(waiting))

    def _outcome(self, ref: Any, actor_of: Mapping[Any, int]) -> Outcome:
        """Return what an actor brings back, or raise what ended it."""
        try:
            outcome: Outcome = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ChipDiedError):
                raise self._find_death(cause, actor_of) from None
            if isinstance(cause, ConfigError | RunError):
                raise cause from None
            raise ProgramError(f"{self._chips(actor_of[ref])}: {error}") from None
        except ray.exceptions.RayActorError:
            raise self._death(actor_of[ref], actor_of) from None
        return outcome

    def _find_death(self, seen: ChipDiedError, actor_of: Mapping[Any, int]) -> ChipDiedError:
        """Return whose death a surviving actor noticed: the one whose control connection closed."""
        deadline = time.monotonic() + CAUSE_DEADLINE_S
        while time.monotonic() < deadline:
            for index, message in self.control.poll(POLL_S):
                if message is None:
                    return self._death(index, actor_of)
        return seen

    def _death(self, index: int, actor_of: Mapping[Any, int]) -> ChipDiedError:
        """Return the error for an actor that is gone, with the cause that Ray knows."""
        ref = next(r for r, i in actor_of.items() if i == index)
        cause = "its process ended"
        try:
            ray.get(ref, timeout=CAUSE_DEADLINE_S)
        except ray.exceptions.RayActorError as error:
            cause = _first_cause(str(error)) or cause
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            pass  # the process is gone all the same
        return ChipDiedError(
            f"{self._chips(index)} died (process {self.pids[index]}) {self._last_emitted}: {cause}; the run is lost"
        )

    def _chips(self, index: int) -> str:
        ranks = [rank for rank, owner in self.owner.items() if owner == index]
        return f"chip {ranks[0]}" if len(ranks) == 1 else f"chips {ranks[0]}-{ranks[-1]}"


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
