"""What joins chips: links, a kind of topology, a routing."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Protocol

from attrs import field, frozen

from configs.fields import between

MOST_LINKS = 10_000  # parallel links of one edge


@frozen
class LinkSpec:
    """An edge: `count` parallel links, each of this bandwidth per direction."""

    bandwidth_bytes_per_s: float
    latency_ps: int
    count: int = field(default=1, metadata=between(1, MOST_LINKS))


@frozen
class RoutingSpec:
    """How a transfer finds its way (docs/topologies.md has the table of kinds and routings).

    ties: which of two equally short ways round a ring.
    spread: which of several equal paths: by destination modulo their number, or by a hash of (source, destination).
    planes: behind switch planes, a transfer is split over all of them, or goes over one that its pair chooses.
    """

    kind: Literal["dimension_order", "shortest", "ecmp", "up_down", "minimal", "valiant"] = "dimension_order"
    ties: Literal["positive", "alternate"] = "positive"
    spread: Literal["modulo", "hash"] = "modulo"
    planes: Literal["split", "hash"] = "split"


class TopologySpec(Protocol):
    """The parameters of one kind of topology (a frozen class in topology/kinds); it can build itself.

    routings: the kinds of routing that fit it.
    """

    routings: ClassVar[tuple[str, ...]]

    def build(self, routing: RoutingSpec) -> Any:
        """Return the `topology.Topology` that these parameters describe."""
