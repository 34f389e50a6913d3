"""What a program may ask of a chip, and the shape of what a collective gives: the same with data and without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import index
from typing import Any

import ml_dtypes
import numpy as np

from collectives import OPERATIONS, REDUCTIONS, Rows, Table, cut
from configs.dtypes import DTYPES
from configs.errors import ProgramError
from workloads.array import ShapeArray

Shape = tuple[int, ...]
MAX_PAUSE_PS = 1 << 60
"""Thirteen days; the times of a run must fit into 64 bits."""


def refuse_no_numbers(what: str, x: Any) -> None:
    """Raise ProgramError unless `x` is an array of numbers that chips can exchange."""
    if not isinstance(x, np.ndarray | np.generic | ShapeArray):
        raise ProgramError(f"{what} of {x!r:.60}; accepted: a numpy array")
    if not _is_number_format(x.dtype):
        raise ProgramError(f"{what} of an array of {x.dtype}; accepted: numbers")


@lru_cache(maxsize=64)
def _is_number_format(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biufc" or (dtype.names is None and hasattr(ml_dtypes, dtype.name))


def refuse_pause(name: str, duration_ps: Any) -> None:
    """Raise ProgramError unless a pause can last so long."""
    if not isinstance(duration_ps, int | np.integer) or not 0 <= duration_ps <= MAX_PAUSE_PS:
        raise ProgramError(f"pause {name!r} of {duration_ps!r} ps; accepted: a whole number from 0 to {MAX_PAUSE_PS}")


def refuse_tensor(name: str, shape: Sequence[Any], dtype: str, values: Any) -> None:
    """Raise ProgramError unless a tensor can have this shape, number format and values."""
    if dtype not in DTYPES:
        raise ProgramError(f"tensor {name!r} of {dtype!r}; accepted: {', '.join(DTYPES)}")
    if not all(isinstance(n, int | np.integer) and n >= 0 for n in shape):
        raise ProgramError(f"tensor {name!r} of shape {tuple(shape)}; accepted: whole numbers, none below 0")
    if values is not None and np.shape(values) != tuple(shape):
        raise ProgramError(f"tensor {name!r} of shape {tuple(shape)} is given values of shape {np.shape(values)}")


def table_of(rows: Iterable[Sequence[int]]) -> Rows:
    """Return pairs or rows as plain numbers; raise ProgramError for anything else."""
    if isinstance(rows, Rows):
        return rows
    try:
        table = Rows(tuple(index(value) for value in row) for row in rows)
    except (TypeError, ValueError):
        raise ProgramError(f"{rows!r:.80} is no table of whole numbers") from None
    return table


def refuse_misuse(op: str, n: int, place: int, shape: Shape, root: int, reduction: str, table: Rows) -> None:
    """Raise ProgramError unless a call among `n` chips, by the one at `place`, can be right."""
    if reduction not in REDUCTIONS:
        raise ProgramError(f"{op} with reduction {reduction!r}; accepted: {', '.join(REDUCTIONS)}")
    if not 0 <= root < n:
        way = "to" if op in {"reduce", "gather"} else "from"
        raise ProgramError(f"{op} {way} root {root} of a group of {n} chips")
    if not shape and op in ROWS_OF_RESULT:
        raise ProgramError(f"{op} of a single number; accepted: an array with rows")
    rows, rest = (shape[0], shape[1:]) if shape else (1, ())
    if op == "all_to_all" and rows % n:
        raise ProgramError(f"all_to_all of {rows} rows among {n} chips is uneven")
    if op in {"reduce_scatter", "scatter"} and rows % n and rest and 0 not in shape and set(rest) != {1}:
        raise ProgramError(f"{op} of {rows} rows of {rest} among {n} chips is uneven")
    if OPERATIONS[op].detail == "pairs":
        _refuse_pairs(n, table)
    if OPERATIONS[op].detail == "rows":
        _refuse_rows(n, place, rows, table)


def _refuse_pairs(n: int, pairs: Table) -> None:
    if any(len(pair) != 2 or not all(0 <= place < n for place in pair) for pair in pairs):
        raise ProgramError(f"permute of {pairs}; accepted: pairs of places in a group of {n} chips")
    for name, places in (("source", [pair[0] for pair in pairs]), ("destination", [pair[1] for pair in pairs])):
        twice = [place for place in places if places.count(place) > 1]
        if twice:
            raise ProgramError(f"permute of {pairs}: {name} {twice[0]} is there twice")


def _refuse_rows(n: int, place: int, n_rows: int, table: Rows) -> None:
    if len(table) != n or not table.is_square:
        raise ProgramError(f"all_to_all_v of rows {table}; accepted: {n} times {n} numbers of rows")
    if table.sent[place] != n_rows:
        raise ProgramError(f"all_to_all_v sends {table[place]} rows and was given {n_rows}")


ROWS_OF_RESULT: dict[str, Callable[[int, int, int, Rows], int]] = {
    # (number of chips, place, rows of the input, table) -> rows of the result
    "all_gather": lambda n, _place, rows, _table: rows * n,
    "gather": lambda n, _place, rows, _table: rows * n,
    "reduce_scatter": lambda n, place, rows, _table: cut(rows, n)[place],
    "scatter": lambda n, place, rows, _table: cut(rows, n)[place],
    "all_to_all": lambda _n, _place, rows, _table: rows,
    "all_to_all_v": lambda _n, place, _rows, table: table.transposed.sent[place],
}
"""Operations whose result has other rows than the input, or is put together from rows."""


def result_shape(op: str, n: int, place: int, shape: Shape, root: int, table: Rows) -> Shape | None:
    """Return the shape of the result; None for a chip that gets none."""
    if op == "barrier" or (op in {"reduce", "gather"} and place != root):
        return None
    if op not in ROWS_OF_RESULT:
        return shape
    return ROWS_OF_RESULT[op](n, place, shape[0], table), *shape[1:]
