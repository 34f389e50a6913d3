"""The chips that take part in a collective, and where they are."""

from __future__ import annotations

from attrs import frozen

from topology.graph import Topology


@frozen(eq=False)
class GroupView:
    """A group of chips in a topology; algorithms speak of places 0…n-1 in it."""

    topology: Topology
    ranks: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ranks)
