"""The links that transfers use: a route, and many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from attrs import field, frozen

from topology.arrays import ragged, read_only

if TYPE_CHECKING:
    from numpy.typing import NDArray


@frozen(eq=False)
class Route:
    """The links that a transfer uses.

    A transfer of n bytes puts `weights[i] * n` bytes on link `links[i]`: 1 on a plain path, less where it is
    split over switch planes. `latency_ps` is the sum along the (longest) path.
    """

    links: NDArray[np.int32] = field(converter=read_only)
    weights: NDArray[np.float64] = field(converter=read_only)
    latency_ps: int


@frozen(eq=False)
class Routes:
    """Many routes at once: route i is `links[start[i]:start[i + 1]]` with its weights and latency."""

    start: NDArray[np.int64]
    links: NDArray[np.int32]
    weights: NDArray[np.float64]
    latency_ps: NDArray[np.int64]

    @classmethod
    def of(cls, routes: Sequence[Route]) -> Routes:
        """Return these routes in one."""
        return cls(
            np.cumsum([0, *(len(r.links) for r in routes)], dtype=np.int64),
            np.concatenate([np.zeros(0, np.int32), *(r.links for r in routes)]).astype(np.int32),
            np.concatenate([np.zeros(0), *(r.weights for r in routes)]),
            np.array([r.latency_ps for r in routes], np.int64),
        )

    def over(self, number: NDArray[np.integer], n_numbers: int) -> Routes:
        """Return the routes over renumbered links: each number once in a route, with the sum of its weights."""
        owner = np.repeat(np.arange(len(self.latency_ps)), np.diff(self.start))
        keys, place = np.unique(owner * n_numbers + number[self.links], return_inverse=True)
        weights = np.bincount(place, self.weights, minlength=len(keys)).astype(np.float64)
        owner, link = np.divmod(keys, n_numbers)
        start = np.searchsorted(owner, np.arange(len(self.latency_ps) + 1))
        return Routes(start, link.astype(np.int32), weights, self.latency_ps)

    @classmethod
    def join(cls, several: Sequence[Routes]) -> Routes:
        """Return these routes one after the other."""
        lengths = np.concatenate([np.diff(routes.start) for routes in several])
        return cls(
            np.concatenate([[0], np.cumsum(lengths)]),
            np.concatenate([routes.links for routes in several]),
            np.concatenate([routes.weights for routes in several]),
            np.concatenate([routes.latency_ps for routes in several]),
        )

    def select(self, numbers: NDArray[np.integer]) -> Routes:
        """Return the routes of these numbers, in this order."""
        lengths = np.diff(self.start)[numbers]
        start = np.concatenate([[0], np.cumsum(lengths)])
        place = ragged(self.start[numbers], lengths)
        return Routes(start, self.links[place], self.weights[place], self.latency_ps[numbers])
