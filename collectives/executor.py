"""Run one rank's part of a schedule on real buffers."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from collectives.operations import OPERATIONS, Detail, chunk_sizes, input_parts
from collectives.schedule import RankStep, Schedule

Add = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]


class Port(Protocol):
    """A rank's connection to the other ranks of its group; messages between two nodes keep their order."""

    def post(self, src: int, dst: int, chunks: list[NDArray[Any]]) -> None:
        """Send chunks from a node that lives here to a node without waiting; the arrays must not change afterwards."""

    def take(self, src: int, dst: int, *, last: bool) -> Awaitable[list[NDArray[Any]]]:
        """Return the next message from a node to one that lives here; `last`: there is nothing to do after it."""


async def execute(
    schedule: Schedule, rank: int, chunks: list[NDArray[Any] | None], port: Port, add: Add = np.add
) -> None:
    """Carry out the rank's steps; `chunks[c]` is what the rank holds of chunk c and is replaced as it changes.

    The schedule's helpers live with the first rank. `add` joins two values (a sum, by default). What is added up in
    one step is added in the order of the ranks, the own value among them: so the result does not depend on arrival,
    and ranks that add the same values get the same bits.
    """
    held = {rank: chunks}
    final = schedule.plans[rank][-1] if schedule.plans[rank] else None
    for together in schedule.work(rank):
        for node, step in together:
            own = held.setdefault(node, [None] * schedule.n_cells) if node != rank else chunks
            for dst, ids in step.sends:
                port.post(node, dst, [own[c] for c in ids])  # type: ignore[misc]  # the checker proves that they are held
        for node, step in together:
            last = step is final and node == rank
            messages = []
            for src, _, _ in step.receives:
                messages.append(await port.take(src, node, last=last))
            _take_in(step, node, held[node], messages, add)


def _take_in(
    step: RankStep, node: int, chunks: list[NDArray[Any] | None], messages: Sequence[list[NDArray[Any]]], add: Add
) -> None:
    """Take in what a node received in a step, one message from each source, and carry out its local operations."""
    terms: dict[int, list[tuple[int, NDArray[Any]]]] = {}
    for (src, ids, reduce), message in zip(step.receives, messages, strict=True):
        for c, values in zip(ids, message, strict=True):
            if not reduce:
                chunks[c] = values
                continue
            own = chunks[c]
            if len(messages) > 1 or own is None:  # a helper holds nothing at first
                terms.setdefault(c, [(node, own)] if own is not None else []).append((src, values))
            else:  # the same as below for two terms; rings do nothing else
                chunks[c] = add(own, values) if node < src else add(values, own)
    for c, values_of in terms.items():
        values_of.sort(key=itemgetter(0))
        chunks[c] = functools.reduce(add, (values for _, values in values_of))
    for c, to, reduce in step.local:
        values = _held(chunks, c)
        chunks[to] = add(_held(chunks, to), values) if reduce else values


def _held(chunks: Sequence[NDArray[Any] | None], chunk: int) -> NDArray[Any]:
    values = chunks[chunk]
    assert values is not None, "the checker proves that only held chunks are sent"
    return values


def split(schedule: Schedule, rank: int, detail: Detail, x: NDArray[Any]) -> list[NDArray[Any] | None]:
    """Return the chunks that a rank starts with, from its flat input (see `collectives.operations`)."""
    chunks: list[NDArray[Any] | None] = [None] * schedule.n_cells
    for chunk, begin, end in _slices(schedule, rank, detail, x.size):
        chunks[chunk] = x[begin:end]
    return chunks


def join(schedule: Schedule, rank: int, detail: Detail, chunks: Sequence[NDArray[Any] | None]) -> NDArray[Any]:
    """Return the rank's flat output: a new array of the chunks it ends with (at least one), in order."""
    return np.concatenate([_held(chunks, c) for c in _output(schedule, rank, detail)])


@lru_cache(maxsize=4096)
def _slices(schedule: Schedule, rank: int, detail: Detail, n_elements: int) -> list[tuple[int, int, int]]:
    """Return (chunk, begin, end) in the rank's input for every chunk it starts with."""
    operation, n, k = OPERATIONS[schedule.op], schedule.n_ranks, schedule.n_chunks
    mine = [c for c in range(k) if operation.starts(n, k, detail, rank, c)]
    if not mine:
        return []
    sizes = chunk_sizes(input_parts(schedule.op, n, k, n_elements, rank, detail), len(mine))
    ends = list(accumulate(sizes))
    return [(c, end - size, end) for c, size, end in zip(mine, sizes, ends, strict=True)]


def ends_with_something(schedule: Schedule, rank: int, detail: Detail) -> bool:
    """Return whether the operation leaves the rank with any chunk."""
    return bool(_output(schedule, rank, detail))


@lru_cache(maxsize=4096)
def _output(schedule: Schedule, rank: int, detail: Detail) -> list[int]:
    """Return the chunks that the rank ends with."""
    operation, n, k = OPERATIONS[schedule.op], schedule.n_ranks, schedule.n_chunks
    return [c for c in range(k) if operation.ends(n, k, detail, rank, c)]
