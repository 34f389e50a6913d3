"""Dead links, chips and switches, and how transfers go around them.

Ranks number the live chips, in the order of their coordinates; chips keep their coordinates and names. So with chip 5
of a mesh dead, rank 5 is `chip6`, and the line through the hole has one chip less. A dead switch keeps its number and
has no links.

Routing stays what it was for all whose way is whole. A transfer that is split over several ways (switch planes) leaves
the broken ones; each other way takes its share times what is left of its narrowest edge. Where no way is left, the
transfer goes the shortest way there is now: of the fewest links, and of several the one whose nodes come first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve, field, frozen

from configs.errors import ConfigError
from configs.spec.faults import LinkFault
from topology.checks import reject
from topology.edges import Edges
from topology.graph import Topology
from topology.routes import Route, Routes
from topology.routing import ShortestPathRouter
from topology.ways import Ways

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from configs.spec.faults import FaultsSpec

MOST_NAMED = 8  # pairs or neighbours in a message
_NODE = re.compile(r"(chip|switch)(\d{1,9})")


def with_faults(whole: Topology, faults: FaultsSpec) -> Topology:
    """Return a topology without what is dead; raise ConfigError with every fault that does not fit it.

    >>> from configs.spec.faults import FaultsSpec
    >>> from configs.spec.topology import LinkSpec, RoutingSpec
    >>> from topology import Mesh
    >>> mesh = Mesh(dims=(2, 3), link=LinkSpec(1e9, latency_ps=0)).build(RoutingSpec())
    >>> broken = with_faults(mesh, FaultsSpec(links=("chip0-chip1",)))
    >>> [broken.link_name(link) for link in broken.route(0, 1).links]
    ['chip0→chip3', 'chip3→chip4', 'chip4→chip1']
    """
    if not faults.links and not faults.chips and not faults.switches:
        return whole
    dead, lost = np.zeros(whole.n_nodes, bool), np.zeros(len(whole.link_src) // 2, np.int64)
    problems = _note_dead("chips", faults.chips, dead[: whole.n_chips])
    problems += _note_dead("switches", faults.switches, dead[whole.n_chips :])
    for i, fault in enumerate(faults.links):
        problems += [f"faults.links[{i}]: {problem}" for problem in _note_lost(whole, LinkFault.of(fault), lost)]
    if not problems and dead[: whole.n_chips].all():
        problems.append(f"faults.chips: all {whole.n_chips} chips are dead; accepted: at least one left")
    reject(problems)
    left = 1 - np.repeat(lost, 2) / whole.link_count
    left[dead[whole.link_src] | dead[whole.link_dst]] = 0
    return _without(whole, dead, left)


def _note_dead(key: str, numbers: Sequence[int], dead: NDArray[np.bool_]) -> list[str]:
    """Mark the nodes of these numbers as dead; return what is wrong with the list."""
    problems = []
    for i, number in enumerate(numbers):
        if number >= len(dead):
            accepted = f"0 to {len(dead) - 1}" if len(dead) else "none, there are no switches here"
            problems.append(f"faults.{key}[{i}]: {number}; accepted: {accepted}")
        elif dead[number]:
            problems.append(f"faults.{key}[{i}]: {number} is there twice; accepted: once")
        else:
            dead[number] = True
    return problems


def _note_lost(whole: Topology, fault: LinkFault, lost: NDArray[np.int64]) -> list[str]:
    """Add the dead links of one fault to those lost by each edge; return what is wrong with it."""
    try:
        ends = _ends(whole, fault.link)
        edge = whole.link_between(*ends) // 2
    except ConfigError as error:
        return list(error.problems)
    there = int(whole.link_count[2 * edge])
    count = there if fault.count is None else fault.count
    if lost[edge]:
        return [f"{fault.link}: is there twice; accepted: once, with a count"]
    if count > there:
        return [f"{fault.link}: {count} links dead; accepted: 1 to {there}, which this edge has"]
    lost[edge] = count
    return []


def _ends(whole: Topology, name: str) -> tuple[int, int]:
    """Return the nodes at both ends of a link; raise ConfigError where there is no such link."""
    words = [word.strip() for word in re.split("-|→", name)]
    if len(words) != 2:
        raise ConfigError((f"{name!r} is no link; accepted: two neighbours such as {_some_link(whole)}",))
    nodes = [_node(whole, word) for word in words]
    near = whole.neighbours(nodes[0])
    if nodes[1] not in near:
        names = [whole.node_name(int(node)) for node in near[:MOST_NAMED]]
        more = ", …" if len(near) > MOST_NAMED else ""
        raise ConfigError((f"no link {'-'.join(words)}; {words[0]} is linked to {', '.join(names) or 'none'}{more}",))
    return nodes[0], nodes[1]


def _node(whole: Topology, word: str) -> int:
    found = _NODE.fullmatch(word)
    if found is None:
        raise ConfigError((f"{word!r} is no end of a link; accepted: two neighbours such as {_some_link(whole)}",))
    kind, number = found[1], int(found[2])
    first, count = (0, whole.n_chips) if kind == "chip" else (whole.n_chips, whole.n_switches)
    if number >= count:
        accepted = f"{kind}0 to {kind}{count - 1}" if count else "none, there are no switches here"
        raise ConfigError((f"no {kind} {number}; accepted: {accepted}",))
    return first + number


def _some_link(whole: Topology) -> str:
    return whole.link_name(0).replace("→", "-") if len(whole.link_src) else "none, there are no links here"


def _without(whole: Topology, dead: NDArray[np.bool_], left: NDArray[np.float64]) -> Topology:
    """Return the topology of the live chips and all switches; `left` is the fraction of every link that is alive."""
    is_left = ~dead | (np.arange(whole.n_nodes) >= whole.n_chips)
    node_of, rank_of = np.flatnonzero(is_left), np.cumsum(is_left) - 1
    kept = np.flatnonzero(left[::2] > 0) * 2
    alive = left[kept]
    edges = Edges(
        rank_of[whole.link_src[kept]].astype(np.int32),
        rank_of[whole.link_dst[kept]].astype(np.int32),
        whole.link_bandwidth_bytes_per_s[kept] * alive,
        whole.link_latency_ps[kept],
        np.rint(whole.link_count[kept] * alive).astype(np.int32),
    )
    link_of = np.full(len(left), -1, np.int32)
    link_of[kept], link_of[kept + 1] = 2 * np.arange(len(kept)), 2 * np.arange(len(kept)) + 1
    live_chips = node_of[node_of < whole.n_chips]
    return Topology.from_edges(
        whole.kind, edges, n_chips=len(live_chips), n_switches=whole.n_switches,
        dims=whole.dims, axes=whole.axes, wraps=whole.wraps, positions=whole.positions[live_chips],
        adding_switches=whole.adding_switches - set((np.flatnonzero(dead) - whole.n_chips).tolist()),
        domain_of_chip=None if whole.domain_of_chip is None else whole.domain_of_chip[live_chips],
        router=DetourRouter(whole, node_of, link_of, left),
    )  # fmt: skip


@frozen(eq=False)
class DetourRouter:
    """Go as in the whole topology where that way is alive, and around where it is not.

    whole: the topology without faults.  node_of: the number there of every node here.
    link_of, left: by the whole's links: the number here (-1 for a dead one), the fraction that is alive.
    """

    whole: Topology
    node_of: NDArray[np.int64]
    link_of: NDArray[np.int32]
    left: NDArray[np.float64]
    is_uniform: bool = field(default=False, init=False)

    def route(self, topology: Topology, src: int, dst: int) -> Route:
        """Return the route of one pair."""
        found = self.routes(topology, np.array([src]), np.array([dst]))
        return Route(found.links, found.weights, int(found.latency_ps[0]))

    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return the routes of many pairs; raise ConfigError with the pairs that are cut off."""
        refuse_cut_off(topology, src, dst)
        usual, is_whole = self._usual(topology, src, dst)
        broken = np.flatnonzero(~is_whole)
        if not broken.size:
            return usual
        around = ShortestPathRouter().routes(topology, src[broken], dst[broken])
        number = np.arange(len(src))
        number[broken] = len(src) + np.arange(len(broken))
        return Routes.join([usual, around]).select(number)

    def _usual(
        self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]
    ) -> tuple[Routes, NDArray[np.bool_]]:
        """Return what is left of the whole topology's routes, and which pairs have a way left."""
        ends = self.node_of[dst]
        ways = Ways.of(self.whole.routes(self.node_of[src], ends), self.whole, ends)
        narrowest = np.minimum.reduceat(self.left[ways.links], ways.start[:-1]) if len(ways.links) else np.zeros(0)
        alive = ways.select(np.flatnonzero(narrowest > 0))
        share = alive.share * narrowest[narrowest > 0]
        total = np.bincount(alive.pair, share, minlength=len(src))
        alive = evolve(alive, share=share / total[alive.pair], links=self.link_of[alive.links].astype(np.int64))
        return alive.routes(topology, len(src)), total > 0


def refuse_cut_off(topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> None:
    """Raise ConfigError with the pairs of chips that have no path between them, if there are any."""
    island = topology.island_of_node
    cut_off = np.flatnonzero(island[src] != island[dst])
    if cut_off.size:
        pairs = zip(src[cut_off[:MOST_NAMED]].tolist(), dst[cut_off[:MOST_NAMED]].tolist(), strict=True)
        names = ", ".join(f"{topology.node_name(a)} from {topology.node_name(b)}" for a, b in pairs)
        more = f", … ({cut_off.size} pairs in all)" if cut_off.size > MOST_NAMED else ""
        raise ConfigError((f"faults: no path is left; cut off: {names}{more}",))
