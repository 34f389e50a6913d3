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

from collections.abc import Callable, Iterator, Mapping
from math import gcd, lcm

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from collectives.algorithms import direct, halving_doubling, line, ring, two_shot
from collectives.algorithms import recursive_doubling as doubling
from collectives.algorithms import recursive_halving as halving
from collectives.algorithms import ring_bidirectional as both
from collectives.compose import GATHERS, family
from collectives.group import GroupView, misfit
from collectives.schedule import Schedule, Transfers

Builder = Callable[[GroupView, int], Schedule]

FLAT: Mapping[str, Mapping[str, Builder]] = {
    "ring": dict(zip(GATHERS, (ring.all_gather, ring.reduce_scatter, ring.all_reduce), strict=True)),
    "ring_bidirectional": dict(
        zip(GATHERS, (both.all_gather, both.reduce_scatter, both.all_reduce), strict=True)
    ),
    "line": dict(zip(GATHERS, (line.all_gather, line.reduce_scatter, line.all_reduce), strict=True)),
    "direct": dict(zip(GATHERS, (direct.all_gather, direct.reduce_scatter, two_shot.all_reduce), strict=True)),
    "doubling": dict(
        zip(GATHERS, (doubling.all_gather, halving.reduce_scatter, halving_doubling.all_reduce), strict=True)
    ),
}  # fmt: skip
"""The flat algorithms that a hierarchical one can be made of, by family and operation."""


def hierarchical(name: str, default_node: str = "ring") -> Iterator[Callable[..., Schedule]]:
    """Yield the builders of a hierarchical algorithm whose families are parameters."""

    def schedule(op: str, group: GroupView, root: int = 0, *, node: str = default_node, rail: str = "ring") -> Schedule:
        phases = {
            "all_gather": [("rails", rail, "all_gather"), ("nodes", node, "all_gather")],
            "reduce_scatter": [("nodes", node, "reduce_scatter"), ("rails", rail, "reduce_scatter")],
            "all_reduce": [
                ("nodes", node, "reduce_scatter"), ("rails", rail, "all_reduce"), ("nodes", node, "all_gather"),
            ],
        }  # fmt: skip
        return _join(op, name, group, root, [(where, FLAT[flat][of]) for where, flat, of in phases[op]])

    return family(schedule)


def _join(op: str, name: str, group: GroupView, root: int, phases: list[tuple[str, Builder]]) -> Schedule:
    """Return the phases one after the other, on chunks that are fine enough for all of them."""
    grid = _grid(name, group)
    members = {"nodes": list(grid), "rails": list(grid.T)}
    parts = [_Phase.of(group, members[where], build, grid, where, root) for where, build in phases]
    fine = lcm(*(part.pieces for part in parts))
    transfers = Transfers.of(())
    for part in parts:
        transfers = transfers.then(part.transfers(fine))
    return Schedule(op, name, len(group), len(group) * fine, transfers)


def _grid(name: str, group: GroupView) -> NDArray[np.int64]:
    """Return the places of the chips as [node, place in the node]."""
    block = group.block
    if block is None or len(block.lengths) == 1:
        lacks, accepted = "are not several nodes", "all chips of a block of a grid with at least two axes"
        raise misfit(name, group, lacks, accepted)
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
