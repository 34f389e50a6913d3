"""Put topologies together: number the nodes and links of all parts, and make one edge of those that join the same two.

Chips come node by node, then the switches (and NICs) node by node, then those of the network, copy by copy. Edges are
in the same order, the nodes' first, then the network's, then cables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from configs.errors import ConfigError
from topology.edges import Edges
from topology.graph import Topology

if TYPE_CHECKING:
    from numpy.typing import NDArray


@frozen(eq=False)
class Layout:
    """What is where: for every node its kind, and the numbers of its first chip, switch and edge."""

    kinds: tuple[Topology, ...]
    kind_of: NDArray[np.int64]
    first_chip: NDArray[np.int64]
    first_switch: NDArray[np.int64]
    first_edge: NDArray[np.int64]
    n_chips: int
    n_nodes: int
    n_edges: int

    @classmethod
    def of(cls, kinds: Sequence[tuple[Topology, int]]) -> Layout:
        """Return the layout of so many nodes of each kind."""
        kind_of = np.repeat(np.arange(len(kinds)), [count for _, count in kinds])
        chips, switches, edges = (
            np.array([size(kind) for kind, _ in kinds], np.int64)[kind_of]
            for size in (lambda t: t.n_chips, lambda t: t.n_switches, lambda t: len(t.link_src) // 2)
        )
        n_chips = int(chips.sum())
        return cls(
            tuple(kind for kind, _ in kinds),
            kind_of,
            np.cumsum(chips) - chips,
            n_chips + np.cumsum(switches) - switches,
            np.cumsum(edges) - edges,
            n_chips,
            n_chips + int(switches.sum()),
            int(edges.sum()),
        )

    def number(self, node: NDArray[np.int64], local: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return what chips and switches of some nodes are called in the whole; the two arrays are broadcast."""
        n_chips = np.array([kind.n_chips for kind in self.kinds])[self.kind_of[node]]
        return np.where(local < n_chips, self.first_chip[node] + local, self.first_switch[node] + local - n_chips)

    def adding_switches(self, insides: Sequence[Topology]) -> set[int]:
        """Return the switches of all nodes that add, counted from 0; `insides` are the kinds without their NICs."""
        found = set[int]()
        for number, inside in enumerate(insides):
            nodes = np.flatnonzero(self.kind_of == number)[:, None]
            local = inside.n_chips + np.array(sorted(inside.adding_switches), np.int64)
            found |= set((self.number(nodes, local[None, :]) - self.n_chips).reshape(-1).tolist())
        return found

    def edges(self) -> Edges:
        """Return the edges inside all nodes."""
        found = []
        for number, kind in enumerate(self.kinds):
            nodes = np.flatnonzero(self.kind_of == number)[:, None]
            src, dst = (self.number(nodes, ends[None, ::2]) for ends in (kind.link_src, kind.link_dst))
            found.append(copies(kind, src, dst))
        return Edges.joined(*found)


def copies(kind: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Edges:
    """Return the edges of copies of a topology between other nodes; src and dst are [copy, edge]."""
    n = len(src)
    return Edges(
        src.reshape(-1).astype(np.int32),
        dst.reshape(-1).astype(np.int32),
        np.tile(kind.link_bandwidth_bytes_per_s[::2], n),
        np.tile(kind.link_latency_ps[::2], n),
        np.tile(kind.link_count[::2], n),
    )


def merge(edges: Edges) -> tuple[Edges, NDArray[np.int64]]:
    """Return the edges with those that join the same nodes in one, and the new number of every directed link.

    Raises ConfigError for a node joined to itself, and for edges of different latency between the same two.
    """
    low, high = np.minimum(edges.src, edges.dst).astype(np.int64), np.maximum(edges.src, edges.dst)
    if (low == high).any():
        raise ConfigError(("network: joins a chip or switch to itself; accepted: NICs of different ones",))
    _, first, kind = np.unique(low * (int(high.max(initial=0)) + 1) + high, return_index=True, return_inverse=True)
    order = np.sort(first)
    number = np.searchsorted(order, first)[kind]
    kept = order[number]
    apart = np.count_nonzero(edges.latency_ps != edges.latency_ps[kept])
    if apart:
        raise ConfigError(
            (f"{apart} edges join nodes that have another edge of a different latency; accepted: one latency",)
        )
    merged = Edges(
        edges.src[order],
        edges.dst[order],
        np.bincount(number, edges.bandwidth_bytes_per_s, minlength=len(order)).astype(np.float64),
        edges.latency_ps[order],
        np.bincount(number, edges.count, minlength=len(order)).astype(np.int32),
    )
    forward = 2 * number + (edges.src != edges.src[kept])
    return merged, np.stack([forward, forward ^ 1], axis=1).reshape(-1)
