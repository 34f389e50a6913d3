"""What a chip's program did, as a list of small numbers: the border between the data plane and the time plane.

Every operation leaves one record. Equal records share one number (an index into a `RecordTable`), so the trace of a
chip is an array of integers, cheap to keep, to send and to compare.
"""

from __future__ import annotations

import math
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from collectives import OPERATIONS, Detail, Table


class Compute(NamedTuple):
    """A kernel ran for `duration_ps`, bound by the matrix unit and vectors, or by memory; or the chip was stopped.

    flops: floating-point operations in `dtype`, padded to the chip's tile.  moved_bytes: to and from every memory tier.
    """

    name: str
    duration_ps: int
    bound: Literal["compute", "memory", "pause"]
    flops: int = 0
    dtype: str = ""
    moved_bytes: tuple[int, ...] = ()


class Collective(NamedTuple):
    """The chips `ranks` took part in a collective, each with an input of this shape and dtype.

    All that the members must agree on is here: the time plane refuses calls that differ.
    """

    op: str
    algorithm: str
    group: str
    ranks: tuple[int, ...]
    root: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    reduction: str = "sum"
    table: Table = ()
    """The pairs of a permute; the rows of an all_to_all_v, whose shape is that of one row."""

    @property
    def n_elements(self) -> int:
        """Number of elements of a rank's input; of a row, in an all_to_all_v."""
        return math.prod(self.shape)

    @property
    def detail(self) -> Detail:
        """What the algorithm must know besides the group."""
        return self.table if OPERATIONS[self.op].detail in {"pairs", "rows"} else self.root


class Send(NamedTuple):
    """The chip sent a message to `dst`."""

    dst: int
    tag: str
    size_bytes: int


class Receive(NamedTuple):
    """The chip waited for the next message of `src` under this tag."""

    src: int
    tag: str


class Mark(NamedTuple):
    """The program handed a value to the driver at this moment; takes no time."""

    name: str
    step: int


Communication = Collective | Send | Receive


class Start(NamedTuple):
    """The chip started an operation and went on."""

    operation: Communication


class Await(NamedTuple):
    """The chip waited for the end of an operation that it had started, `back` starts before its last one."""

    operation: Communication
    back: int


Record = Compute | Collective | Send | Receive | Mark | Start | Await
KINDS: tuple[type[Record], ...] = (Compute, Collective, Send, Receive, Mark, Start, Await)


@define
class RecordTable:
    """Numbers for records, in the order of their first appearance."""

    records: list[Record] = field(factory=list)
    _numbers: dict[Record, int] = field(factory=dict, repr=False)
    _adding: Lock = field(factory=Lock, repr=False)

    def number(self, record: Record) -> int:
        """Return the record's number; equal records of different kinds do not meet, as their fields differ."""
        found = self._numbers.get(record)
        if found is None:
            with self._adding:  # chips of one host may run in several threads
                if record not in self._numbers:
                    self.records.append(record)
                    self._numbers[record] = len(self.records) - 1
                found = self._numbers[record]
        return found


@frozen(eq=False)
class Trace:
    """What one chip did, in order: numbers of records in a table.

    layers [k, 2]: from the operation at place layers[i, 0] on, the program was in layer layers[i, 1], -1 for none.
    """

    rank: int
    numbers: NDArray[np.int32]
    layers: NDArray[np.int32] = field(factory=lambda: np.zeros((0, 2), np.int32))


def merge(parts: list[tuple[list[Record], list[Trace]]]) -> tuple[list[Record], list[Trace]]:
    """Return one table and the traces in the order of the ranks, from the tables and traces of several hosts.

    The numbering depends on the chips' programs alone, not on which host ran which chip.
    """
    tagged = sorted(((t, records) for records, traces in parts for t in traces), key=lambda x: x[0].rank)
    table = RecordTable()
    traces = []
    for trace, records in tagged:
        used, places = np.unique(trace.numbers, return_index=True)
        mapping = np.zeros(len(records), np.int32)
        for number in used[np.argsort(places)]:
            mapping[number] = table.number(records[number])
        traces.append(Trace(trace.rank, mapping[trace.numbers], trace.layers))
    return table.records, traces
