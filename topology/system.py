"""What a system is made of: what connects its live chips, and which chip is where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from attrs import evolve

from configs.errors import ConfigError
from configs.spec.communication import CommunicationSpec
from configs.spec.kernels import KernelsSpec
from configs.spec.system import SystemSpec
from configs.spec.topology import RoutingSpec
from topology.faults import with_faults
from topology.kinds.compose import Compose

if TYPE_CHECKING:
    from configs.spec.chip import ChipSpec
    from topology.graph import Topology


def build_topology(system: SystemSpec) -> Topology:
    """Return what connects the live chips of a system; raise ConfigError for a fault of what it does not have."""
    topology: Topology = system.topology.build(system.routing)
    try:
        return with_faults(topology, system.faults)
    except ConfigError as error:
        raise ConfigError(tuple(f"system {system.name}: {problem}" for problem in error.problems)) from None


def chips_of(system: SystemSpec, topology: Topology) -> tuple[ChipSpec, ...]:
    """Return the chip of every rank.

    It is the system's own, but for nodes of a composed topology that are systems: they bring theirs. Raises ConfigError
    where two chips have one name and other figures, since an override may have reached one of them alone.
    """
    nodes = list(node_systems(system.topology))
    known = {system.chip.name: system.chip}
    for node in nodes:
        if known.setdefault(node.chip.name, node.chip) != node.chip:
            what = f"node {node.name} has a chip {node.chip.name} with other figures than another of that name"
            raise ConfigError((f"system {system.name}: {what}; accepted: the same figures, or another name",))
    if len(known) == 1:
        return (system.chip,) * topology.n_chips
    chips = [chip for n_chips, chip in _runs(system.topology, system.chip) for _ in range(n_chips)]
    return tuple(chips[place] for place in topology.positions.tolist())


def ideal(system: SystemSpec) -> SystemSpec:
    """Return a system, and those that it is composed of, without what libraries and kernels fall short of.

    >>> from configs.spec.chip import ChipSpec
    >>> from configs.spec.communication import CommunicationSpec
    >>> from configs.spec.topology import LinkSpec
    >>> from topology.kinds.ring import Ring
    >>> ring, library = Ring(dims=(4,), link=LinkSpec(1e9, latency_ps=0)), CommunicationSpec(launch_ps=1000)
    >>> ideal(SystemSpec("ring", ChipSpec("toy", {}, ()), ring, communication=library)).communication.launch_ps
    0
    """
    topology: Any = system.topology
    if isinstance(topology, Compose):
        topology = _ideal_nodes(topology)
    chip = evolve(system.chip, kernels=KernelsSpec())
    return evolve(system, chip=chip, topology=topology, communication=CommunicationSpec())


def _ideal_nodes(topology: Compose) -> Compose:
    def of(node: Any) -> Any:
        if isinstance(node, SystemSpec):
            return ideal(node)
        return _ideal_nodes(node) if isinstance(node, Compose) else node

    if topology.node is not None:
        return evolve(topology, node=of(topology.node))
    return evolve(topology, parts=tuple(evolve(part, node=of(part.node)) for part in topology.parts))


def node_systems(topology: Any) -> Iterator[SystemSpec]:
    """Yield the systems that are nodes of a composed topology, at any depth; each before its own nodes."""
    for kind in topology.kinds if isinstance(topology, Compose) else ():
        if isinstance(kind.node, SystemSpec):
            yield kind.node
            yield from node_systems(kind.node.topology)
        else:
            yield from node_systems(kind.node)


def _runs(topology: Any, chip: ChipSpec) -> list[tuple[int, ChipSpec]]:
    """Return (number of chips, which chip) in the order of the places; nodes of no chip of their own have `chip`."""
    if not isinstance(topology, Compose):
        return [(topology.build(RoutingSpec()).n_chips, chip)]
    runs = []
    for kind in topology.kinds:
        node: Any = kind.node
        is_system = isinstance(node, SystemSpec)
        runs += _runs(node.topology if is_system else node, node.chip if is_system else chip) * kind.count
    return runs
