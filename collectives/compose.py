"""Build schedules from others: an all-gather played backwards is a reduce-scatter, both make an all-reduce."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from collectives.schedule import Schedule, Transfers, Uniform

UniformMaker = Callable[[tuple[int, ...]], Uniform | None]
"""dims of a grid -> what every rank does, if it is the same for all of them there."""


GATHERS = ("all_gather", "reduce_scatter", "all_reduce")
"""The operations that are made of an all-gather, forwards, backwards, or both."""


def family(schedule: Callable[..., Schedule]) -> Iterator[Callable[..., Schedule]]:
    """Yield the builders of `GATHERS` from a function (op, group, root, *, parameters) that makes them all."""
    yield from (partial(schedule, op) for op in GATHERS)


def never(_dims: tuple[int, ...]) -> Uniform | None:
    """Say that the ranks do different things."""
    return None


def from_gather(
    op: str,
    algorithm: str,
    n_ranks: int,
    n_chunks: int,
    gather: Callable[[], Transfers],
    uniform: UniformMaker = never,
) -> Schedule:
    """Return the schedule for `op` (all_gather, reduce_scatter or all_reduce) from the transfers of an all-gather.

    In the all-gather every rank must receive every chunk that is not its own exactly once. `uniform` speaks of the
    all-gather too.
    """
    makers: dict[str, Callable[[], Transfers]] = {
        "all_gather": gather,
        "reduce_scatter": lambda: gather().reversed(),
        "all_reduce": lambda: gather().reversed().then(gather()),
    }
    return Schedule(op, algorithm, n_ranks, n_chunks, makers[op], _of(op, uniform))


def uniform(dims: tuple[int, ...], rows: Iterable[tuple[int, int, int, int]]) -> Uniform:
    """Return what every rank does, from rows of (step, offset, number of chunks, piece)."""
    table = np.array([*sorted(rows)], np.int64).reshape(-1, 4)
    return Uniform(dims, *table.T)


def cyclic(n: int, rows: Callable[[], Iterable[tuple[int, int, int, int]]]) -> UniformMaker:
    """Return the maker for n ranks in a circle, where an offset is a distance in it."""
    return lambda dims: uniform(dims, rows()) if dims == (n,) else None


def _of(op: str, gather: UniformMaker) -> UniformMaker:
    """Return the maker for `op`, from that of the all-gather."""

    def make(dims: tuple[int, ...]) -> Uniform | None:
        forwards = gather(dims)
        if forwards is None or op == "all_gather":
            return forwards
        backwards = _reversed(forwards)
        return backwards if op == "reduce_scatter" else _then(backwards, forwards)

    return make


def _n_steps(u: Uniform) -> int:
    return 1 + int(u.step.max(initial=-1))


def _reversed(u: Uniform) -> Uniform:
    coords = np.unravel_index(u.offset, u.dims)
    back = [(-coord) % length for coord, length in zip(coords, u.dims, strict=True)]
    step, offset = _n_steps(u) - 1 - u.step, np.ravel_multi_index(back, u.dims)
    order = np.argsort(step, kind="stable")
    return Uniform(u.dims, step[order], offset[order], u.n_chunks[order], u.piece[order])


def _then(u: Uniform, later: Uniform) -> Uniform:
    return Uniform(
        u.dims,
        np.concatenate([u.step, later.step + _n_steps(u)]),
        np.concatenate([u.offset, later.offset]),
        np.concatenate([u.n_chunks, later.n_chunks]),
        np.concatenate([u.piece, later.piece]),
    )
