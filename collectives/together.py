"""Run all ranks of a schedule at once, where one process holds the buffers of all of them.

The values are those of `collectives.executor.execute`, to the bit: the same additions, in the order of the ranks. What
is saved is everything between them: messages, waits, and one program that gives way to another.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from numpy.typing import NDArray

from collectives.executor import Add, Output
from collectives.schedule import Schedule

Held = list[NDArray[Any] | None]


class JointStep(NamedTuple):
    """What happens in a step, seen from above.

    copies: (rank, cell, from rank).  pairs: (rank, cell, the two ranks whose values are added, itself one of them).
    sums: (rank, cell, more ranks whose values are added, in their order, itself too).
    local: (rank, cell, to cell, whether it is added).
    """

    copies: tuple[tuple[int, int, int], ...]
    pairs: tuple[tuple[int, int, int, int], ...]
    sums: tuple[tuple[int, int, tuple[int, ...]], ...]
    local: tuple[tuple[int, int, int, bool], ...]


@lru_cache(maxsize=1024)
def joint_steps(schedule: Schedule) -> tuple[JointStep, ...] | None:
    """Return the steps of a schedule; None with helpers, or if a cell takes in more than one sum or copy in a step."""
    if schedule.helpers:
        return None
    copies: dict[int, dict[tuple[int, int], int]] = {}
    sums: dict[int, dict[tuple[int, int], list[int]]] = {}
    local: dict[int, list[tuple[int, int, int, bool]]] = {}
    for step, src, dst, cells, reduce in schedule.transfers:
        for cell in cells:
            if reduce:
                sums.setdefault(step, {}).setdefault((dst, cell), [dst]).append(src)
            elif copies.setdefault(step, {}).setdefault((dst, cell), src) != src:
                return None
    for step, rank, cell, to, reduce in schedule.local:
        local.setdefault(step, []).append((rank, cell, to, reduce))
    if any(places.keys() & sums.get(step, {}).keys() for step, places in copies.items()):
        return None
    return tuple(
        _joint_step(copies.get(step, {}), sums.get(step, {}), local.get(step, []))
        for step in sorted(copies.keys() | sums.keys() | local.keys())
    )


def _joint_step(
    copies: dict[tuple[int, int], int], sums: dict[tuple[int, int], list[int]], local: list[tuple[int, int, int, bool]]
) -> JointStep:
    ordered = [(dst, cell, tuple(sorted(ranks))) for (dst, cell), ranks in sums.items()]
    return JointStep(
        tuple((dst, cell, src) for (dst, cell), src in copies.items()),
        tuple((dst, cell, *ranks) for dst, cell, ranks in ordered if len(ranks) == 2),
        tuple((dst, cell, ranks) for dst, cell, ranks in ordered if len(ranks) > 2),
        tuple(local),
    )


def execute_together(steps: Sequence[JointStep], parts: Sequence[tuple[Held, Output | None]], add: Add) -> None:
    """Carry out a schedule; `parts[r]` is what rank r holds of each cell, replaced as it changes, and its output.

    Outputs of long chunks are filled cell by cell, so that each is read from memory once, for all ranks.
    """
    held = [cells for cells, _ in parts]
    _carry_out(steps, held, add)
    making = [(output, cells) for cells, output in parts if output is not None]
    for output, cells in making:
        if not output.grows:
            output.fill(cells)
    growing = [(output, cells) for output, cells in making if output.grows]
    for cell in range(len(held[0])) if growing else ():
        for output, cells in growing:
            output.settle((cell,), cells)


def _carry_out(steps: Sequence[JointStep], held: Sequence[Held], add: Add) -> None:
    for copies, pairs, sums, local in steps:
        landed = [held[src][cell] for _, cell, src in copies]
        joined = []
        for _, cell, a, b in pairs:  # what a ring does, and nothing else: without a call for each
            x, y = held[a][cell], held[b][cell]
            joined.append(y if x is None else x if y is None else add(x, y))
        added = [_sum(held, cell, ranks, add) for _, cell, ranks in sums]
        for (dst, cell, _), values in zip(copies, landed, strict=True):
            held[dst][cell] = values
        for (dst, cell, _, _), values in zip(pairs, joined, strict=True):
            held[dst][cell] = values
        for (dst, cell, _), values in zip(sums, added, strict=True):
            held[dst][cell] = values
        for rank, cell, to, reduce in local:
            values, before = held[rank][cell], held[rank][to]
            assert values is not None, "the checker proves that only held chunks are moved"
            assert before is not None or not reduce, "and that only to held ones is added"
            held[rank][to] = add(before, values) if reduce and before is not None else values


def _sum(held: Sequence[Held], cell: int, ranks: tuple[int, ...], add: Add) -> NDArray[Any]:
    """Return the sum of what the ranks hold of a cell; the one that takes it in may hold nothing yet."""
    return functools.reduce(add, [values for rank in ranks if (values := held[rank][cell]) is not None])
