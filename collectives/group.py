"""The chips that take part in a collective, and where they are."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from configs.errors import ConfigError
from topology.graph import Topology


@frozen(eq=False)
class Block:
    """A block of a topology's grid: `places[c0, c1, …]` is the place in the group of the chip at these coordinates.

    Axes of length 1 are left out; `wraps` says which axes close to a ring inside the block.
    """

    places: NDArray[np.int64]
    wraps: tuple[bool, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of chips along every axis."""
        return self.places.shape


@frozen(eq=False)
class GroupView:
    """A group of chips in a topology; algorithms speak of places 0…n-1 in it."""

    topology: Topology
    ranks: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ranks)

    def places(self, ranks: Iterable[int]) -> tuple[int, ...]:
        """Return the places of these chips in the group."""
        return tuple(self._place[rank] for rank in ranks)

    @cached_property
    def _place(self) -> dict[int, int]:
        return {rank: place for place, rank in enumerate(self.ranks)}

    @cached_property
    def block(self) -> Block | None:
        """The block of the grid that the group fills, or None if it does not fill one."""
        coords = np.stack(np.unravel_index(self.topology.positions[list(self.ranks)], self.topology.dims))
        low, high = coords.min(axis=1), coords.max(axis=1)
        lengths = tuple((high - low + 1).tolist())
        if np.prod(lengths) != len(self.ranks):
            return None
        places = np.empty(lengths, np.int64)
        places[tuple(coords - low[:, None])] = np.arange(len(self.ranks))
        axes = list(zip(lengths, self.topology.dims, self.topology.wraps, strict=True))
        wraps = tuple(wrap and length == whole for length, whole, wrap in axes if length > 1)
        return Block(places.reshape([length for length in lengths if length > 1]), wraps)


def misfit(algorithm: str, group: GroupView, lacks: str, accepted: str) -> ConfigError:
    """Return the error that says why an algorithm does not fit a group, and what it needs."""
    where = f"these {len(group)} chips of a {group.topology.kind}"
    return ConfigError((f"algorithm {algorithm}: {where} {lacks}; accepted: {accepted}",))
