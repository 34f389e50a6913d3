"""Routing in a topology that is put together from nodes and a network.

Inside a node: the node's own routing. Between nodes: from the chip over its doors into the network, by the network's
own routing, and over a door of the other chip to it. A chip's doors are the NICs nearest to it; over several, a
transfer is split in proportion to their bandwidth. Where every NIC has a network of its own, the transfer enters the
other node by the NIC of the same number and goes on inside. Pairs that only cables join take the shortest path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve, field, frozen

from topology.arrays import ragged
from topology.graph import Topology
from topology.routes import Route, Routes
from topology.routing.shortest import ShortestPathRouter
from topology.ways import Ways

if TYPE_CHECKING:
    from numpy.typing import NDArray


@frozen(eq=False)
class Doors:
    """How the chips of one kind of node get to its NICs.

    start, nic, share: chip c has the doors start[c] to start[c + 1]: their NICs, and what of a transfer each takes.
    out, back: the ways from chip c to switch or NIC i and back, as pair i * n_chips + c; empty where NICs are chips'.
    """

    start: NDArray[np.int64]
    nic: NDArray[np.int64]
    share: NDArray[np.float64]
    out: Ways
    back: Ways


@frozen(eq=False)
class Part:
    """One kind of node: its inside, the chips or switches that its NICs are part of, and the doors of its chips."""

    inside: Topology
    members: NDArray[np.int64] = field(factory=lambda: np.zeros(0, np.int64))
    doors: Doors | None = None

    def legs(self, nic: NDArray[np.int64], chip: NDArray[np.int64], *, outwards: bool) -> Ways:
        """Return the ways from these chips to these NICs, or back; no way where there is none inside the node."""
        assert self.doors is not None
        if (self.members >= self.inside.n_chips).all():
            keys = nic * self.inside.n_chips + chip
            return (self.doors.out if outwards else self.doors.back).of_pairs(keys)
        member = self.members[nic]
        src, dst = (chip, member) if outwards else (member, chip)
        island = self.inside.island_of_node
        there = np.flatnonzero(src == dst)
        apart = np.flatnonzero((src != dst) & (island[src] == island[dst]))
        routes = self.inside.routes(src[apart], dst[apart])
        return Ways.join([(there, Ways.nowhere(len(there))), (apart, Ways.of(routes, self.inside, dst[apart]))])


@frozen(eq=False)
class Net:
    """The network: its inside, and how it is joined to the nodes.

    links: the numbers here of the links of each copy, [copy, link].  first: the first end point of each node.
    each: every NIC number has a copy of its own, whose end point j is on node j.
    """

    inside: Topology
    links: NDArray[np.int64]
    first: NDArray[np.int64]
    each: bool

    def legs(
        self, nodes: tuple[NDArray[np.int64], NDArray[np.int64]], nics: tuple[NDArray[np.int64], NDArray[np.int64]]
    ) -> Ways:
        """Return the ways from the NICs of some nodes to those of others; no way where the network has none."""
        src, dst = (node if self.each else self.first[node] + nic for node, nic in zip(nodes, nics, strict=True))
        n, copy = self.inside.n_nodes, nics[0] if self.each else np.zeros_like(nics[0])
        keys, number = np.unique((copy * n + src) * n + dst, return_inverse=True)  # chips of a node share them
        (copy, src), dst = np.divmod(keys // n, n), keys % n
        island = self.inside.island_of_node
        there = np.flatnonzero(src == dst)
        apart = np.flatnonzero((src != dst) & (island[src] == island[dst]))
        found = Ways.of(self.inside.routes(src[apart], dst[apart]), self.inside, dst[apart])
        copies = np.repeat(copy[apart][found.pair], np.diff(found.start))
        found = evolve(found, links=self.links[copies, found.links])
        return Ways.join([(there, Ways.nowhere(len(there))), (apart, found)]).of_pairs(number)


@frozen(eq=False)
class ComposedRouter:
    """Route inside nodes, and between them.

    part_of, first_chip, first_link: of every node, its kind and what its chip 0 and link 0 are here.
    """

    parts: tuple[Part, ...]
    part_of: NDArray[np.int64]
    first_chip: NDArray[np.int64]
    first_link: NDArray[np.int64]
    net: Net | None
    is_uniform: bool = field(default=False, init=False)

    def route(self, topology: Topology, src: int, dst: int) -> Route:
        """Return the route of one pair."""
        found = self.routes(topology, np.array([src]), np.array([dst]))
        return Route(found.links, found.weights, int(found.latency_ps[0]))

    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return the routes of many pairs at once."""
        nodes = self._node_of(src), self._node_of(dst)
        chips = src - self.first_chip[nodes[0]], dst - self.first_chip[nodes[1]]
        inside = self._inside(nodes, chips)
        across = np.setdiff1d(np.arange(len(src)), np.concatenate([pairs for pairs, _ in inside]), assume_unique=True)
        found = inside
        if self.net is not None and across.size:
            found = [*inside, (across, self._across(self.net, _at(nodes, across), _at(chips, across)))]
        ways = Ways.join(found)
        served = np.bincount(ways.pair, ways.share, minlength=len(src))
        ways = evolve(ways, share=ways.share / served[ways.pair])
        rest = np.flatnonzero(served == 0)
        if rest.size:
            routes = ShortestPathRouter().routes(topology, src[rest], dst[rest])
            ways = Ways.join([(np.arange(len(src)), ways), (rest, Ways.of(routes, topology, dst[rest]))])
        return ways.routes(topology, len(src))

    @property
    def _all_doors(self) -> list[Doors]:
        return [part.doors for part in self.parts if part.doors is not None]

    def _node_of(self, chip: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self.first_chip, chip, side="right") - 1

    def _inside(self, nodes: _Both, chips: _Both) -> list[tuple[NDArray[np.int64], Ways]]:
        """Return the pairs that a node can route inside, and their ways, for every kind of node."""
        found = []
        for number, part in enumerate(self.parts):
            same = np.flatnonzero((nodes[0] == nodes[1]) & (self.part_of[nodes[0]] == number))
            island = part.inside.island_of_node
            src, dst = _at(chips, same)
            joined = island[src] == island[dst]
            same, src, dst = same[joined], src[joined], dst[joined]
            ways = Ways.of(part.inside.routes(src, dst), part.inside, dst)
            found.append((same, ways.moved(self.first_link[nodes[0][same]])))
        return found

    def _across(self, net: Net, nodes: _Both, chips: _Both) -> Ways:
        """Return the ways of pairs through the network, as far as there are any."""
        (first, count), (first_in, count_in) = (self._doors(n, c) for n, c in zip(nodes, chips, strict=True))
        count = np.where(count_in > 0, count, 0)
        pair = np.repeat(np.arange(len(count)), count)
        turn = ragged(np.zeros_like(count), count)
        door = first[pair] + turn
        all_nics = np.concatenate([doors.nic for doors in self._all_doors])
        nic_out = all_nics[door]
        nic_in = nic_out if net.each else all_nics[first_in[pair] + turn % count_in[pair]]
        ways = Ways.chained(
            self._legs(nodes[0][pair], nic_out, chips[0][pair], outwards=True),
            net.legs(_at(nodes, pair), (nic_out, nic_in)),
            self._legs(nodes[1][pair], nic_in, chips[1][pair], outwards=False),
        )
        share = np.concatenate([doors.share for doors in self._all_doors])[door]
        return evolve(ways, pair=pair[ways.pair], share=ways.share * share[ways.pair])

    def _doors(self, node: NDArray[np.int64], chip: NDArray[np.int64]) -> _Both:
        """Return the first door of each chip, counting the kinds of node one after the other, and how many it has."""
        counts = np.concatenate([np.diff(doors.start) for doors in self._all_doors])
        firsts = np.cumsum(counts) - counts
        before = np.cumsum([0, *(part.inside.n_chips for part in self.parts)])
        place = before[self.part_of[node]] + chip
        return firsts[place], counts[place]

    def _legs(
        self, node: NDArray[np.int64], nic: NDArray[np.int64], chip: NDArray[np.int64], *, outwards: bool
    ) -> Ways:
        found = []
        for number, part in enumerate(self.parts):
            mine = np.flatnonzero(self.part_of[node] == number)
            ways = part.legs(nic[mine], chip[mine], outwards=outwards)
            found.append((mine, ways.moved(self.first_link[node[mine]])))
        return Ways.join(found)


_Both = tuple["NDArray[np.int64]", "NDArray[np.int64]"]


def _at(both: _Both, places: NDArray[np.int64]) -> _Both:
    return both[0][places], both[1][places]
