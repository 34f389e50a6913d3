"""The one schedule type: who sends which chunks to whom, in which step.

A collective works on numbered chunks. Rank r's step s begins when everything that r sends and receives in its earlier
steps is over; all transfers of one step run at the same time. The same object is proven by the checker, executed on
real buffers by the chips, and expanded into timed transfers for the timeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

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
class Schedule:
    """An algorithm for `op` among `n_ranks` ranks on `n_chunks` chunks; transfers are ordered by step.

    Raises ValueError if a transfer names a rank or chunk that does not exist, or a rank sends to itself.
    """

    op: str
    algorithm: str
    n_ranks: int
    n_chunks: int
    transfers: tuple[Transfer, ...] = field(repr=False)

    def __attrs_post_init__(self) -> None:
        for t in self.transfers:
            if not (0 <= t.src < self.n_ranks and 0 <= t.dst < self.n_ranks) or t.src == t.dst:
                raise ValueError(f"{self.algorithm}: transfer {t} does not join two of {self.n_ranks} ranks")
            if not t.chunks or not all(0 <= c < self.n_chunks for c in t.chunks):
                raise ValueError(f"{self.algorithm}: transfer {t} names no chunk of 0…{self.n_chunks - 1}")
        steps = [t.step for t in self.transfers]
        if any(a > b for a, b in zip(steps, steps[1:], strict=False)):
            raise ValueError(f"{self.algorithm}: transfers are not in the order of their steps")

    @cached_property
    def n_steps(self) -> int:
        """Number of steps of the schedule."""
        return 1 + max((t.step for t in self.transfers), default=-1)

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

    def sizes(self, chunk_sizes: Sequence[int]) -> NDArray[np.int64]:
        """Return the size of every transfer, given the size of every chunk (elements or bytes)."""
        return np.array([sum(chunk_sizes[c] for c in t.chunks) for t in self.transfers], np.int64)


def by_step(transfers: Iterable[Transfer]) -> tuple[Transfer, ...]:
    """Return the transfers in the order of their steps, otherwise as given."""
    return tuple(sorted(transfers, key=lambda t: t.step))
