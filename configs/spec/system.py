"""A system: chips, what joins them, and the library that drives it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from configs.spec.chip import ChipSpec
from configs.spec.communication import CommunicationSpec
from configs.spec.faults import FaultsSpec
from configs.spec.provenance import Provenance
from configs.spec.topology import RoutingSpec, TopologySpec


@frozen
class SystemSpec:
    """Chips joined by a topology, and what the communication library adds."""

    name: str
    chip: ChipSpec
    topology: TopologySpec
    routing: RoutingSpec = RoutingSpec()
    communication: CommunicationSpec = CommunicationSpec()
    faults: FaultsSpec = FaultsSpec()
    description: str = field(default="", eq=False)
    provenance: Mapping[str, Provenance] = field(factory=dict, eq=False)
