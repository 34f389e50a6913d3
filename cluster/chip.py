"""The chip: it computes with numpy, exchanges messages by running schedules, and records what it did.

There is no clock and no I/O here; the host resumes the program when a message has arrived.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from cluster.cost import duration
from cluster.host import Host, Mailbox
from cluster.memory import Memory
from cluster.records import Collective, Compute, Mark, Receive, RecordTable, Send, Trace
from collectives import NO_FILES, OPERATIONS, GroupView, Schedule, build, cut, execute, join, select, split
from configs.dtypes import DTYPES
from configs.errors import ProgramError
from configs.spec import Numerics, SystemSpec
from topology import Topology
from workloads.array import Array, ShapeArray
from workloads.chip import Group, Tensor
from workloads.rounding import round_to

Emit = Callable[[int, str, Any, int], None]
"""(rank, name, value, index): hands a value to the driver."""


@define(eq=False)
class Machine:
    """What the chips of one host share: the system, the record table, and results that depend on shapes alone."""

    system: SystemSpec
    topology: Topology
    numerics: Numerics
    algorithms: Mapping[str, str]
    files: Mapping[str, Schedule] = NO_FILES
    table: RecordTable = field(factory=RecordTable)
    kernel_results: dict[Any, tuple[tuple[int, ...], Any, int]] = field(factory=dict)
    _schedules: dict[tuple[str, str, tuple[int, ...], int], Schedule] = field(factory=dict)

    def schedule(self, op: str, algorithm: str, ranks: tuple[int, ...], root: int) -> Schedule:
        """Return the schedule, built once."""
        key = (op, algorithm, ranks, root)
        if key not in self._schedules:
            self._schedules[key] = build(op, algorithm, GroupView(self.topology, ranks), root, self.files)
        return self._schedules[key]


@frozen(eq=False)
class _GroupPort:
    """A chip's connection to the other members of a group, for one collective."""

    chip: SimChip
    ranks: tuple[int, ...]
    tag: str

    def post(self, dst: int, chunks: list[NDArray[Any]]) -> None:
        self.chip.host.post(self.ranks[dst], self.chip.rank, self.tag, chunks)

    async def take(self, src: int, *, last: bool) -> list[NDArray[Any]]:
        message: list[NDArray[Any]] = await self.chip.mailbox.take((self.ranks[src], self.tag), computes=last)
        return message


@define(eq=False)
class SimChip:
    """One simulated chip; implements `workloads.chip.Chip`, where the methods are described."""

    rank: int
    n_chips: int
    machine: Machine
    host: Host
    emit_value: Emit
    mailbox: Mailbox = field(init=False)
    memory: Memory = field(init=False)
    real: bool = field(init=False)
    _numbers: list[int] = field(init=False, factory=list)
    _groups: dict[str, Group] = field(init=False, factory=dict)
    _calls: dict[str, int] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.mailbox = self.host.mailbox(self.rank)
        self.memory = Memory(self.machine.system.chip, f"chip {self.rank}")
        self.real = self.machine.numerics == "real"
        self._groups["all"] = Group("all", tuple(range(self.n_chips)))

    @property
    def trace(self) -> Trace:
        """What the chip has done so far."""
        return Trace(self.rank, np.array(self._numbers, np.int32))

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
        size_bytes = DTYPES[dtype].size_bytes(math.prod(shape))
        index = self.memory.place(name, size_bytes, tier, role)
        rounded = round_to(dtype, values) if values is not None else None
        if rounded is not None and role == "kv" and np.shares_memory(rounded, values):
            rounded = rounded.copy()  # a cache is written in place, and `values` are the caller's
        return Tensor(name, tuple(shape), dtype, index, size_bytes, rounded)

    def apply(self, kernel: Any, *operands: Any, **params: Any) -> Array:
        """Run a kernel; what it costs is worked out once per kernel and shapes."""
        shapes = [(o.shape, o.dtype, o.tier) if type(o) is Tensor else (o.shape, o.dtype) for o in operands]
        key = (kernel.name, *shapes, *params.items())
        found = self.machine.kernel_results.get(key)
        if found is None:
            found = self.machine.kernel_results[key] = self._price(kernel, operands, params)
        shape, dtype, number = found
        self._numbers.append(number)
        if self.real:
            return kernel.evaluate(*operands, **params).astype(dtype, copy=False)
        return ShapeArray(shape, dtype)

    def _price(
        self, kernel: Any, operands: tuple[Any, ...], params: dict[str, Any]
    ) -> tuple[tuple[int, ...], Any, int]:
        shape, dtype = kernel.infer(*operands, **params)
        duration_ps, bound = duration(self.machine.system.chip, kernel.work(*operands, **params))
        return shape, np.dtype(dtype), self.machine.table.number(Compute(kernel.name, duration_ps, bound))

    # --- communication ------------------------------------------------------------------------------------------

    def group(self, name: str, ranks: tuple[int, ...]) -> Group:
        """Return the group of these ranks under a name that stands for them alone on this chip."""
        if self.rank not in ranks or len(set(ranks)) != len(ranks):
            raise ProgramError(f"chip {self.rank}: group {name!r} is {ranks}; it must name this chip, and each chip once")
        known = self._groups.setdefault(name, Group(name, tuple(ranks)))
        if known.ranks != tuple(ranks):
            raise ProgramError(f"chip {self.rank}: group {name!r} was {known.ranks} and is now {tuple(ranks)}")
        return known

    async def all_reduce(self, x: Array, group: Group | None = None, axis: str | None = None) -> Array:
        """Return the sum of all members' `x`."""
        return await self._collective("all_reduce", x, tuple(x.shape), group, axis)

    async def all_gather(self, x: Array, group: Group | None = None, axis: str | None = None) -> Array:
        """Return all members' `x` concatenated along axis 0."""
        members = self._members(group, axis)
        shape = (x.shape[0] * len(members), *x.shape[1:])
        return await self._collective("all_gather", x, shape, members, None)

    async def reduce_scatter(self, x: Array, group: Group | None = None, axis: str | None = None) -> Array:
        """Return this member's part of the sum of all members' `x`."""
        members = self._members(group, axis)
        rows = cut(x.shape[0], len(members))[members.ranks.index(self.rank)]
        self._require_whole_rows("reduce_scatter", x, len(members))
        return await self._collective("reduce_scatter", x, (rows, *x.shape[1:]), members, None)

    async def all_to_all(self, x: Array, group: Group | None = None, axis: str | None = None) -> Array:
        """Send part j of `x` to member j; return the received parts in group order."""
        members = self._members(group, axis)
        if x.shape[0] % len(members):
            raise ProgramError(f"chip {self.rank}: all_to_all of {x.shape[0]} rows among {len(members)} chips is uneven")
        return await self._collective("all_to_all", x, tuple(x.shape), members, None)

    async def broadcast(
        self, x: Array, root: int = 0, group: Group | None = None, axis: str | None = None
    ) -> Array:
        """Return the `x` of the member with index `root`."""
        members = self._members(group, axis)
        if not 0 <= root < len(members):
            raise ProgramError(f"chip {self.rank}: broadcast from root {root} of a group of {len(members)} chips")
        return await self._collective("broadcast", x, tuple(x.shape), members, None, root)

    async def send(self, x: Array, dst: int, tag: str = "") -> None:
        """Send an array to a chip."""
        if dst == self.rank:
            raise ProgramError(f"chip {self.rank} sends {tag!r} to itself")
        self._numbers.append(self.machine.table.number(Send(dst, tag, x.nbytes)))
        self.host.post(dst, self.rank, tag, [x.copy()] if self.real else x)

    async def recv(self, src: int, tag: str = "") -> Array:
        """Return the next array that the chip `src` sent under this tag."""
        self._numbers.append(self.machine.table.number(Receive(src, tag)))
        message = await self.mailbox.take((src, tag))
        return message[0] if self.real else message

    def emit(self, name: str, value: Any = None, index: int = 0) -> None:
        """Hand a value to the driver."""
        self._numbers.append(self.machine.table.number(Mark(name, index)))
        kept = value.copy() if isinstance(value, np.ndarray) else value
        self.host.hand_over(self.rank, lambda: self.emit_value(self.rank, name, kept, index))

    def _members(self, group: Group | None, axis: str | None) -> Group:
        if group is not None and axis is not None:
            raise ProgramError(f"chip {self.rank}: both group {group.name!r} and axis {axis!r} are given; accepted: one")
        if group is not None:
            if self.rank not in group.ranks:
                raise ProgramError(f"chip {self.rank} is not in group {group.name!r} {group.ranks}")
            return group
        if axis is None:
            return self._groups["all"]
        return self.group(f"axis {axis}", self.machine.topology.axis_ranks(self.rank, axis))

    def _require_whole_rows(self, op: str, x: Array, n: int) -> None:
        """Parts are cut from the flat buffer; they are whole rows only if rows divide or have one element."""
        if x.shape[0] % n and x.size != x.shape[0]:
            raise ProgramError(f"chip {self.rank}: {op} of {x.shape[0]} rows of {x.shape[1:]} among {n} chips is uneven")

    async def _collective(
        self, op: str, x: Array, shape: tuple[int, ...], group: Group | None, axis: str | None, root: int = 0
    ) -> Array:
        members = self._members(group, axis)
        algorithm = select(op, self.machine.algorithms.get(op, "auto"))
        record = Collective(op, algorithm, members.name, members.ranks, root, tuple(x.shape), x.dtype)
        self._numbers.append(self.machine.table.number(record))
        if not self.real:
            return ShapeArray(shape, x.dtype)
        schedule = self.machine.schedule(op, algorithm, members.ranks, root)
        count = self._calls[members.name] = self._calls.get(members.name, 0) + 1
        place = members.ranks.index(self.rank)
        chunks = split(schedule, place, root, x.reshape(-1).copy())
        await execute(schedule, place, chunks, _GroupPort(self, members.ranks, f"{members.name}#{count} {op}"))
        return join(schedule, place, root, chunks).reshape(shape)


assert set(OPERATIONS) <= set(dir(SimChip)), "every operation is a method of the chip"
