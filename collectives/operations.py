"""What each collective operation means: who holds which chunks before and after, and how arrays become chunks.

With n ranks and k pieces a part (an algorithm may cut finer than one chunk a rank):

    operation        chunks       rank r starts with         rank r ends with
    all_gather       n·k          its part r                 every part
    reduce_scatter   n·k          its own version of all     part r, reduced over the ranks
    all_reduce       any          its own version of all     all, reduced over the ranks
    all_to_all       n·n·k        parts (r, *)               parts (*, r)
    all_to_all_v     n·n·k        parts (r, *)               parts (*, r), of different sizes
    broadcast        any          all, if it is the root     all of the root
    reduce           any          its own version of all     all, reduced over the ranks, if it is the root
    gather           n·k          its part r                 every part, if it is the root
    scatter          n·k          all, if it is the root     part r
    permute          n·k          its part r                 part s of each pair (s, r)
    barrier          n·k          its part r, of no size     every part, of no size

A buffer of any number of chunks is cut among the ranks first where these divide the chunks, as a reduce-scatter cuts
it: then the chunks of all ranks are alike as soon as the ranks divide the buffer.

Sizes and bus bandwidth mean what nccl-tests mean (NVIDIA/nccl-tests, doc/PERFORMANCE.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from attrs import frozen

Table = tuple[tuple[int, ...], ...]


class Rows(tuple[tuple[int, ...], ...]):  # noqa: SLOT001  it remembers
    """A table that remembers its hash, its transpose and its sums: one among hundreds of ranks is a key many times.

    >>> rows = Rows(((1, 2), (3, 4)))
    >>> rows.transposed, rows.sent, rows.transposed.sent, rows == ((1, 2), (3, 4))
    (((1, 3), (2, 4)), (3, 7), (4, 6), True)
    """

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (tuple(self),)

    @cached_property
    def is_square(self) -> bool:
        """Whether it has as many columns as rows, and no number is negative."""
        return all(len(row) == len(self) and min(row) >= 0 for row in self)

    @cached_property
    def sent(self) -> tuple[int, ...]:
        """What each rank sends in all."""
        return tuple(map(sum, self))

    @cached_property
    def transposed(self) -> Rows:
        """The way back."""
        return Rows(zip(*self, strict=True))


Detail = int | Table
"""What a call says besides its buffer: the root of an operation that has one (0 for others), the (source, destination)
pairs of a permute, or the rows that each rank sends to each one of an all_to_all_v."""
Holds = Callable[[int, int, Detail, int, int], bool]
"""(n_ranks, n_chunks, detail, rank, chunk) -> does the rank hold the chunk?"""
REDUCTIONS: Mapping[str, Callable[[Any, Any], Any]] = {"sum": np.add, "max": np.maximum, "min": np.minimum}
"""What the reducing operations do with two values."""


def _every(_n: int, _n_chunks: int, _detail: Detail, _rank: int, _chunk: int) -> bool:
    return True


def _own_part(n: int, n_chunks: int, _detail: Detail, rank: int, chunk: int) -> bool:
    return chunk * n // n_chunks == rank


def _root_only(_n: int, _n_chunks: int, detail: Detail, rank: int, _chunk: int) -> bool:
    return rank == detail


def _from_rank(n: int, n_chunks: int, _detail: Detail, rank: int, chunk: int) -> bool:
    return chunk * n * n // n_chunks // n == rank


def _to_rank(n: int, n_chunks: int, _detail: Detail, rank: int, chunk: int) -> bool:
    return chunk * n * n // n_chunks % n == rank


def _to_destination(n: int, n_chunks: int, detail: Detail, rank: int, chunk: int) -> bool:
    assert not isinstance(detail, int), "a permute has pairs"
    return (chunk * n // n_chunks, rank) in detail


@frozen
class Operation:
    """A collective operation.

    starts, ends: who holds which chunks before and after.
    reduces: the chunks that a rank ends with are sums over all ranks.
    parts: how the buffer that `size_bytes` speaks of falls into parts; chunks are equal pieces of the parts.
    gives: a rank's input is its part of that buffer, or the whole.
    detail: what the call says besides.
    busbw_factor: bus bandwidth = algorithm bandwidth x this, a function of the number of ranks.
    """

    name: str
    starts: Holds
    ends: Holds
    reduces: bool
    parts: Literal["ranks", "pairs", "one"]
    busbw_factor: Callable[[int], float]
    gives: Literal["part", "whole"] = "whole"
    detail: Literal["none", "root", "pairs", "rows"] = "none"

    def n_parts(self, n_ranks: int) -> int:
        """Return the number of parts; an algorithm's chunks are a multiple of it."""
        return {"ranks": n_ranks, "pairs": n_ranks * n_ranks, "one": 1}[self.parts]


def _share(n: int) -> float:
    return (n - 1) / n


def _one(_n: int) -> float:
    return 1.0


OPERATIONS: Mapping[str, Operation] = {
    op.name: op
    for op in (
        Operation("all_gather", _own_part, _every, reduces=False, parts="ranks", busbw_factor=_share, gives="part"),
        Operation("reduce_scatter", _every, _own_part, reduces=True, parts="ranks", busbw_factor=_share),
        Operation("all_reduce", _every, _every, reduces=True, parts="one", busbw_factor=lambda n: 2 * _share(n)),
        Operation("all_to_all", _from_rank, _to_rank, reduces=False, parts="pairs", busbw_factor=_share),
        Operation(
            "all_to_all_v", _from_rank, _to_rank, reduces=False, parts="pairs", busbw_factor=_share, detail="rows"
        ),
        Operation("broadcast", _root_only, _every, reduces=False, parts="one", busbw_factor=_one, detail="root"),
        Operation("reduce", _every, _root_only, reduces=True, parts="one", busbw_factor=_one, detail="root"),
        Operation(
            "gather", _own_part, _root_only, reduces=False, parts="ranks", busbw_factor=_share, gives="part",
            detail="root",
        ),
        Operation("scatter", _root_only, _own_part, reduces=False, parts="ranks", busbw_factor=_share, detail="root"),
        Operation(
            "permute", _own_part, _to_destination, reduces=False, parts="ranks", busbw_factor=_one, gives="part",
            detail="pairs",
        ),
        Operation("barrier", _own_part, _every, reduces=False, parts="ranks", busbw_factor=_one, gives="part"),
    )
}  # fmt: skip


def part_sizes(op: str, n_ranks: int, n_chunks: int, n_elements: int, detail: Detail = 0) -> list[int]:
    """Return the sizes of all parts, from the elements of a rank's input (of a row, in an all_to_all_v).

    >>> part_sizes("all_gather", 3, 3, 4), part_sizes("scatter", 3, 3, 4)
    ([4, 4, 4], [2, 1, 1])
    >>> part_sizes("all_to_all_v", 2, 4, 5, ((0, 1), (2, 3)))
    [0, 5, 10, 15]
    >>> part_sizes("all_reduce", 2, 4, 5), part_sizes("all_reduce", 2, 1, 5)
    ([3, 2], [5])
    """
    operation = OPERATIONS[op]
    if operation.detail == "rows":
        assert not isinstance(detail, int), "an all_to_all_v has rows"
        return [rows * n_elements for of_rank in detail for rows in of_rank]
    if operation.parts == "one":
        return _parts_of_one(n_ranks, n_chunks, n_elements)
    if operation.gives == "part":
        return [n_elements] * n_ranks
    return cut(n_elements, n_ranks) * (n_ranks if operation.parts == "pairs" else 1)


def _parts_of_one(n_ranks: int, n_chunks: int, n_elements: int) -> list[int]:
    return [n_elements] if n_chunks % n_ranks else cut(n_elements, n_ranks)


def input_parts(op: str, n_ranks: int, n_chunks: int, n_elements: int, rank: int = 0, detail: Detail = 0) -> list[int]:
    """Return the sizes of the parts that a rank's input of `n_elements` falls into."""
    operation = OPERATIONS[op]
    if operation.detail == "rows":
        assert not isinstance(detail, int), "an all_to_all_v has rows"
        row = n_elements // max(1, sum(detail[rank]))
        return [rows * row for rows in detail[rank]]
    if operation.parts == "one":
        return _parts_of_one(n_ranks, n_chunks, n_elements)
    return [n_elements] if operation.gives == "part" else cut(n_elements, n_ranks)


def cut(total: int, pieces: int) -> list[int]:
    """Return the sizes of `pieces` pieces of `total`, as even as possible, the larger ones first.

    >>> cut(10, 4)
    [3, 3, 2, 2]
    """
    base, more = divmod(total, pieces)
    return [base + 1] * more + [base] * (pieces - more)


def chunk_sizes(part_sizes: Sequence[int], n_chunks: int) -> list[int]:
    """Return the size of every chunk, given the size of every part.

    >>> chunk_sizes([4, 6], 4)
    [2, 2, 3, 3]
    """
    pieces = n_chunks // len(part_sizes)
    if pieces == 1:
        return list(part_sizes)
    return [size for part in part_sizes for size in cut(part, pieces)]
