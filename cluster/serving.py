"""What the serving software makes of a system: its kernels, more time between them and before collectives."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from attrs import evolve

from configs.loader import load_kernels
from configs.spec.chip import ChipSpec
from configs.spec.kernels import KernelsSpec
from configs.spec.software import SoftwareSpec
from configs.spec.system import SystemSpec
from topology.kinds.compose import Compose


def served(system: SystemSpec, software: SoftwareSpec, n_chips: int) -> SystemSpec:
    """Return the system as programs find it that run under this software on so many of its chips."""
    floor_ps = software.dispatch_ps * (n_chips if software.one_host else 1)
    if not (software.kernel_ps or software.call_ps or floor_ps or software.kernels):
        return system

    def changed(chip: ChipSpec) -> ChipSpec:
        own = software.kernels.get(chip.kernels.name)
        return evolve(
            chip, kernel_launch_ps=chip.kernel_launch_ps + software.kernel_ps,
            kernel_floor_ps=max(chip.kernel_floor_ps, floor_ps),
            kernels=chip.kernels if own is None else _kernels(own),
        )  # fmt: skip

    communication = evolve(system.communication, launch_ps=system.communication.launch_ps + software.call_ps + floor_ps)
    return evolve(_each_chip(system, changed), communication=communication)


def host_ps(software: SoftwareSpec, n_replicas: int) -> tuple[int, int]:
    """Return how long a replica waits for the host before every step, and for every row of its own.

    >>> host_ps(SoftwareSpec(step_ps=5, row_ps=3, one_host=True), 4)
    (20, 3)
    """
    return software.step_ps * (n_replicas if software.one_host else 1), software.row_ps


@lru_cache(maxsize=16)
def _kernels(name: str) -> KernelsSpec:
    return load_kernels(name)


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
