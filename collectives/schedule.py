"""The one schedule type: who sends which chunks to whom, in which step.

A collective works on numbered chunks. Rank r's step s begins when everything that r sends and receives in its earlier
steps is over; all transfers of one step run at the same time. The same object is proven by the checker, executed on
real buffers by the chips, and expanded into timed transfers for the timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray


class Transfer(NamedTuple):
    """One message: in `step`, `src` sends `chunks` to `dst`, which adds them to its own if `reduce`, or keeps them."""

    step: int
    src: int
    dst: int
    chunks: tuple[int, ...]
    reduce: bool = False


class RankStep(NamedTuple):
    """What one rank does in one step: send (dst, chunks), then take (src, chunks, reduce)."""

    sends: tuple[tuple[int, tuple[int, ...]], ...]
    receives: tuple[tuple[int, tuple[int, ...], bool], ...]


@frozen(eq=False)
class Transfers(Sequence[Transfer]):
    """The transfers of a schedule as columns, so that millions of them take little room; reads like a tuple.

    The chunks of transfer i are `chunks[chunk_start[i]:chunk_start[i + 1]]`.
    """

    step: NDArray[np.int32]
    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    chunk_start: NDArray[np.int64]
    chunks: NDArray[np.int32]
    reduce: NDArray[np.bool_]

    @classmethod
    def of(cls, transfers: Iterable[Transfer]) -> Transfers:
        """Return the columns of these transfers."""
        if isinstance(transfers, Transfers):
            return transfers
        rows = tuple(transfers)
        step, src, dst, chunks, reduce = zip(*rows, strict=True) if rows else ((), (), (), (), ())
        flat = [c for ids in chunks for c in ids]
        start = np.cumsum([0, *map(len, chunks)], dtype=np.int64)
        return cls(_ints(step), _ints(src), _ints(dst), start, _ints(flat), np.array(reduce, np.bool_))

    @classmethod
    def single(cls, step: Any, src: Any, dst: Any, chunk: Any, *, reduce: Any = False) -> Transfers:
        """Return transfers of one chunk each, from columns that are broadcast to one length and ordered by step."""
        columns = np.broadcast_arrays(step, src, dst, chunk, reduce)
        step, src, dst, chunk, reduce = (column.reshape(-1) for column in columns)
        order = np.argsort(step, kind="stable")
        start = np.arange(len(step) + 1, dtype=np.int64)
        ints = (column[order].astype(np.int32) for column in (step, src, dst, chunk))
        ordered_step, ordered_src, ordered_dst, ordered_chunk = ints
        return cls(ordered_step, ordered_src, ordered_dst, start, ordered_chunk, reduce[order].astype(np.bool_))

    def __len__(self) -> int:
        return len(self.step)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # equal to a tuple of transfers, which hashes otherwise

    @overload
    def __getitem__(self, index: int) -> Transfer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Transfer, ...]: ...
    def __getitem__(self, index: int | slice) -> Transfer | tuple[Transfer, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        i = range(len(self))[index]
        ids = tuple(self.chunks[self.chunk_start[i] : self.chunk_start[i + 1]].tolist())
        return Transfer(int(self.step[i]), int(self.src[i]), int(self.dst[i]), ids, bool(self.reduce[i]))

    def __iter__(self) -> Iterator[Transfer]:
        chunks, start = self.chunks.tolist(), self.chunk_start.tolist()
        rows = zip(self.step.tolist(), self.src.tolist(), self.dst.tolist(), self.reduce.tolist(), strict=True)
        for i, (step, src, dst, reduce) in enumerate(rows):
            yield Transfer(step, src, dst, tuple(chunks[start[i] : start[i + 1]]), reduce)


def _ints(values: Iterable[int]) -> NDArray[np.int32]:
    return np.array(tuple(values), np.int32)


@frozen(eq=False)
class Uniform:
    """A schedule in which all ranks do the same: in step s, every rank sends `n_chunks` chunks to the one at `offset`.

    Ranks are the chips of a grid of these `dims`, row-major; an offset is the rank that the first chip sends to, and the
    chip at coordinates c sends to c + (the coordinates of the offset), round every axis. Ordered by step.
    """

    dims: tuple[int, ...]
    step: NDArray[np.int64]
    offset: NDArray[np.int64]
    n_chunks: NDArray[np.int64]


def _no_uniform(_dims: tuple[int, ...]) -> Uniform | None:
    return None


@frozen(eq=False)
class Schedule:
    """An algorithm for `op` among `n_ranks` ranks on `n_chunks` chunks; transfers are ordered by step.

    `transfers` may be given as a function that makes them: a schedule among very many ranks can be timed without.
    uniform: dims of a grid -> the schedule as what every rank does, if that is the same for all of them there.
    Raises ValueError, when the transfers are made, if one names a rank or chunk that does not exist or a rank sends to
    itself.
    """

    op: str
    algorithm: str
    n_ranks: int
    n_chunks: int
    _transfers: Iterable[Transfer] | Callable[[], Iterable[Transfer]] = field(repr=False)
    uniform: Callable[[tuple[int, ...]], Uniform | None] = field(default=_no_uniform, repr=False)

    def __attrs_post_init__(self) -> None:
        if not callable(self._transfers):
            self.transfers  # noqa: B018  checks them

    @cached_property
    def transfers(self) -> Transfers:
        """All transfers, as columns."""
        t = Transfers.of(self._transfers() if callable(self._transfers) else self._transfers)
        self._check(t)
        return t

    def _check(self, t: Transfers) -> None:
        ranks = np.stack([t.src, t.dst])
        wrong = ((ranks < 0) | (ranks >= self.n_ranks)).any(axis=0) | (t.src == t.dst)
        if wrong.any():
            raise ValueError(f"{self.algorithm}: transfer {t[wrong.argmax()]} does not join two of {self.n_ranks} ranks")
        n_chunks = np.diff(t.chunk_start)
        strange = (t.chunks < 0) | (t.chunks >= self.n_chunks)
        if strange.any() or (n_chunks == 0).any():
            place = np.repeat(np.arange(len(t)), n_chunks)[strange]
            first = int(place[0]) if strange.any() else int((n_chunks == 0).argmax())
            raise ValueError(f"{self.algorithm}: transfer {t[first]} names no chunk of 0…{self.n_chunks - 1}")
        if (np.diff(t.step) < 0).any():
            raise ValueError(f"{self.algorithm}: transfers are not in the order of their steps")

    @cached_property
    def n_steps(self) -> int:
        """Number of steps of the schedule."""
        return 1 + int(self.transfers.step.max(initial=-1))

    @cached_property
    def plans(self) -> tuple[tuple[RankStep, ...], ...]:
        """What every rank does, step by step; steps in which a rank is idle are left out."""
        table: list[dict[int, tuple[list[tuple[int, tuple[int, ...]]], list[tuple[int, tuple[int, ...], bool]]]]]
        table = [{} for _ in range(self.n_ranks)]
        for step, src, dst, chunks, reduce in self.transfers:
            table[src].setdefault(step, ([], []))[0].append((dst, chunks))
            table[dst].setdefault(step, ([], []))[1].append((src, chunks, reduce))
        return tuple(
            tuple(RankStep(tuple(steps[s][0]), tuple(steps[s][1])) for s in sorted(steps)) for steps in table
        )

    def sizes(self, chunk_sizes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the size of every transfer, given the size of every chunk (elements or bytes)."""
        of_chunks = np.asarray(chunk_sizes, np.int64)[self.transfers.chunks]
        if len(of_chunks) == len(self.transfers):
            return of_chunks
        return np.add.reduceat(of_chunks, self.transfers.chunk_start[:-1])


def by_step(transfers: Iterable[Transfer]) -> tuple[Transfer, ...]:
    """Return the transfers in the order of their steps, otherwise as given."""
    return tuple(sorted(transfers, key=lambda t: t.step))
