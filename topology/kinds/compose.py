"""Compose: nodes joined by a network, by cables, or both; a node is any topology, also a composed one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from attrs import evolve, field, frozen

from configs.errors import ConfigError
from configs.fields import at_least
from configs.spec.faults import FaultsSpec
from configs.spec.system import SystemSpec
from configs.spec.topology import LinkSpec, RoutingSpec, TopologySpec
from topology.assemble import Layout, copies, merge
from topology.checks import MAX_CHIPS, MAX_EDGES, link_problems, reject
from topology.edges import Edges
from topology.graph import Topology
from topology.members import members_of
from topology.nics import Nics, find_doors, place_nics
from topology.routing import ON_ANY_GRAPH, choose_router
from topology.routing.composed import ComposedRouter, Net, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Member = int | str
"""What `topology.members` reads: a chip's number, `chip3`, `switch1`, `chips`, `switches`, or coordinates (`x=7`)."""


@frozen
class Nodes:
    """So many equal nodes among others."""

    node: TopologySpec
    count: int = field(default=1, metadata=at_least(1))


@frozen
class Cable:
    """Links between two nodes; each end is [node, members], and the members are joined one by one."""

    between: tuple[tuple[int, Member], tuple[int, Member]]
    link: LinkSpec | None = None


@frozen
class Compose:
    """Nodes, each a topology (or the name of a system), joined by a network and by cables.

    node, count: equal nodes, in a row or in a grid (`count: [2, 2]`); its `axes` go before the node's own.
    parts: in their place, nodes that differ, one kind after the other; then there is no grid.
    network: joins the NICs: its end point j * NICs + i is NIC i of node j.
    network_routing: how transfers go there; the system's `routing` is for the whole: by nodes and network, or not.
    nics: what a node's NICs are part of: its `chips` (one each), its `switches`, a list of members, or a number of
        NICs, dealt out evenly.
    nic_link: makes every NIC a node of its own, joined by such a link to its chip, or chips: `nics: [[0, 1], [2, 3]]`.
    each_nic: every NIC number has a network of its own, whose end point j is on node j: a ring through equal chips.
    cables, link: links between nodes; `link` is that of cables without one.

    >>> from topology.kinds.switch import Switch
    >>> nvlink, ib = LinkSpec(450e9, latency_ps=500_000), LinkSpec(50e9, latency_ps=1_000_000)
    >>> pod = Compose(node=Switch(8, nvlink), count=4, network=Switch(32, ib)).build(RoutingSpec())
    >>> pod.dims, pod.axes, pod.n_switches, pod.axis_ranks(9, "node")
    ((4, 8), ('node', 'chips'), 5, (1, 9, 17, 25))
    >>> [pod.link_name(link) for link in pod.route(0, 9).links]
    ['chip0→switch4', 'switch4→chip9']
    """

    routings: ClassVar[tuple[str, ...]] = ON_ANY_GRAPH

    node: TopologySpec | None = None
    count: int | tuple[int, ...] = field(default=1, metadata=at_least(1))
    axes: tuple[str, ...] = ()
    parts: tuple[Nodes, ...] = ()
    network: TopologySpec | None = None
    network_routing: RoutingSpec = field(default=RoutingSpec())
    nics: int | str | tuple[Member | tuple[Member, ...], ...] = "chips"
    nic_link: LinkSpec | None = None
    each_nic: bool = False
    cables: tuple[Cable, ...] = ()
    link: LinkSpec | None = None

    def __attrs_post_init__(self) -> None:
        if (self.node is None) == (not self.parts):
            given = "both" if self.parts else "neither"
            raise ConfigError((f"{given} of node and parts given; accepted: one of them",))
        problems = link_problems(self.link) if self.link else []
        problems += [f"nic_{problem}" for problem in link_problems(self.nic_link)] if self.nic_link else []
        for i, cable in enumerate(self.cables):
            problems += [f"cables[{i}].{problem}" for problem in link_problems(cable.link)] if cable.link else []
            if cable.link is None and self.link is None:
                problems.append(f"cables[{i}]: has no link; accepted: one here or in `link`")
        reject(problems + self._count_problems())
        self.build(RoutingSpec())  # what is wrong with the nodes and the network together

    def build(self, routing: RoutingSpec) -> Topology:
        """Return the nodes, the network and the cables as one topology, numbered as `topology.assemble` says.

        The diameter is searched for. Where every chip has as many NICs and the network can carry what the NICs of any
        half can, the bisection is that of the NICs of half of the nodes; else it is searched for as well.
        """
        inner = evolve(routing, kind="dimension_order")
        insides = [_inside(kind.node, inner) for kind in self.kinds]
        counts = [kind.count for kind in self.kinds]
        _check_size(insides, counts)
        nics = [place_nics(inside, self.nics, self.nic_link) for inside in insides] if self.network else []
        layout = Layout.of(list(zip([n.node for n in nics] or insides, counts, strict=True)))
        edges, n_switches, net = [layout.edges()], layout.n_nodes - layout.n_chips, None
        adding = layout.adding_switches(insides)
        if self.network is not None:
            net = self._net(layout, nics, self.network.build(self.network_routing))
            at = self._end_points(layout, nics, net)
            switches = layout.n_nodes + np.arange(len(at) * net.inside.n_switches).reshape(len(at), -1)
            nodes = np.concatenate([at, switches], axis=1)
            edges.append(copies(net.inside, nodes[:, net.inside.link_src[::2]], nodes[:, net.inside.link_dst[::2]]))
            n_switches += switches.size
            adding |= set((switches[:, sorted(net.inside.adding_switches)] - layout.n_chips).reshape(-1).tolist())
        edges += self._cables(layout, insides)
        merged, link_of = merge(Edges.joined(*edges))
        if net is not None:
            net = evolve(net, links=link_of[net.links])
        parts = [Part(inside) for inside in insides]
        for kind, nic in enumerate(nics):
            assert net is not None
            doors = find_doors(nic, _nic_bandwidths(layout, nic, net, kind), every=net.each)
            parts[kind] = Part(insides[kind], nic.members, doors)
        router = ComposedRouter(tuple(parts), layout.kind_of, layout.first_chip, 2 * layout.first_edge, net)
        return Topology.from_edges(
            "compose", merged, n_chips=layout.n_chips, n_switches=n_switches, **self._grid(insides, net),
            adding_switches=frozenset(adding), router=choose_router(routing, router),
            domain_of_chip=_domains(layout, insides) if net is not None else None,
            known_bisection_bytes_per_s=self._bisection_bytes_per_s(layout, nics, net),
        )  # fmt: skip

    @property
    def kinds(self) -> tuple[Nodes, ...]:
        """The kinds of node, in the order of their chips."""
        return self.parts if self.node is None else (Nodes(self.node, math.prod(self._outer)),)

    @property
    def _outer(self) -> tuple[int, ...]:
        return (self.count,) if isinstance(self.count, int) else self.count

    def _count_problems(self) -> list[str]:
        problems = [f"count: {n}; accepted: at least 1" for n in self._outer if n < 1]
        if not self._outer:
            problems.append("count: at least one number is needed, got none")
        if self.parts and (self.axes or self.count != 1):
            problems.append("axes: are for equal nodes; accepted: node and count in place of parts")
        if self.axes and len(self.axes) != len(self._outer):
            problems.append(f"axes: {len(self.axes)} names {list(self.axes)} for a count of {list(self._outer)}")
        if self.each_nic and self.parts:
            problems.append("each_nic: needs equal nodes; accepted: node and count in place of parts")
        if self.network is None and (self.each_nic or self.nic_link or self.nics != "chips"):
            problems.append("network: is missing; accepted: a network for the NICs")
        return problems

    def _net(self, layout: Layout, nics: Sequence[Nics], network: Topology) -> Net:
        """Return the network, its links numbered after those of the nodes; raise ConfigError if it has another size."""
        per_node = np.array([n.n_nics for n in nics])[layout.kind_of]
        n_nodes = len(per_node)
        wanted, n_copies = (n_nodes, nics[0].n_nics) if self.each_nic else (int(per_node.sum()), 1)
        if network.n_chips != wanted:
            what = f"the {n_nodes} nodes" if self.each_nic else f"the NICs of all {n_nodes} nodes"
            raise ConfigError((f"network: has {network.n_chips} end points; accepted: {wanted}, {what}",))
        links = 2 * layout.n_edges + np.arange(n_copies * len(network.link_src)).reshape(n_copies, -1)
        return Net(network, links, np.cumsum(per_node) - per_node, self.each_nic)

    @staticmethod
    def _end_points(layout: Layout, nics: Sequence[Nics], net: Net) -> NDArray[np.int64]:
        """Return what the end points of every copy of the network are in the whole: [copy, end point]."""
        nodes = np.arange(len(layout.kind_of))
        if net.each:
            return layout.number(nodes[None, :], nics[0].members[:, None])
        per_node = np.array([n.n_nics for n in nics])[layout.kind_of]
        node = np.repeat(nodes, per_node)
        members = np.concatenate([nics[kind].members for kind in layout.kind_of.tolist()])
        return layout.number(node, members)[None, :]

    def _cables(self, layout: Layout, insides: Sequence[Topology]) -> list[Edges]:
        """Return the edges of all cables; raise ConfigError with what is wrong with them."""
        found, problems = [], []
        for i, cable in enumerate(self.cables):
            link = cable.link or self.link
            assert link is not None
            try:
                src, dst = (_end(layout, insides, *end) for end in cable.between)
            except ConfigError as error:
                problems += [f"cables[{i}]: {problem}" for problem in error.problems]
                continue
            if len(src) == len(dst):
                found.append(Edges.uniform(link, src, dst))
            else:
                problems.append(f"cables[{i}]: joins {len(src)} to {len(dst)}; accepted: as many at both ends")
        reject(problems)
        return found

    def _grid(self, insides: Sequence[Topology], net: Net | None) -> dict[str, Any]:
        """Return dims, axes and wraps: those of the nodes, then those inside a node."""
        if self.parts:
            return {}
        outer, inside = self._outer, insides[0]
        names = tuple("node" if len(outer) == 1 else f"node{k}" for k in range(len(outer)))
        axes = (*(self.axes or names), *inside.axes)
        if len(set(axes)) != len(axes) or "" in axes:
            raise ConfigError(
                (f"axes: {', '.join(axes)}: names must be different; accepted: names for the nodes' axes",)
            )
        chips = net is not None and net.each and self.nics == "chips" and self.nic_link is None
        wraps = net.inside.wraps if net is not None and chips and net.inside.dims == outer else (False,) * len(outer)
        return {"dims": (*outer, *inside.dims), "axes": axes, "wraps": (*wraps, *inside.wraps)}

    def _bisection_bytes_per_s(self, layout: Layout, nics: Sequence[Nics], net: Net | None) -> float | None:
        """Return the bisection if the network is no narrower than the NICs of half of the nodes; None if it may be.

        A half of the chips has half of the end points, so no cut is less than the network's own bisection.
        """
        if net is None or self.parts or self.each_nic or len(layout.kind_of) % 2 or not nics[0].are_even:
            return None
        half = _nic_bandwidths(layout, nics[0], net, 0).sum() * len(layout.kind_of) / 2
        return float(half) if net.inside.known_bisection_bytes_per_s == half else None


def _domains(layout: Layout, insides: Sequence[Topology]) -> NDArray[np.int64]:
    """Return the node of every chip; of nodes that are composed themselves, the nodes in them."""
    inner = [np.zeros(t.n_chips, np.int64) if t.domain_of_chip is None else t.domain_of_chip for t in insides]
    found, first = [], 0
    for kind in layout.kind_of.tolist():
        found.append(first + inner[kind])
        first += int(inner[kind].max()) + 1
    return np.concatenate(found)


def _inside(node: Any, routing: RoutingSpec) -> Topology:
    """Return what connects the chips of a node: of a topology, or of a system with its own routing."""
    if isinstance(node, SystemSpec) and node.faults != FaultsSpec():
        raise ConfigError((f"node: system {node.name} has faults; accepted: faults of the composed system",))
    built: Topology = node.topology.build(node.routing) if isinstance(node, SystemSpec) else node.build(routing)
    return built


def _check_size(insides: Sequence[Topology], counts: Sequence[int]) -> None:
    n_chips = sum(inside.n_chips * count for inside, count in zip(insides, counts, strict=True))
    n_edges = sum(len(inside.link_src) // 2 * count for inside, count in zip(insides, counts, strict=True))
    for what, n, limit in (("chips", n_chips, MAX_CHIPS), ("edges", n_edges, MAX_EDGES)):
        if n > limit:
            raise ConfigError((f"count: at most {limit:,} {what}, got {n:,}",))


def _nic_bandwidths(layout: Layout, nics: Nics, net: Net, kind: int) -> NDArray[np.float64]:
    """Return what the network's links at each NIC of the first node of a kind carry together."""
    links = net.inside
    leaving = np.zeros(links.n_nodes)
    np.add.at(leaving, links.link_src, links.link_bandwidth_bytes_per_s)
    first = int(net.first[np.flatnonzero(layout.kind_of == kind)[0]])
    return leaving[:1].repeat(nics.n_nics) if net.each else leaving[first : first + nics.n_nics]


def _end(layout: Layout, insides: Sequence[Topology], node: int, name: Member) -> NDArray[np.int64]:
    """Return the members of a node at one end of a cable, as they are called in the whole."""
    n_nodes = len(layout.kind_of)
    if not 0 <= node < n_nodes:
        raise ConfigError((f"no node {node}; accepted: 0 to {n_nodes - 1}",))
    return layout.number(np.array([node]), members_of(insides[int(layout.kind_of[node])], name))
