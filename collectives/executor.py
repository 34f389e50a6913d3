"""Run one rank's part of a schedule on real buffers."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from collectives.operations import OPERATIONS, Detail, chunk_sizes, input_parts, part_sizes
from collectives.schedule import RankStep, Schedule

Add = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
SETTLED_BYTES = 1 << 14
"""Longer chunks go to their place in the output when they are last used, while the caches still hold them."""


class Port(Protocol):
    """A rank's connection to the other ranks of its group; messages between two nodes keep their order."""

    def post(self, src: int, dst: int, chunks: list[NDArray[Any]]) -> None:
        """Send chunks from a node that lives here to a node without waiting; the arrays must not change afterwards."""

    def ready(self, src: int, dst: int, *, last: bool) -> list[NDArray[Any]] | None:
        """Return the next message from a node to one that lives here, or None if only `take` can wait for it.

        `last`: there is nothing to do after it.
        """

    def take(self, src: int, dst: int, *, last: bool) -> Awaitable[list[NDArray[Any]]]:
        """Return the same, waiting for it."""


@frozen(eq=False)
class Output:
    """A rank's output in the making.

    values: the array.  places: where in it the chunks go that are not there yet, in order.
    grows: chunks are put there one by one, not all at the end.
    """

    values: NDArray[Any]
    places: dict[int, slice]
    grows: bool

    def settle(self, ids: Iterable[int], chunks: list[NDArray[Any] | None]) -> None:
        """Put chunks that nothing more is done with into their places, and let go of them."""
        for c in ids:
            place = self.places.pop(c, None)
            if place is not None:
                values, chunks[c] = chunks[c], None
                assert values is not None, "the checker proves that a rank ends with what it must"
                self.values[place] = values

    def fill(self, chunks: Sequence[NDArray[Any] | None]) -> None:
        """Put all chunks into their places, where none is yet.

        Members whose arrays differ in dtype are refused when their calls are compared; until then anything will do.
        """
        held: list[Any] = [*map(chunks.__getitem__, self.places)]  # the checker proves that none is missing
        np.concatenate(held, out=self.values, casting="unsafe")
        self.places.clear()


async def execute(
    schedule: Schedule,
    rank: int,
    chunks: list[NDArray[Any] | None],
    port: Port,
    add: Add = np.add,
    output: Output | None = None,
) -> None:
    """Carry out the rank's steps; `chunks[c]` is what the rank holds of chunk c and is replaced as it changes.

    The schedule's helpers live with the first rank. `add` joins two values (a sum, by default). What is added up in
    one step is added in the order of the ranks, the own value among them: so the result does not depend on arrival,
    and ranks that add the same values get the same bits. Chunks go to their places in the `output`, if there is one.
    """
    held = {rank: chunks}
    final = schedule.plans[rank][-1] if schedule.plans[rank] else None
    growing = output if output is not None and output.grows else None
    for number, together in enumerate(schedule.work(rank)):
        for node, step in together:
            own = held.setdefault(node, [None] * schedule.n_cells) if node != rank else chunks
            for dst, ids in step.sends:
                port.post(node, dst, [*map(own.__getitem__, ids)])  # type: ignore[list-item]  # the checker proves: held
        for node, step in together:
            last = step is final and node == rank
            messages = []
            for src, _, _ in step.receives:
                message = port.ready(src, node, last=last)
                messages.append(await port.take(src, node, last=last) if message is None else message)
            _take_in(step, node, held[node], messages, add)
        if growing is not None:
            growing.settle(_last_used(schedule, rank)[number], chunks)
    if growing is not None:
        growing.settle([*growing.places], chunks)
    elif output is not None:
        output.fill(chunks)


@lru_cache(maxsize=4096)
def _last_used(schedule: Schedule, rank: int) -> list[list[int]]:
    """Return, for every step of `schedule.work`, the chunks that the rank uses in no later one."""
    work = schedule.work(rank)
    last: dict[int, int] = {}
    for number, together in enumerate(work):
        for step in (step for node, step in together if node == rank):
            for ids in (*(ids for _, ids in step.sends), *(ids for _, ids, _ in step.receives)):
                last |= dict.fromkeys(ids, number)
            for c, to, _ in step.local:
                last |= {c: number, to: number}
    found: list[list[int]] = [[] for _ in work]
    for c, number in last.items():
        found[number].append(c)
    return found


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


def begin_output(schedule: Schedule, rank: int, detail: Detail, x: NDArray[Any]) -> Output | None:
    """Return the output of a rank whose flat input is `x`; None if it has none, or `x` does not tell how long it is."""
    places = _places(schedule, rank, detail, x.size)
    if not places:
        return None
    values = np.empty(places[next(reversed(places))].stop, x.dtype)
    return Output(values, places.copy(), values.nbytes >= SETTLED_BYTES * len(places))


@lru_cache(maxsize=4096)
def _places(schedule: Schedule, rank: int, detail: Detail, n_elements: int) -> dict[int, slice]:
    """Return where in the rank's output each chunk goes; nothing where its input does not tell (all_to_all_v)."""
    if OPERATIONS[schedule.op].detail == "rows":
        return {}
    n, k, mine = schedule.n_ranks, schedule.n_chunks, _output(schedule, rank, detail)
    sizes = chunk_sizes(part_sizes(schedule.op, n, k, n_elements, detail), k)
    ends = accumulate(sizes[c] for c in mine)
    return {c: slice(end - sizes[c], end) for c, end in zip(mine, ends, strict=True)}


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
