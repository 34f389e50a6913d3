"""The chip: it computes with numpy, exchanges messages by running schedules, and records what it did.

There is no clock and no I/O here; the host resumes the program when a message has arrived.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from attrs import define, field

from cluster.calls import refuse_misuse, refuse_no_numbers, refuse_pause, refuse_tensor, result_shape, table_of
from cluster.checkpoints import NO_CHECKPOINTS, Keeping, Kept
from cluster.cost import duration, work_bytes, work_flops
from cluster.handles import CommunicationEngine, Handle, Operation
from cluster.host import Host, Mailbox
from cluster.memory import Memory
from cluster.port import GroupPort
from cluster.records import Collective, Communication, Compute, Mark, Receive, Record, RecordTable, Send, Trace, merge
from cluster.selection import Choose
from collectives import (
    NO_FILES,
    OPERATIONS,
    REDUCTIONS,
    Detail,
    GroupView,
    JointStep,
    Schedule,
    begin_output,
    build,
    ends_with_something,
    execute,
    execute_together,
    join,
    joint_steps,
    split,
)
from configs.algorithm_names import AUTO
from configs.dtypes import DTYPES
from configs.errors import ProgramError
from configs.spec.chip import ChipSpec
from configs.spec.experiment import Numerics
from configs.spec.system import SystemSpec
from topology import Topology, chips_of
from workloads.array import Array, ShapeArray
from workloads.chip import Group, Tensor, Work
from workloads.rounding import round_to

T = TypeVar("T")
Emit = Callable[[int, str, Any, int], None]
"""(rank, name, value, index): hands a value to the driver."""


@define(eq=False)
class Machine:
    """What the chips of one host share: the system, the record table, and results that depend on shapes alone."""

    system: SystemSpec
    topology: Topology
    numerics: Numerics
    choose: Choose
    """Called for calls whose algorithm is `auto`."""
    algorithms: Mapping[str, str]
    files: Mapping[str, Schedule] = NO_FILES
    table: RecordTable = field(factory=RecordTable)
    chips: tuple[ChipSpec, ...] = field(init=False)
    kernel_results: dict[str, dict[Any, tuple[tuple[int, ...], Any, int]]] = field(factory=lambda: defaultdict(dict))
    """By the name of the chip, then by kernel and shapes."""
    works: dict[int, Work] = field(factory=dict)
    """By the number of a kernel's record, what it asked of its chip."""
    _schedules: dict[tuple[str, str, tuple[int, ...], Detail], Schedule] = field(factory=dict)
    _chosen: dict[Collective, Collective] = field(factory=dict)

    def settled(self, call: Collective) -> Collective:
        """Return the call with the algorithm that `auto` stands for in it."""
        if call.algorithm != AUTO:
            return call
        known = self._chosen.get(call)
        if known is None:
            known = self._chosen[call] = call._replace(algorithm=self.choose(call))
        return known

    def __attrs_post_init__(self) -> None:
        self.chips = chips_of(self.system, self.topology)

    def schedule(self, op: str, algorithm: str, ranks: tuple[int, ...], detail: Detail) -> Schedule:
        """Return the schedule, built once."""
        key = (op, algorithm, ranks, detail)
        if key not in self._schedules:
            self._schedules[key] = build(op, algorithm, GroupView(self.topology, ranks), detail, self.files)
        return self._schedules[key]


@define(eq=False)
class SimChip:
    """One simulated chip; implements `workloads.chip.Chip`, where the methods are described."""

    rank: int
    n_chips: int
    machine: Machine
    host: Host
    emit_value: Emit
    keeping: Keeping = NO_CHECKPOINTS
    mailbox: Mailbox = field(init=False)
    spec: ChipSpec = field(init=False)
    memory: Memory = field(init=False)
    real: bool = field(init=False)
    engine: CommunicationEngine = field(init=False)
    _results: dict[Any, tuple[tuple[int, ...], Any, int]] = field(init=False)
    _numbers: list[int] = field(init=False, factory=list)
    _layers: list[tuple[int, int]] = field(init=False, factory=list)
    _groups: dict[str, Group] = field(init=False, factory=dict)
    _calls: dict[str, int] = field(init=False, factory=dict)
    _n_emitted: int = field(init=False, default=0)
    _began: int | None = field(init=False, default=None)
    """The step with which the program began, as `resume` said."""

    def __attrs_post_init__(self) -> None:
        self.mailbox = self.host.mailbox(self.rank)
        self.spec = self.machine.chips[self.rank]
        self.memory = Memory(self.spec, f"chip {self.rank}")
        self._results = self.machine.kernel_results[self.spec.name]
        self.real = self.machine.numerics == "real"
        self.engine = CommunicationEngine(self.rank, self.host, self.mailbox, self._note)
        self._groups["all"] = Group("all", tuple(range(self.n_chips)))

    def _note(self, record: Record) -> None:
        self._numbers.append(self.machine.table.number(record))

    @property
    def trace(self) -> Trace:
        """What the chip has done so far."""
        return Trace(self.rank, np.array(self._numbers, np.int32), np.array(self._layers, np.int32).reshape(-1, 2))

    @property
    def layer(self) -> int | None:
        """The layer that the program is in, as it says."""
        return None if not self._layers or self._layers[-1][1] < 0 else self._layers[-1][1]

    @layer.setter
    def layer(self, layer: int | None) -> None:
        if layer != self.layer:
            self._layers.append((len(self._numbers), -1 if layer is None else layer))

    # --- memory and compute -------------------------------------------------------------------------------------

    def place(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        values: Any = None,
        tier: str | None = None,
        role: str = "weights",
    ) -> Tensor:
        """Put a tensor into memory."""
        self._refuse(refuse_tensor, name, shape, dtype, values)
        size_bytes = DTYPES[dtype].size_bytes(tuple(shape))
        index = self.memory.place(name, size_bytes, tier, role)
        rounded = round_to(dtype, values) if values is not None else None
        if rounded is not None and role == "kv" and np.shares_memory(rounded, values):
            rounded = rounded.copy()  # a cache is written in place, and `values` are the caller's
        return Tensor(name, tuple(shape), dtype, index, size_bytes, rounded)

    def apply(self, kernel: Any, *operands: Any, **params: Any) -> Array:
        """Run a kernel; what it costs is worked out once per kernel and shapes."""
        shapes = [(o.shape, o.dtype, o.tier) if type(o) is Tensor else (o.shape, o.dtype) for o in operands]
        key = (kernel.name, *shapes, *params.items())
        found = self._results.get(key)
        if found is None:
            found = self._results[key] = self._price(kernel, operands, params)
        shape, dtype, number = found
        if 0 in shape:  # of no tokens: nothing to launch
            return np.zeros(shape, dtype) if self.real else ShapeArray(shape, dtype)
        self._numbers.append(number)
        if self.real:
            return kernel.evaluate(*operands, **params).astype(dtype, copy=False)
        return ShapeArray(shape, dtype)

    def _price(
        self, kernel: Any, operands: tuple[Any, ...], params: dict[str, Any]
    ) -> tuple[tuple[int, ...], Any, int]:
        shape, dtype = kernel.infer(*operands, **params)
        if 0 in shape:
            return shape, np.dtype(dtype), -1
        work = kernel.work(*operands, **params)
        duration_ps, bound = duration(self.spec, work)
        flops, moved_bytes = work_flops(self.spec, work), work_bytes(self.spec, work)
        record = Compute(kernel.name, duration_ps, bound, flops, work.dtype, moved_bytes)
        number = self.machine.table.number(record)
        self.machine.works[number] = work
        return shape, np.dtype(dtype), number

    # --- communication ------------------------------------------------------------------------------------------

    def pause(self, name: str, duration_ps: int) -> None:
        """Do nothing for so long."""
        self._refuse(refuse_pause, name, duration_ps)
        self._note(Compute(name, duration_ps, "pause"))

    def group(self, name: str, ranks: tuple[int, ...]) -> Group:
        """Return the group of these ranks under a name that stands for them alone on this chip."""
        if self.rank not in ranks or len(set(ranks)) != len(ranks):
            must = "it must name this chip, and each chip once"
            raise ProgramError(f"chip {self.rank}: group {name!r} is {ranks}; {must}")
        absent = [rank for rank in ranks if not 0 <= rank < self.n_chips]
        if absent:
            raise ProgramError(f"chip {self.rank}: group {name!r} has chip {absent[0]}, which does not take part")
        known = self._groups.setdefault(name, Group(name, tuple(ranks)))
        if known.ranks != tuple(ranks):
            raise ProgramError(f"chip {self.rank}: group {name!r} was {known.ranks} and is now {tuple(ranks)}")
        return known

    def all_reduce(
        self, x: Array, group: Group | None = None, axis: str | None = None, reduction: str = "sum"
    ) -> Operation[Array]:
        """Return the sum (or max, min) of all members' `x`."""
        return self._collective("all_reduce", x, group, axis, reduction=reduction)

    def all_gather(self, x: Array, group: Group | None = None, axis: str | None = None) -> Operation[Array]:
        """Return all members' `x` concatenated along axis 0."""
        return self._collective("all_gather", x, group, axis)

    def reduce_scatter(
        self, x: Array, group: Group | None = None, axis: str | None = None, reduction: str = "sum"
    ) -> Operation[Array]:
        """Return this member's part of the sum (or max, min) of all members' `x`."""
        return self._collective("reduce_scatter", x, group, axis, reduction=reduction)

    def all_to_all(self, x: Array, group: Group | None = None, axis: str | None = None) -> Operation[Array]:
        """Send part j of `x` to member j; return the received parts in group order."""
        return self._collective("all_to_all", x, group, axis)

    def all_to_all_v(
        self, x: Array, rows: Sequence[Sequence[int]], group: Group | None = None, axis: str | None = None
    ) -> Operation[Array]:
        """Send `rows[i][j]` rows of `x` from member i to member j; return the received rows in group order."""
        return self._collective("all_to_all_v", x, group, axis, table=rows)

    def broadcast(
        self, x: Array, root: int = 0, group: Group | None = None, axis: str | None = None
    ) -> Operation[Array]:
        """Return the `x` of the member with index `root`."""
        return self._collective("broadcast", x, group, axis, root)

    def reduce(
        self, x: Array, root: int = 0, group: Group | None = None, axis: str | None = None, reduction: str = "sum"
    ) -> Operation[Array | None]:
        """Return the sum (or max, min) of all members' `x` at the root, None elsewhere."""
        return self._collective("reduce", x, group, axis, root, reduction)

    def gather(
        self, x: Array, root: int = 0, group: Group | None = None, axis: str | None = None
    ) -> Operation[Array | None]:
        """Return all members' `x` concatenated along axis 0 at the root, None elsewhere."""
        return self._collective("gather", x, group, axis, root)

    def scatter(self, x: Array, root: int = 0, group: Group | None = None, axis: str | None = None) -> Operation[Array]:
        """Return this member's part of the root's `x`."""
        return self._collective("scatter", x, group, axis, root)

    def permute(
        self, x: Array, pairs: Sequence[tuple[int, int]], group: Group | None = None, axis: str | None = None
    ) -> Operation[Array]:
        """Return the `x` of the member that is this one's source, or zeros."""
        return self._collective("permute", x, group, axis, table=pairs)

    def barrier(self, group: Group | None = None, axis: str | None = None) -> Operation[None]:
        """Wait until all members are here."""
        nothing = np.empty(0, np.uint8) if self.real else ShapeArray((0,), np.dtype(np.uint8))
        return self._collective("barrier", nothing, group, axis)

    def send(self, x: Array, dst: int, tag: str = "") -> Operation[None]:
        """Send an array to a chip."""
        if dst == self.rank:
            raise ProgramError(f"chip {self.rank} sends {tag!r} to itself")
        self._refuse(refuse_no_numbers, f"send {tag!r}", x)

        async def post(_goes_on: bool) -> None:
            self.host.post(dst, self.rank, tag, [x.copy()] if self.real else x)

        return self.engine.ask(Send(dst, tag, x.nbytes), post)

    def recv(self, src: int, tag: str = "") -> Operation[Array]:
        """Return the next array that the chip `src` sent under this tag."""
        if src == self.rank:
            raise ProgramError(f"chip {self.rank} receives {tag!r} from itself")

        async def take(_goes_on: bool) -> Array:
            message = await self.mailbox.take((src, tag))
            return message[0] if self.real else message

        return self.engine.ask(Receive(src, tag), take)

    def start(self, operation: Operation[T]) -> Handle[T]:
        """Let an operation go on beside the program."""
        return self.engine.start(operation)

    def emit(self, name: str, value: Any = None, index: int = 0) -> None:
        """Hand a value to the driver."""
        self._note(Mark(name, index))
        self._n_emitted += 1
        if self._n_emitted <= self.keeping.n_emitted.get(self.rank, 0):
            return  # the driver has it from the process that is lost
        kept = value.copy() if isinstance(value, np.ndarray) else value
        self.host.hand_over(self.rank, lambda: self.emit_value(self.rank, name, kept, index))

    # --- checkpoints --------------------------------------------------------------------------------------------

    def resume(self, step: int, state: Any) -> tuple[int, Any]:
        """Return the step and state of the checkpoint from which the run goes on, or those that are given."""
        kept = self.keeping.kept.get(self.rank)
        if kept is not None:
            step, state, self._n_emitted = kept.step, kept.state, kept.n_emitted
            numbers = np.array([self.machine.table.number(record) for record in kept.records], np.int32)
            self._numbers = numbers[kept.trace.numbers].tolist()
            self._layers = [(at, layer) for at, layer in kept.trace.layers.tolist()]
            for x, dst, tag in kept.sent:
                self.host.post(dst, self.rank, tag, [x] if self.real else x)
        self._began = step
        return step, state

    def checkpoint(self, step: int, state: Any, sent: Sequence[tuple[Array, int, str]] = ()) -> None:
        """Keep what the program goes on with, if a checkpoint is due."""
        if self._began is None:
            raise ProgramError(f"chip {self.rank} keeps a checkpoint of step {step} before it has called resume")
        try:
            self.engine.close()
        except ProgramError as error:
            raise ProgramError(f"{error}, before a checkpoint of step {step}") from None
        every = self.keeping.every
        if every and step % every == 0 and step > self._began:
            records, (trace,) = merge([(self.machine.table.records, [self.trace])])
            self.keeping.keep(self.rank, Kept(step, state, records, trace, self._n_emitted, sent))

    def close(self) -> None:
        """Raise ProgramError if the program has ended without taking what it asked for."""
        self.engine.close()
        if self.keeping.every:
            used = {self.machine.table.records[number] for number in self._numbers}
            if not any(isinstance(record, Communication) for record in used):
                self.keeping.keep(self.rank, None)

    def _refuse(self, misuse: Callable[..., None], *given: Any) -> None:
        """Let a check of what is given say which chip it was given to."""
        try:
            misuse(*given)
        except ProgramError as error:
            raise ProgramError(f"chip {self.rank}: {error}") from None

    def _members(self, group: Group | None, axis: str | None) -> Group:
        if group is not None and axis is not None:
            given = f"both group {group.name!r} and axis {axis!r} are given"
            raise ProgramError(f"chip {self.rank}: {given}; accepted: one")
        if group is not None:
            if self.rank not in group.ranks:
                raise ProgramError(f"chip {self.rank} is not in group {group.name!r} {group.ranks}")
            return group
        if axis is None:
            return self._groups["all"]
        return self.group(f"axis {axis}", self.machine.topology.axis_ranks(self.rank, axis))

    def _collective(
        self,
        op: str,
        x: Array,
        group: Group | None,
        axis: str | None,
        root: int = 0,
        reduction: str = "sum",
        table: Iterable[Sequence[int]] = (),
    ) -> Operation[Any]:
        members = self._members(group, axis)
        self._refuse(refuse_no_numbers, op, x)
        n, place, shape = len(members), members.ranks.index(self.rank), tuple(x.shape)
        try:
            numbers = table_of(table)
            refuse_misuse(op, n, place, shape, root, reduction, numbers)
        except ProgramError as error:
            raise ProgramError(f"chip {self.rank}: {error}") from None
        result = result_shape(op, n, place, shape, root, numbers)
        algorithm = self.machine.algorithms.get(op, AUTO)
        same = (1, *shape[1:]) if op == "all_to_all_v" else shape
        asked = Collective(op, algorithm, members.name, members.ranks, root, same, x.dtype, reduction, numbers)
        call = self.machine.settled(asked)
        return self.engine.ask(call, partial(self._carry_out, call, x, result))

    async def _carry_out(self, call: Collective, x: Array, result: tuple[int, ...] | None, goes_on: bool) -> Any:
        """Run the schedule of a call on this chip's data, if there are any.

        What is on its way, or kept by others when this chip goes on, is a copy of what the program has given.
        """
        if not self.real:
            return None if result is None else ShapeArray(result, x.dtype)
        schedule = self.machine.schedule(call.op, call.algorithm, call.ranks, call.detail)
        count = self._calls[call.group] = self._calls.get(call.group, 0) + 1
        place = call.ranks.index(self.rank)
        flat = x.reshape(-1)
        tag, add = f"{call.group}#{count} {call.op}", REDUCTIONS[call.reduction]
        steps = joint_steps(schedule) if len(call.ranks) > 1 and self.host.holds(call.ranks) else None
        output = begin_output(schedule, place, call.detail, flat)
        ends_here = steps is not None and output is not None and not goes_on
        chunks = split(schedule, place, call.detail, flat if ends_here else flat.copy())
        if steps is None or not await self._meet(call, steps, f"{tag} together", (chunks, output)):
            if ends_here:
                chunks = split(schedule, place, call.detail, flat.copy())
            await execute(schedule, place, chunks, GroupPort(self.host, self.mailbox, call.ranks, tag), add, output)
        if result is None:
            return None
        if output is not None:
            return output.values.reshape(result)
        if not ends_with_something(schedule, place, call.detail):
            return np.zeros(result, x.dtype)
        return join(schedule, place, call.detail, chunks).reshape(result)

    async def _meet(self, call: Collective, steps: Sequence[JointStep], tag: str, part: tuple[Any, Any]) -> bool:
        """Carry out a call with all its members, who live here; return False if they do not all come."""
        carry_out = partial(execute_together, steps, add=REDUCTIONS[call.reduction])
        meet = partial(self.host.meet, self.rank, call.ranks, (tag, call), tag, part, carry_out)
        self.host.hand_over(self.rank, meet)
        together: bool = await self.mailbox.take((self.rank, tag))
        return together


assert set(OPERATIONS) <= set(dir(SimChip)), "every operation is a method of the chip"
