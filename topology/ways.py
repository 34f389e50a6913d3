"""Routes taken apart into single ways, so that longer ones can be put together from them, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve, frozen

from topology.arrays import ragged
from topology.routes import Routes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topology.graph import Topology


@frozen(eq=False)
class Ways:
    """Way i takes `links[start[i]:start[i + 1]]` and carries `share[i]` of the transfer of `pair[i]` (ascending)."""

    pair: NDArray[np.int64]
    share: NDArray[np.float64]
    start: NDArray[np.int64]
    links: NDArray[np.int64]

    @classmethod
    def of(cls, routes: Routes, topology: Topology, dst: NDArray[np.int64]) -> Ways:
        """Return the ways of many routes: each ends where it enters the node `dst` of its pair."""
        owner = np.repeat(np.arange(len(dst)), np.diff(routes.start))
        last = np.flatnonzero(topology.link_dst[routes.links] == dst[owner])
        start = np.concatenate([[0], last + 1])
        return cls(owner[last], routes.weights[last], start, routes.links.astype(np.int64))

    @classmethod
    def nowhere(cls, n_pairs: int) -> Ways:
        """Return a way of no links for each pair: they are there already."""
        return cls(np.arange(n_pairs), np.ones(n_pairs), np.zeros(n_pairs + 1, np.int64), np.zeros(0, np.int64))

    @classmethod
    def join(cls, several: Sequence[tuple[NDArray[np.int64], Ways]]) -> Ways:
        """Return all these ways in one: those of pair p of each get the number `numbers[p]`."""
        pair = np.concatenate([numbers[ways.pair] for numbers, ways in several])
        lengths = np.concatenate([np.diff(ways.start) for _, ways in several])
        whole = cls(
            pair,
            np.concatenate([ways.share for _, ways in several]),
            np.concatenate([[0], np.cumsum(lengths)]),
            np.concatenate([ways.links for _, ways in several]),
        )
        return whole if (pair[:-1] <= pair[1:]).all() else whole.select(np.argsort(pair, kind="stable"))

    def select(self, numbers: NDArray[np.int64]) -> Ways:
        """Return the ways of these numbers, in this order."""
        if len(numbers) == len(self.pair) and (numbers == np.arange(len(numbers))).all():
            return self
        lengths = np.diff(self.start)[numbers]
        start = np.concatenate([[0], np.cumsum(lengths)])
        place = ragged(self.start[numbers], lengths)
        return Ways(self.pair[numbers], self.share[numbers], start, self.links[place])

    def of_pairs(self, pairs: NDArray[np.int64]) -> Ways:
        """Return the ways of these pairs, which become the pairs 0, 1 and so on."""
        first, end = np.searchsorted(self.pair, pairs), np.searchsorted(self.pair, pairs, side="right")
        chosen = self.select(ragged(first, end - first))
        return evolve(chosen, pair=np.repeat(np.arange(len(pairs)), end - first))

    def moved(self, by: NDArray[np.int64]) -> Ways:
        """Return the same ways over links whose numbers are higher by `by[pair]`."""
        return evolve(self, links=self.links + np.repeat(by[self.pair], np.diff(self.start)))

    @classmethod
    def chained(cls, *legs: Ways) -> Ways:
        """Return every way of a pair in the first leg, followed by every one in the second, and so on.

        A pair that has no way in some leg has none.
        """
        n_pairs = 1 + max((int(leg.pair[-1]) for leg in legs if len(leg.pair)), default=-1)
        counts = [np.bincount(leg.pair, minlength=n_pairs) for leg in legs]
        total = np.prod(counts, axis=0)
        pair = np.repeat(np.arange(n_pairs), total)
        turn, rest = ragged(np.zeros_like(total), total), total
        share, numbers = np.ones(len(pair)), []
        for leg, count in zip(legs, counts, strict=True):
            rest = rest // np.maximum(count, 1)
            number = (np.cumsum(count) - count)[pair] + turn // rest[pair]
            turn = turn % rest[pair]
            share = share * leg.share[number]
            numbers.append(number)
        lengths = [np.diff(leg.start)[number] for leg, number in zip(legs, numbers, strict=True)]
        end = np.cumsum(sum(lengths))
        start = np.append(0, end)
        links, at = np.empty(start[-1], np.int64), start[:-1]
        for leg, number, length in zip(legs, numbers, lengths, strict=True):
            _copy(leg.links, leg.start[number], links, at, length)
            at = at + length
        return cls(pair, share, start, links)

    def routes(self, topology: Topology, n_pairs: int) -> Routes:
        """Return the routes of the pairs 0 to n_pairs - 1; the latency is that of the longest way."""
        lengths = np.diff(self.start)
        per_pair = np.bincount(self.pair, lengths, minlength=n_pairs).astype(np.int64)
        so_far = np.concatenate([[0], np.cumsum(topology.link_latency_ps[self.links])])
        latency_ps = np.zeros(n_pairs, np.int64)
        if len(self.pair):
            begins = np.flatnonzero(np.concatenate([[True], self.pair[1:] != self.pair[:-1]]))
            longest = np.maximum.reduceat(so_far[self.start[1:]] - so_far[self.start[:-1]], begins)
            latency_ps[self.pair[begins]] = longest
        start = np.concatenate([[0], np.cumsum(per_pair)])
        return Routes(start, self.links.astype(np.int32), np.repeat(self.share, lengths), latency_ps)


def _copy(
    source: NDArray[np.int64], first: NDArray[np.int64], target: NDArray[np.int64], at: NDArray[np.int64],
    count: NDArray[np.int64],
) -> None:  # fmt: skip
    """Copy source[first[i]:first[i] + count[i]] to target[at[i]:], for every i."""
    if len(count) and (count == count[0]).all():
        for k in range(count[0]):
            target[at + k] = source[first + k]
    else:
        target[ragged(at, count)] = source[ragged(first, count)]
