"""The one schedule type: who sends which chunks to whom, in which step.

A collective works on numbered chunks. Rank r's step s begins when everything that r sends and receives in its earlier
steps is over; all transfers of one step run at the same time. The same object is proven by the checker, executed on
real buffers by the chips, and expanded into timed transfers for the timeline.

A rank may hold several versions of a chunk (partial sums on their way): with `n_slots` slots, cell k·n_chunks + c is
slot k of chunk c, and what is said of chunks holds for cells. Data starts and ends in slot 0. A message lands in the
cells that it was sent from; local operations move and add between the slots of a chunk, and take no time.

Switches that add and multicast take part as helpers: nodes beside the ranks, with cells of their own that hold nothing
at first. What is added to nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np
from attrs import evolve, field, frozen
from numpy.typing import NDArray


class Transfer(NamedTuple):
    """One message: in `step`, `src` sends `chunks` to `dst`, which adds them to its own if `reduce`, or keeps them."""

    step: int
    src: int
    dst: int
    chunks: tuple[int, ...]
    reduce: bool = False


class Local(NamedTuple):
    """After `step` (-1: before all), `rank` copies the cell `src` to the cell `dst`, or adds it there if `reduce`."""

    step: int
    rank: int
    src: int
    dst: int
    reduce: bool = False


class RankStep(NamedTuple):
    """What a node does in a step: send (dst, chunks), take (src, chunks, reduce), then local (src, dst, reduce)."""

    sends: tuple[tuple[int, tuple[int, ...]], ...]
    receives: tuple[tuple[int, tuple[int, ...], bool], ...]
    local: tuple[tuple[int, int, bool], ...] = ()
    number: int = -1


@frozen(eq=False)
class Transfers(Sequence[Transfer]):
    """The transfers of a schedule as columns, so that millions of them take little room; reads like a tuple.

    The chunks of transfer i are `chunks[chunk_start[i]:chunk_end[i]]`: transfers of the same chunks share their list.
    """

    step: NDArray[np.int32]
    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    chunk_start: NDArray[np.int64]
    chunk_end: NDArray[np.int64]
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
        return cls(
            _ints(step), _ints(src), _ints(dst), start[:-1], start[1:], _ints(flat), np.array(reduce, np.bool_)
        )  # fmt: skip

    @classmethod
    def single(cls, step: Any, src: Any, dst: Any, chunk: Any, *, reduce: Any = False) -> Transfers:
        """Return transfers of one chunk each, from columns that are broadcast to one length and ordered by step."""
        step, src, dst, chunk, reduce = np.broadcast_arrays(step, src, dst, chunk, reduce)
        first = np.arange(chunk.size).reshape(chunk.shape)
        return cls.runs(step, src, dst, first, 1, pool=chunk.reshape(-1), reduce=reduce)

    @classmethod
    def runs(
        cls, step: Any, src: Any, dst: Any, first: Any, length: Any, *, pool: NDArray[Any], reduce: Any = False
    ) -> Transfers:
        """Return transfers of the chunks `pool[first:first + length]`; the columns are broadcast and ordered by step.

        Transfers without chunks are left out.
        """
        columns = [c.reshape(-1) for c in np.broadcast_arrays(step, src, dst, first, length, reduce)]
        order = np.argsort(columns[0], kind="stable")
        order = order[columns[4][order] > 0]
        steps, srcs, dsts, firsts, lengths, reduces = (column[order] for column in columns)
        ends = firsts.astype(np.int64) + lengths
        step, src, dst, chunks = (c.astype(np.int32) for c in (steps, srcs, dsts, pool))
        return cls(step, src, dst, firsts.astype(np.int64), ends, chunks, reduces.astype(np.bool_))

    @classmethod
    def join(cls, parts: Sequence[Transfers]) -> Transfers:
        """Return the transfers of all parts in the order of their steps, within a step part by part."""
        parts = [part for part in parts if len(part)] or [cls.of(())]
        offsets = np.cumsum([0, *(len(part.chunks) for part in parts)])
        starts = [part.chunk_start + offset for part, offset in zip(parts, offsets, strict=False)]
        ends = [part.chunk_end + offset for part, offset in zip(parts, offsets, strict=False)]
        step = np.concatenate([part.step for part in parts])
        order = np.argsort(step, kind="stable")
        return cls(
            step[order],
            np.concatenate([part.src for part in parts])[order],
            np.concatenate([part.dst for part in parts])[order],
            np.concatenate(starts)[order],
            np.concatenate(ends)[order],
            np.concatenate([part.chunks for part in parts]),
            np.concatenate([part.reduce for part in parts])[order],
        )

    @property
    def n_steps(self) -> int:
        """Number of steps, those without a transfer included."""
        return 1 + int(self.step.max(initial=-1))

    def delayed(self, steps: int) -> Transfers:
        """Return the same transfers so many steps later."""
        return evolve(self, step=self.step + np.int32(steps))

    def then(self, later: Transfers) -> Transfers:
        """Return these transfers and, in the steps after them, the later ones."""
        return Transfers.join([self, later.delayed(self.n_steps)])

    def reversed(self, *, reduce: bool = True) -> Transfers:
        """Return the transfers backwards in time and direction, as sums: a gather becomes a reduce-scatter.

        Right for schedules in which no rank receives a chunk twice: then every chunk's way out is a tree. Without
        `reduce` chunks are kept as they are: a scatter becomes a gather.
        """
        last = np.int32(self.n_steps - 1)
        kinds = np.full(len(self), reduce, np.bool_)
        backwards = evolve(self, step=last - self.step, src=self.dst, dst=self.src, reduce=kinds)
        return Transfers.join([backwards])

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
        ids = tuple(self.chunks[self.chunk_start[i] : self.chunk_end[i]].tolist())
        return Transfer(int(self.step[i]), int(self.src[i]), int(self.dst[i]), ids, bool(self.reduce[i]))

    def __iter__(self) -> Iterator[Transfer]:
        chunks = self.chunks.tolist()
        columns = (self.step, self.src, self.dst, self.chunk_start, self.chunk_end, self.reduce)
        for step, src, dst, start, end, reduce in zip(*(c.tolist() for c in columns), strict=True):
            yield Transfer(step, src, dst, tuple(chunks[start:end]), reduce)


def _ints(values: Iterable[int]) -> NDArray[np.int32]:
    return np.array(tuple(values), np.int32)


@frozen(eq=False)
class Uniform:
    """A schedule in which all ranks do the same: in step s, every rank sends `n_chunks` chunks to the one at `offset`.

    All chunks of a transfer are the same `piece` of their parts (chunk p·k + piece of part p, with k pieces a part).
    Ranks are the chips of a grid of these `dims`, row-major; an offset is the rank that the first chip sends to, and
    the chip at coordinates c sends to c + (the coordinates of the offset), round every axis. Ordered by step.
    """

    dims: tuple[int, ...]
    step: NDArray[np.int64]
    offset: NDArray[np.int64]
    n_chunks: NDArray[np.int64]
    piece: NDArray[np.int64]


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
    n_slots: int = 1
    local: tuple[Local, ...] = field(default=(), repr=False)
    """Local operations in the order in which a rank carries them out, ordered by step."""
    helpers: tuple[int, ...] = ()
    """Nodes of the topology (switches) that take part beside the ranks; the h-th is called n_ranks + h in transfers."""
    _work: dict[int, Sequence[Sequence[tuple[int, RankStep]]]] = field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._check_local()
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
        wrong = ((ranks < 0) | (ranks >= self.n_nodes)).any(axis=0) | (t.src == t.dst)
        if wrong.any():
            first = t[int(wrong.argmax())]
            raise ValueError(f"{self.algorithm}: transfer {first} does not join two of {self.n_ranks} ranks")
        strange = np.concatenate([[0], np.cumsum((t.chunks < 0) | (t.chunks >= self.n_cells))])
        wrong = (strange[t.chunk_end] > strange[t.chunk_start]) | (t.chunk_end <= t.chunk_start)
        if wrong.any():
            first = t[int(wrong.argmax())]
            raise ValueError(f"{self.algorithm}: transfer {first} names no chunk of 0…{self.n_cells - 1}")
        if (np.diff(t.step) < 0).any():
            raise ValueError(f"{self.algorithm}: transfers are not in the order of their steps")

    def _check_local(self) -> None:
        for before, now in zip((None, *self.local), self.local, strict=False):
            inside = 0 <= now.rank < self.n_ranks and 0 <= now.src < self.n_cells and 0 <= now.dst < self.n_cells
            if not inside or (now.src - now.dst) % self.n_chunks or now.src == now.dst:
                raise ValueError(f"{self.algorithm}: {now} does not join two slots of a chunk of a rank")
            if now.step < -1 or (before is not None and now.step < before.step):
                raise ValueError(f"{self.algorithm}: local operations are not in the order of their steps")

    @property
    def n_nodes(self) -> int:
        """Number of ranks and helpers."""
        return self.n_ranks + len(self.helpers)

    @property
    def n_cells(self) -> int:
        """Number of cells of a rank: a slot of a chunk each."""
        return self.n_chunks * self.n_slots

    @cached_property
    def n_steps(self) -> int:
        """Number of steps of the schedule."""
        return self.transfers.n_steps

    @cached_property
    def plans(self) -> tuple[tuple[RankStep, ...], ...]:
        """What every rank and helper does, step by step; steps in which it is idle are left out."""
        table: list[dict[int, tuple[list[Any], list[Any], list[Any]]]] = [{} for _ in range(self.n_nodes)]
        for step, src, dst, chunks, reduce in self.transfers:
            table[src].setdefault(step, ([], [], []))[0].append((dst, chunks))
            table[dst].setdefault(step, ([], [], []))[1].append((src, chunks, reduce))
        for step, rank, cell, to, reduce in self.local:
            table[rank].setdefault(step, ([], [], []))[2].append((cell, to, reduce))
        return tuple(tuple(_rank_step(s, *steps[s]) for s in sorted(steps)) for steps in table)

    def work(self, rank: int) -> Sequence[Sequence[tuple[int, RankStep]]]:
        """Return, step by step, what is done where a rank lives: (node, what it does), helpers with the first rank."""
        if rank not in self._work:
            nodes = [rank, *range(self.n_ranks, self.n_nodes)] if rank == 0 else [rank]
            together: dict[int, list[tuple[int, RankStep]]] = {}
            for node in nodes:
                for step in self.plans[node]:
                    together.setdefault(step.number, []).append((node, step))
            self._work[rank] = [together[number] for number in sorted(together)]
        return self._work[rank]

    def sizes(self, chunk_sizes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the size of every transfer, given the size of every chunk (elements or bytes)."""
        t = self.transfers
        cell_sizes = np.tile(np.asarray(chunk_sizes, np.int64), self.n_slots)
        before = np.concatenate([[0], np.cumsum(cell_sizes[t.chunks])])
        sizes: NDArray[np.int64] = before[t.chunk_end] - before[t.chunk_start]
        return sizes


def _rank_step(number: int, sends: list[Any], receives: list[Any], local: list[Any]) -> RankStep:
    return RankStep(tuple(sends), tuple(receives), tuple(local), number)


def by_step(transfers: Iterable[Transfer]) -> tuple[Transfer, ...]:
    """Return the transfers in the order of their steps, otherwise as given."""
    return tuple(sorted(transfers, key=lambda t: t.step))
