"""What the serving software makes of a system: more time between kernels and before collectives."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from configs.spec import ChipSpec, SoftwareSpec, SystemSpec
from topology.kinds.compose import Compose


def served(system: SystemSpec, software: SoftwareSpec) -> SystemSpec:
    """Return the system as programs find it that run under this software."""
    if not (software.kernel_ps or software.call_ps):
        return system

    def slowed(chip: ChipSpec) -> ChipSpec:
        return evolve(chip, kernel_launch_ps=chip.kernel_launch_ps + software.kernel_ps)

    communication = evolve(system.communication, launch_ps=system.communication.launch_ps + software.call_ps)
    return evolve(_each_chip(system, slowed), communication=communication)


def _each_chip(system: SystemSpec, change: Any) -> SystemSpec:
    return evolve(system, chip=change(system.chip), topology=_nodes(system.topology, change))


def _nodes(topology: Any, change: Any) -> Any:
    """Return a topology in which the nodes that are systems have changed chips."""
    if isinstance(topology, SystemSpec):
        return _each_chip(topology, change)
    if not isinstance(topology, Compose):
        return topology
    parts = tuple(evolve(part, node=_nodes(part.node, change)) for part in topology.parts)
    return evolve(topology, node=None if topology.node is None else _nodes(topology.node, change), parts=parts)
