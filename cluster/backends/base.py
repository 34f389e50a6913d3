"""What every backend does: run a program on all chips, and bring back values and traces."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Protocol

from attrs import field, frozen

from cluster.checkpoints import NO_CHECKPOINTS, Keeping, OnRestart
from cluster.chip import Emit, Machine, SimChip
from cluster.host import Host
from cluster.records import Record, Trace
from cluster.selection import Choose
from collectives import Schedule
from configs.errors import ProgramError
from configs.spec.experiment import Contention, Numerics, OnFailure
from configs.spec.system import SystemSpec
from topology import Topology, build_topology
from workloads.roles import Roles

Program = Callable[..., Coroutine[Any, Any, Any]]
"""`async def program(chip, *args)`: the same one runs on every chip."""


@frozen
class Setting:
    """What every host must know to build its chips; plain data that travels to other processes."""

    system: SystemSpec
    n_chips: int
    numerics: Numerics = "real"
    contention: Contention = "fluid"
    algorithms: Mapping[str, str] = {}
    files: Mapping[str, Schedule] = field(factory=dict, eq=False)
    """The schedules of those algorithms that were read from files."""
    on_failure: OnFailure = "fail"
    checkpoint_every: int = 0

    @cached_property
    def topology(self) -> Topology:
        """What connects the chips, built once a process: what is remembered of its routes serves all of it."""
        return build_topology(self.system)


@frozen(eq=False)
class Outcome:
    """What the chips of one or more hosts bring back."""

    values: Mapping[int, Any]
    records: list[Record]
    traces: list[Trace]
    memory_bytes: Mapping[int, Mapping[str, int]]


class Backend(Protocol):
    """Where the chips live."""

    def run(
        self, program: Program, args: Sequence[Any], emit: Emit, on_restart: OnRestart, roles: Roles | None = None
    ) -> list[Outcome]:
        """Run the program on every chip; `emit` is called in this process as chips hand over values.

        `on_restart` is called when chips were lost and the run goes on, if the backend can do that and is told to.

        With `roles` a backend may run one chip of every role where there are no values; what it returns is the same.

        Raises RunError if the run cannot be finished.
        """

    def close(self) -> None:
        """Stop everything that the backend started."""


def run_host(
    setting: Setting,
    ranks: Sequence[int],
    host: Host,
    program: Program,
    args: Sequence[Any],
    emit: Emit,
    choose: Choose,
    keeping: Keeping = NO_CHECKPOINTS,
) -> Outcome:
    """Run the program on the chips of one host; every backend's hosts go through here.

    `choose` chooses the algorithms of calls that leave it open; `keeping` says what to do about checkpoints.
    """
    machine = Machine(setting.system, setting.topology, setting.numerics,
                      choose, setting.algorithms, setting.files)  # fmt: skip
    chips = [SimChip(rank, setting.n_chips, machine, host, emit, keeping) for rank in ranks]
    values = host.run({chip.rank: partial(_whole, program, chip, args) for chip in chips})
    memory = {chip.rank: dict(chip.memory.by_role()) for chip in chips}
    return Outcome(values, machine.table.records, [chip.trace for chip in chips], memory)


async def _whole(program: Program, chip: SimChip, args: Sequence[Any]) -> Any:
    """Run a chip's program to its end and see that it has taken all that it asked for."""
    started = program(chip, *args)
    if not inspect.iscoroutine(started):
        raise ProgramError(f"the program {program!r} is no `async def`: it returned {started!r}")
    value = await started
    chip.close()
    return value
