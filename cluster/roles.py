"""Run one chip of every role, and derive from its trace those of the chips that do the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import define, field

from cluster.backends.base import Outcome, Program, Setting, run_host
from cluster.chip import Emit
from cluster.host import Host
from cluster.records import Await, Collective, Communication, Receive, RecordTable, Send, Start, Trace
from cluster.selection import Choose
from configs.algorithm_names import AUTO
from configs.errors import ProgramError
from topology import chips_of
from workloads.chip import Group
from workloads.roles import Roles


def run_representatives(
    setting: Setting, program: Program, args: Sequence[Any], emit: Emit, choose: Choose, roles: Roles
) -> Outcome:
    """Run the program without values on one chip of every role; return what all chips bring back.

    Where the system has chips of several kinds, every chip runs. Raises ProgramError if the roles do not fit together.
    """
    ranks = range(setting.n_chips)
    members: dict[int, list[int]] = defaultdict(list)
    chips = chips_of(setting.system, setting.topology)[: len(ranks)]
    kinds = {chip.name for chip in chips}
    for rank in ranks:
        members[roles.representative(rank) if len(kinds) == 1 else rank].append(rank)

    def emit_all(rank: int, name: str, value: Any, index: int) -> None:
        for member in members[rank]:
            emit(member, name, value, index)

    outcome = run_host(setting, list(members), Host(), program, args, emit_all, choose)
    places = _Places(roles, setting, choose, RecordTable())
    for record in outcome.records:
        places.table.number(record)
    traces = [trace for one in outcome.traces for trace in places.derive(one, members[one.rank])]
    return Outcome(
        _spread(outcome.values, members), places.table.records, traces, _spread(outcome.memory_bytes, members)
    )


def _spread(values: Any, members: dict[int, list[int]]) -> dict[int, Any]:
    return {rank: values[one] for one, ranks in members.items() for rank in ranks}


@define(eq=False)
class _Places:
    """Puts the groups and peers of a chip in the place of those of its representative."""

    roles: Roles
    setting: Setting
    choose: Choose
    table: RecordTable
    _moved: dict[tuple[int, Group], Collective] = field(factory=dict)
    """A collective (its number) as it is called in another group."""

    def derive(self, trace: Trace, ranks: Sequence[int]) -> list[Trace]:
        """Return the traces of the chips that do the same as one that has run."""
        used = np.flatnonzero(np.bincount(trace.numbers, minlength=1)).tolist()
        tied = [number for number in used if isinstance(self.table.records[number], Communication | Start | Await)]
        swap = np.arange(max(used, default=0) + 1, dtype=np.int32)
        traces = []
        for rank in ranks:
            if rank == trace.rank:
                traces.append(trace)
                continue
            for number in tied:
                swap[number] = self._number(number, rank)
            traces.append(Trace(rank, swap[trace.numbers], trace.layers))
        return traces

    def _number(self, number: int, rank: int) -> int:
        """Return the number of a representative's record as `rank` leaves it."""
        record = self.table.records[number]
        if isinstance(record, Start | Await):
            inner = self.table.number(record.operation)
            return self.table.number(record._replace(operation=self._communication(inner, rank)))
        return self.table.number(self._communication(number, rank))

    def _communication(self, number: int, rank: int) -> Communication:
        record = self.table.records[number]
        match record:
            case Send(dst=dst):
                return record._replace(dst=self.roles.peer(dst, rank))
            case Receive(src=src):
                return record._replace(src=self.roles.peer(src, rank))
            case Collective():
                return self._collective(number, record, rank)
        raise AssertionError(f"{record} communicates with nobody")

    def _collective(self, number: int, record: Collective, rank: int) -> Collective:
        group = self.roles.group(Group(record.group, record.ranks), rank)
        if group.ranks == record.ranks:
            return record
        moved = self._moved.get((number, group))
        if moved is None:
            if rank not in group.ranks or len(group) != len(record.ranks):
                given = f"{group.name!r} {group.ranks}, which takes the place of {record.group!r} {record.ranks}"
                raise ProgramError(f"chip {rank} is no member of {given} for its role")
            moved = record._replace(group=group.name, ranks=group.ranks)
            if self.setting.algorithms.get(record.op, AUTO) == AUTO:
                moved = moved._replace(algorithm=self.choose(moved._replace(algorithm=AUTO)))
            self._moved[number, group] = moved
        return moved
