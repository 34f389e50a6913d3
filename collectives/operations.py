"""What each collective operation means: who holds which chunks before and after, and how arrays become chunks.

With n ranks and k pieces a part (an algorithm may cut finer than one chunk a rank):

    operation        chunks       rank r starts with         rank r ends with
    all_gather       n·k          its part r                 every part
    reduce_scatter   n·k          its own version of all     part r, summed over the ranks
    all_reduce       any          its own version of all     all, summed over the ranks
    all_to_all       n·n·k        parts (r, *)               parts (*, r)
    broadcast        any          all, if it is the root     all of the root

Sizes and bus bandwidth mean what nccl-tests mean (NVIDIA/nccl-tests, doc/PERFORMANCE.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from attrs import frozen

Holds = Callable[[int, int, int, int, int], bool]
"""(n_ranks, n_chunks, root, rank, chunk) -> does the rank hold the chunk?"""


def _every(_n: int, _n_chunks: int, _root: int, _rank: int, _chunk: int) -> bool:
    return True


def _own_part(n: int, n_chunks: int, _root: int, rank: int, chunk: int) -> bool:
    return chunk * n // n_chunks == rank


def _root_only(_n: int, _n_chunks: int, root: int, rank: int, _chunk: int) -> bool:
    return rank == root


def _from_rank(n: int, n_chunks: int, _root: int, rank: int, chunk: int) -> bool:
    return chunk * n * n // n_chunks // n == rank


def _to_rank(n: int, n_chunks: int, _root: int, rank: int, chunk: int) -> bool:
    return chunk * n * n // n_chunks % n == rank


@frozen
class Operation:
    """A collective operation.

    starts, ends: who holds which chunks before and after.
    reduces: the chunks that a rank ends with are sums over all ranks.
    parts: how the buffer that `size_bytes` speaks of falls into parts; chunks are equal pieces of the parts.
    busbw_factor: bus bandwidth = algorithm bandwidth x this, a function of the number of ranks.
    """

    name: str
    starts: Holds
    ends: Holds
    reduces: bool
    parts: Literal["ranks", "pairs", "one"]
    busbw_factor: Callable[[int], float]

    def n_parts(self, n_ranks: int) -> int:
        """Return the number of parts; an algorithm's chunks are a multiple of it."""
        return {"ranks": n_ranks, "pairs": n_ranks * n_ranks, "one": 1}[self.parts]


def _share(n: int) -> float:
    return (n - 1) / n


OPERATIONS: Mapping[str, Operation] = {
    op.name: op
    for op in (
        Operation("all_gather", _own_part, _every, reduces=False, parts="ranks", busbw_factor=_share),
        Operation("reduce_scatter", _every, _own_part, reduces=True, parts="ranks", busbw_factor=_share),
        Operation("all_reduce", _every, _every, reduces=True, parts="one", busbw_factor=lambda n: 2 * _share(n)),
        Operation("all_to_all", _from_rank, _to_rank, reduces=False, parts="pairs", busbw_factor=_share),
        Operation("broadcast", _root_only, _every, reduces=False, parts="one", busbw_factor=lambda _n: 1.0),
    )
}


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
    return [size for part in part_sizes for size in cut(part, pieces)]
