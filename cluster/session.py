"""Start simulated clusters and run programs on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from operator import index
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, SupportsIndex, get_args

from attrs import field, frozen

from cluster.backends.base import Backend, Program, Setting
from cluster.backends.local import LocalBackend
from cluster.backends.options import START_DEADLINE_S, RayOptions, check_options
from cluster.checkpoints import OnRestart, Restart
from cluster.chip import Emit
from cluster.records import merge
from cluster.vocabulary import VOCABULARY
from collectives import NO_FILES, OFFERED, Schedule, read_files
from configs.algorithm_names import algorithm_problem
from configs.errors import ConfigError
from configs.loader import load_system
from configs.problems import unknown
from configs.spec.experiment import Contention, Numerics, OnFailure
from configs.spec.system import SystemSpec
from topology import Topology, build_topology
from workloads.roles import Roles

if TYPE_CHECKING:
    from cluster.timeline import Timeline

BackendName = Literal["local", "ray"]
SystemSource = str | Path | Mapping[str, Any] | SystemSpec


@frozen(eq=False)
class RunResult:
    """What a program returned on every chip, and when everything happened in simulated time."""

    values: list[Any]
    timeline: Timeline
    memory_bytes: Mapping[int, Mapping[str, int]]
    wall_s: float
    restarts: tuple[Restart, ...] = ()
    """What was lost on the way, and from where the run went on."""

    @property
    def time_s(self) -> float:
        """Simulated time of the whole run, in seconds."""
        return self.timeline.total_ps * 1e-12


@frozen(eq=False)
class Cluster:
    """Simulated chips that are ready to run programs; use it as a context manager."""

    system: SystemSpec
    topology: Topology
    contention: Contention
    n_chips: int
    backend: Backend = field(repr=False)
    files: Mapping[str, Schedule] = field(default=NO_FILES, repr=False)

    def run(
        self,
        program: Program,
        *args: Any,
        on_emit: Emit | None = None,
        on_restart: OnRestart | None = None,
        roles: Roles | None = None,
    ) -> RunResult:
        """Run `async def program(chip, *args)` on every chip.

        `roles` says which chips do the same if there are no values, so that only one of them need run.

        `on_emit(rank, name, value, index)` is called here whenever a chip hands over a value with `chip.emit`,
        `on_restart(restart)` whenever chips were lost and the run goes on.
        Raises RunError if a chip's program fails, chips wait for each other for ever, or a chip's process dies.
        """
        from cluster.timeline import time_run  # noqa: PLC0415  numba takes a third of a second to import

        began = time.perf_counter()
        restarts: list[Restart] = []

        def note(restart: Restart) -> None:
            restarts.append(restart)
            if on_restart is not None:
                on_restart(restart)

        outcomes = self.backend.run(program, args, on_emit or _ignore, note, roles)
        wall_s = time.perf_counter() - began
        records, traces = merge([(o.records, o.traces) for o in outcomes])
        timeline = time_run(self.system, self.topology, self.contention, records, traces, self.files)
        values = {rank: value for o in outcomes for rank, value in o.values.items()}
        memory = {rank: used for o in outcomes for rank, used in o.memory_bytes.items()}
        return RunResult([values[rank] for rank in range(self.n_chips)], timeline, memory, wall_s, tuple(restarts))

    def close(self) -> None:
        """Stop everything that was started."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ignore(_rank: int, _name: str, _value: Any, _index: int) -> None:
    """Drop a value that nobody asked for."""


def system_of(source: SystemSource, overrides: Sequence[str] = ()) -> SystemSpec:
    """Return a system by catalogue name, path, mapping or as it is; raise ConfigError if it is wrong."""
    return source if isinstance(source, SystemSpec) else load_system(source, overrides, VOCABULARY)


def launch(
    system: SystemSource,
    *,
    backend: BackendName = "local",
    n_chips: int | None = None,
    numerics: Numerics = "real",
    contention: Contention = "fluid",
    collectives: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    on_failure: OnFailure = "fail",
    checkpoint_every: int | None = None,
    address: str | None = None,
    chips_per_actor: int | None = None,
    groups: Sequence[Sequence[int]] = (),
    chip_bytes: int = 0,
    start_deadline_s: float = START_DEADLINE_S,
    on_status: Callable[[str], None] = lambda _text: None,
) -> Cluster:
    """Start the chips of a system (a catalogue name, a path, a mapping or a spec); by default all of them.

    For Ray (docs/ray.md):
    address: of a cluster, "auto" or HOST:PORT; by default a private Ray runs on this machine, and ends with this.
    chips_per_actor: by default one, or more where memory is short.  chip_bytes: what a chip's shard takes on the host.
    groups: of chips that talk most, to be kept on one node.  on_status: told how far the start is.
    on_failure, checkpoint_every: whether a run goes on when a process is lost, and after how many steps its programs
    keep checkpoints (`Chip.checkpoint`); without any it begins at its start again.

    Raises ConfigError if the system is wrong or has fewer chips, or for a word that is not known.

    >>> async def program(chip):
    ...     return await chip.all_gather(np.array([chip.rank]), axis="y")
    >>> import numpy as np
    >>> with launch("wormhole-galaxy") as cluster:
    ...     result = cluster.run(program)
    >>> result.values[5].tolist()
    [4, 5, 6, 7]
    """
    _check_words(numerics, contention, on_failure, collectives or {})
    if checkpoint_every is not None and (checkpoint_every < 1 or on_failure == "fail"):
        given = f"{checkpoint_every} with on_failure {on_failure!r}"
        raise ConfigError((f"checkpoint_every: {given}; accepted: a number of steps ≥ 1, with on_failure 'restart'",))
    options = RayOptions(address, chips_per_actor, tuple(map(tuple, groups)), chip_bytes, start_deadline_s, on_status)
    check_options(options, backend)
    spec = system_of(system, overrides)
    n_there = build_topology(spec).n_chips
    count = n_there if n_chips is None else n_chips
    if not isinstance(count, SupportsIndex) or not 1 <= index(count) <= n_there:
        raise ConfigError((f"{spec.name}: {count!r} chips asked for; accepted: 1 to {n_there}",))
    files = read_files(collectives or {})
    setting = Setting(spec, count, numerics, contention, dict(collectives or {}), files, on_failure,
                      checkpoint_every or 0)  # fmt: skip
    return Cluster(spec, setting.topology, contention, count, _backend(backend, setting, options), files)


def _check_words(numerics: str, contention: str, on_failure: str, collectives: Mapping[str, str]) -> None:
    """Raise ConfigError with every word that is not known."""
    problems = []
    for key, given, choices in (
        ("numerics", numerics, get_args(Numerics)),
        ("contention", contention, get_args(Contention)),
        ("on_failure", on_failure, get_args(OnFailure)),
    ):
        if given not in choices:
            problems.append(f"{key}: {unknown(given, f'a kind of {key}', choices)}")
    for op, algorithm in collectives.items():
        if op not in OFFERED:
            problems.append(f"collectives: {unknown(op, 'an operation', OFFERED)}")
        elif not isinstance(algorithm, str):
            problems.append(f"collectives.{op}: {algorithm!r}; accepted: the name of an algorithm")
        elif (problem := algorithm_problem(algorithm, op, OFFERED[op])) is not None:
            problems.append(f"collectives.{op}: {problem}")
    if problems:
        raise ConfigError(tuple(problems))


def _backend(name: BackendName, setting: Setting, options: RayOptions) -> Backend:
    if name == "local":
        return LocalBackend(setting)
    if name != "ray":
        raise ConfigError((f"backend: {name!r}; accepted: local, ray",))
    from cluster.backends.on_ray.backend import RayBackend  # noqa: PLC0415  ray takes half a second to import

    return RayBackend.start(setting, options)
