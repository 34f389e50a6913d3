"""What a bench puts into a collective and what must come out, worked out without any collective.

Inputs are small whole numbers that tell ranks and places apart, chosen so that every partial sum is a number of the
format: then no order of additions rounds, and `wrong` is 0 for a right result in any format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from typing import Any

import ml_dtypes
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from collectives import OPERATIONS, REDUCTIONS, Detail, Table, cut

Values = NDArray[Any]
PERIOD = 251

NUMBER_FORMATS: Mapping[str, np.dtype[Any]] = {
    "fp64": np.dtype(np.float64),
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp8_e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "fp8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "int32": np.dtype(np.int32),
    "int8": np.dtype(np.int8),
}
"""Formats of a bench's elements, by the names of the field."""


def whole_numbers(dtype: np.dtype[Any]) -> int:
    """Return up to which number a format has all whole numbers.

    >>> [whole_numbers(NUMBER_FORMATS[name]) for name in ("fp32", "bf16", "fp8_e5m2", "int8")]
    [16777216, 256, 8, 127]
    """
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).max)
    nmant: int = ml_dtypes.finfo(dtype).nmant
    return 1 << int(nmant) + 1


@frozen
class Case:
    """One operation on a buffer of `n_elements` (as nccl-tests count them) among `n` ranks."""

    op: str
    n: int
    n_elements: int
    dtype: str = "fp32"
    reduction: str = "sum"

    @property
    def format(self) -> np.dtype[Any]:
        """The numpy type of the elements."""
        return NUMBER_FORMATS[self.dtype]

    @property
    def n_input(self) -> int:
        """Elements of a rank's input."""
        return self.n_elements // self.n if OPERATIONS[self.op].gives == "part" and self.op != "permute" else (
            self.n_elements
        )  # fmt: skip

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the operation takes besides its input."""
        return (self.detail,) if OPERATIONS[self.op].detail in {"pairs", "rows"} else ()

    @property
    def more(self) -> dict[str, str]:
        """What the operation takes by name."""
        return {"reduction": self.reduction} if OPERATIONS[self.op].reduces else {}

    @property
    def detail(self) -> Detail:
        """What the operation's algorithms must know besides the group."""
        if self.op == "permute":
            return self.pairs
        return self.rows if self.op == "all_to_all_v" else 0

    def input(self, rank: int) -> Values:
        """Return what a rank puts in."""
        return self.pattern(rank, self.n_input)

    def expected(self, rank: int) -> Values | None:
        """Return what a rank must end with."""
        return EXPECTED[self.op](self, rank)

    @property
    def pairs(self) -> Table:
        """The pairs of a permute: every rank to the next, and the last to the first."""
        return tuple((rank, (rank + 1) % self.n) for rank in range(self.n))

    @property
    def rows(self) -> Table:
        """The rows of an all_to_all_v: half more or less than even, and as many to as from each rank."""
        n, m = self.n, self.n_elements // self.n
        swing = [0 if n % 2 and k == 0 else m // 2 * (-1) ** k for k in range(n)]
        return tuple(tuple(m + swing[(i + j) % n] for j in range(n)) for i in range(n))

    @cached_property
    def _top(self) -> tuple[int, int]:
        """(how many ranks are not zero at a place, the largest value): their product is a number of the format."""
        room = whole_numbers(self.format)
        if self.n * PERIOD <= room:
            return self.n, PERIOD
        many = min(self.n, max(2, room // 16))
        return many, room // many

    def pattern(self, rank: int, count: int, begin: int = 0) -> Values:
        """Return so many of a rank's numbers, from the place `begin` on."""
        many, top = self._top
        period = PERIOD if many == self.n else np.lcm(self.n, PERIOD)
        place = begin + np.arange(min(period, count))
        values = (place * 7 + rank * 13) % PERIOD % top + (many < self.n)
        values = np.where((place + rank) % self.n < many, values, 0)
        return np.resize(values.astype(self.format), count)


@lru_cache(maxsize=1)  # the same for all ranks
def _reduced(case: Case) -> Values:
    total = case.pattern(0, case.n_elements).astype(np.float64)
    for rank in range(1, case.n):
        total = REDUCTIONS[case.reduction](total, case.pattern(rank, case.n_elements).astype(np.float64))
    return total.astype(case.format)


@lru_cache(maxsize=1)
def _all(case: Case) -> Values:
    return np.concatenate([case.pattern(rank, case.n_input) for rank in range(case.n)])


def _own_rows(case: Case, rank: int) -> Values:
    sizes = cut(case.n_elements, case.n)
    begin = sum(sizes[:rank])
    return _reduced(case)[begin : begin + sizes[rank]]


def _received(case: Case, rank: int) -> Values:
    m = case.n_elements // case.n
    return np.concatenate([case.pattern(src, m, rank * m) for src in range(case.n)])


def _received_rows(case: Case, rank: int) -> Values:
    rows = case.rows
    return np.concatenate([case.pattern(src, rows[src][rank], sum(rows[src][:rank])) for src in range(case.n)])


def _own_part(case: Case, rank: int) -> Values:
    m = case.n_elements // case.n
    return case.pattern(0, m, rank * m)


EXPECTED: Mapping[str, Callable[[Case, int], Values | None]] = {
    "all_gather": lambda case, _rank: _all(case),
    "reduce_scatter": _own_rows,
    "all_reduce": lambda case, _rank: _reduced(case),
    "all_to_all": _received,
    "all_to_all_v": _received_rows,
    "broadcast": lambda case, _rank: case.pattern(0, case.n_elements),
    "reduce": lambda case, rank: _reduced(case) if rank == 0 else None,
    "gather": lambda case, rank: _all(case) if rank == 0 else None,
    "scatter": _own_part,
    "permute": lambda case, rank: case.pattern((rank - 1) % case.n, case.n_elements),
    "barrier": lambda _case, _rank: None,
}
"""Per operation: what a rank must end with."""
