"""Hierarchical algorithms: one flat algorithm inside the nodes, another over the rails between them.

A node is the chips of a line along the last axis of the grid, a rail the chips at one place of all nodes. An
all-reduce is a reduce-scatter in the node, an all-reduce over the rail and an all-gather in the node. With r nodes of
l chips, rings for both, buffer size S, hop latency α and link bandwidth B per direction, on an idle torus of r × l:

    all_gather, reduce_scatter   (r-1) (α + m/B) + (l-1) (α + r m/B)    m = S/(r l)
    all_reduce                   twice that

With direct algorithms in nodes whose chips are all joined, (l-1) (α + r m/B) becomes α + r m/B.

Source: T. T. Nguyen, M. Wahib, R. Takano, "Hierarchical distributed-memory multi-leader MPI_Allreduce for deep
learning workloads", CANDARW 2018; A. Castelló et al. describe the same scheme for NCCL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import gcd, lcm

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from collectives.algorithms import direct, ring, two_shot
from collectives.group import GroupView, misfit
from collectives.schedule import Schedule, Transfers

Builder = Callable[[GroupView, int], Schedule]


@frozen
class Flat:
    """The algorithms of one family that a hierarchical one is made of."""

    all_gather: Builder
    reduce_scatter: Builder
    all_reduce: Builder


RINGS = Flat(ring.all_gather, ring.reduce_scatter, ring.all_reduce)
DIRECT = Flat(direct.all_gather, direct.reduce_scatter, two_shot.all_reduce)


@frozen
class Hierarchical:
    """Hierarchical algorithms of two flat ones."""

    name: str
    node: Flat
    rail: Flat

    def all_gather(self, group: GroupView, root: int = 0) -> Schedule:
        """Return the all-gather over the rails, then in the nodes."""
        return self._join("all_gather", group, root, [("rails", self.rail.all_gather), ("nodes", self.node.all_gather)])

    def reduce_scatter(self, group: GroupView, root: int = 0) -> Schedule:
        """Return the reduce-scatter in the nodes, then over the rails."""
        phases = [("nodes", self.node.reduce_scatter), ("rails", self.rail.reduce_scatter)]
        return self._join("reduce_scatter", group, root, phases)

    def all_reduce(self, group: GroupView, root: int = 0) -> Schedule:
        """Return the reduce-scatter in the nodes, the all-reduce over the rails and the all-gather in the nodes."""
        phases = [("nodes", self.node.reduce_scatter), ("rails", self.rail.all_reduce), ("nodes", self.node.all_gather)]
        return self._join("all_reduce", group, root, phases)

    def _join(self, op: str, group: GroupView, root: int, phases: list[tuple[str, Builder]]) -> Schedule:
        """Return the phases one after the other, on chunks that are fine enough for all of them."""
        grid = self._grid(group)
        members = {"nodes": list(grid), "rails": list(grid.T)}
        parts = [_Phase.of(group, members[where], build, grid, where, root) for where, build in phases]
        fine = lcm(*(part.pieces for part in parts))
        transfers = Transfers.of(())
        for part in parts:
            transfers = transfers.then(part.transfers(fine))
        return Schedule(op, self.name, len(group), len(group) * fine, transfers)

    def _grid(self, group: GroupView) -> NDArray[np.int64]:
        """Return the places of the chips as [node, place in the node]."""
        block = group.block
        if block is None or len(block.lengths) == 1:
            lacks, accepted = "are not several nodes", "all chips of a block of a grid with at least two axes"
            raise misfit(self.name, group, lacks, accepted)
        return block.places.reshape(-1, block.lengths[-1]) if block.lengths else block.places.reshape(1, 1)


@frozen(eq=False)
class _Phase:
    """Schedules that run side by side: one for each node or each rail.

    owners[i, j]: the parts that are the j-th piece of the buffer of schedule i, a row of places of the whole group.
    """

    members: list[NDArray[np.int64]]
    schedules: list[Schedule]
    owners: list[NDArray[np.int64]]

    @classmethod
    def of(
        cls, group: GroupView, members: list[NDArray[np.int64]], build: Builder, grid: NDArray[np.int64],
        where: str, root: int,
    ) -> _Phase:  # fmt: skip
        """Build the schedules; the j-th piece is all parts of rail j in a node, and the rail's j-th part on a rail."""
        ranks = np.array(group.ranks)
        schedules = [build(GroupView(group.topology, tuple(ranks[m].tolist())), root) for m in members]
        owners = [grid.T.reshape(-1) if where == "nodes" else m for m in members]
        return cls(members, schedules, owners)

    @property
    def pieces(self) -> int:
        """Into how many pieces every part must be cut so that all chunks of the schedules are whole pieces."""
        cuts = [s.n_chunks // gcd(s.n_chunks, len(o)) for s, o in zip(self.schedules, self.owners, strict=True)]
        return lcm(*cuts)

    def transfers(self, fine: int) -> Transfers:
        """Return the transfers of all schedules on the fine chunks of the whole group."""
        return Transfers.join(list(self._moved(fine)))

    def _moved(self, fine: int) -> Iterator[Transfers]:
        for members, schedule, owners in zip(self.members, self.schedules, self.owners, strict=True):
            t = schedule.transfers
            chunks = (owners[:, None] * fine + np.arange(fine)).reshape(schedule.n_chunks, -1)
            width, places = chunks.shape[1], members.astype(np.int32)
            yield evolve(
                t, src=places[t.src], dst=places[t.dst], chunk_start=t.chunk_start * width,
                chunk_end=t.chunk_end * width, chunks=chunks[t.chunks].reshape(-1).astype(np.int32),
            )  # fmt: skip
