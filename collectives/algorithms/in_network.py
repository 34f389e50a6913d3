"""In-network algorithms: the chips send to the switches that they all hang on, which add and multicast.

Every chip sends each byte up once; a switch adds what comes from all chips, or hands one chip's data to all of them.
Over several switch planes, each carries a share of every part in proportion to its links. Parts move in k pieces: one
is on its way up while the one before comes down. With n ranks, buffer size S = n m, latency α of a link (half of a
route) and bandwidth B of a chip to all switches, idle:

    all_reduce, broadcast, reduce   (k+1) (α + S/(kB))
    reduce_scatter                  k (α + S/(kB)) + α + m/(kB)                 n > 1
    all_gather                      α + m/(kB) + k (α + (n-1) m/(kB))           n > 2

The switches are helpers of the schedule (`collectives.schedule`): their memory is simulated where the group's first
chip lives, their transfers run over the links between chip and switch. They add in no time, like a chip.

Source: A. Ishii and R. Wells, "The NVLink-network switch: NVIDIA's switch chip for high communication-bandwidth
superPODs", Hot Chips 34 (2022) (NVLink SHARP); NCCL's NVLS algorithms are its use for collectives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import gcd

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from collectives.group import GroupView, misfit
from collectives.operations import OPERATIONS
from collectives.schedule import Schedule, Transfers

PIECES = 8
MOST_LANES = 256
"""Into so many shares a piece is cut at most, to fit the planes."""


def _schedule(op: str, group: GroupView, root: int = 0, *, pieces: int = PIECES) -> Schedule:
    """Return the schedule: in step s piece s goes up and piece s-1 comes down."""
    n, parts = len(group), OPERATIONS[op].n_parts(len(group))
    if n == 1:
        return Schedule(op, "in_network", 1, pieces * parts, ())
    switches, lanes = switches_of(group)
    planes = _Planes(n, parts, pieces, np.concatenate([[0], np.cumsum(lanes)]))
    make: Mapping[str, Callable[[], list[Transfers]]] = {
        "all_reduce": lambda: planes.up(np.arange(n), reduce=True) + planes.down(np.arange(n)),
        "broadcast": lambda: planes.up([root], reduce=False) + planes.down(np.delete(np.arange(n), root)),
        "reduce": lambda: planes.up(np.arange(n), reduce=True) + planes.down([root]),
        "reduce_scatter": lambda: planes.up(np.arange(n), reduce=True) + planes.down_own(),
        "all_gather": lambda: planes.up_own() + planes.down_others(),
    }
    chunks = parts * pieces * sum(lanes)
    return Schedule(op, "in_network", n, chunks, lambda: Transfers.join(make[op]()), helpers=switches)


all_reduce, broadcast, reduce, reduce_scatter, all_gather = (
    partial(_schedule, op) for op in ("all_reduce", "broadcast", "reduce", "reduce_scatter", "all_gather")
)


def switches_of(group: GroupView) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the switches that all chips hang on and that add, and each one's lanes: its share of the links."""
    topology = group.topology
    adding = {topology.n_chips + switch for switch in topology.adding_switches}
    joined = [set(topology.neighbours(rank).tolist()) & adding for rank in group.ranks]
    switches = sorted(set.intersection(*joined))
    links = np.array([[topology.link_between(rank, switch) for switch in switches] for rank in group.ranks])
    accepted = "chips of a system with in_network: true, all joined alike to the same switches"
    if not switches:
        raise misfit("in_network", group, "hang on no switches that add", accepted)
    rates = topology.link_bandwidth_bytes_per_s[links]
    if (rates != rates[0]).any():
        raise misfit("in_network", group, "are not joined alike to their switches", accepted)
    count = topology.link_count[links[0]].tolist()
    lanes = tuple(c // gcd(*count) for c in count)
    if sum(lanes) > MOST_LANES:
        raise misfit("in_network", group, f"have {sum(lanes)} lanes to switches", f"at most {MOST_LANES}")
    return tuple(switches), lanes


@frozen(eq=False)
class _Planes:
    """The transfers over all planes; plane h carries the lanes from `first[h]` to `first[h + 1]` of every piece.

    Chunk (p·k + i)·L + l is lane l of piece i of part p, with k pieces and L lanes.
    """

    n: int
    parts: int
    pieces: int
    first: NDArray[np.int64]

    def up(self, ranks: NDArray[np.int64] | list[int], *, reduce: bool) -> list[Transfers]:
        """Return the way up of all parts from these ranks."""
        return self._all_parts(ranks, reduce=reduce, down=False)

    def down(self, ranks: NDArray[np.int64] | list[int]) -> list[Transfers]:
        """Return the way down of all parts to these ranks."""
        return self._all_parts(ranks, reduce=False, down=True)

    def up_own(self) -> list[Transfers]:
        """Return the way up of every rank's own part."""
        return self._runs(np.arange(self.n), 1, down=False)

    def down_own(self) -> list[Transfers]:
        """Return the way down of every rank's own part."""
        return self._runs(np.arange(self.n), 1, down=True)

    def down_others(self) -> list[Transfers]:
        """Return the way down of all parts but the rank's own."""
        return self._runs(np.arange(self.n) + 1, self.n - 1, down=True)

    def _all_parts(self, ranks: NDArray[np.int64] | list[int], *, reduce: bool, down: bool) -> list[Transfers]:
        return self._runs(np.zeros(self.n, np.int64), self.parts, down=down, reduce=reduce, ranks=np.array(ranks))

    def _runs(
        self, part: NDArray[np.int64], n_parts: int, *, down: bool, reduce: bool = False,
        ranks: NDArray[np.int64] | None = None,
    ) -> list[Transfers]:  # fmt: skip
        """Return the way of `n_parts` parts from part `part[rank]` on, round the end, plane by plane."""
        rank = np.arange(self.n) if ranks is None else ranks
        piece, around = np.arange(self.pieces)[:, None, None], np.arange(2 * self.parts)[:, None] % self.parts
        found = []
        for plane, (low, high) in enumerate(zip(self.first[:-1], self.first[1:], strict=True)):
            lanes = np.arange(low, high)
            pool = ((around * self.pieces + piece) * self.first[-1] + lanes).reshape(-1)
            start = (np.arange(self.pieces)[:, None] * 2 * self.parts + part[rank]) * len(lanes)
            switch = np.full_like(rank, self.n + plane)
            ends = (switch, rank) if down else (rank, switch)
            step = np.arange(self.pieces)[:, None] + down
            found.append(Transfers.runs(step, *ends, start, n_parts * len(lanes), pool=pool, reduce=reduce))
        return found
