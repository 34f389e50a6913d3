"""Routers: how a transfer finds its way.

`dimension_order` (the default) is each kind's natural routing: dimension order on grids (of the fewest hops on twisted
ones), the direct link where all chips are joined, all planes at once behind switches, up and down in a fat tree,
minimal in a dragonfly, and the shortest path on any other graph. `shortest` and `ecmp` are one path of the fewest links
on every kind. The other routings fit the kinds that name them in their `routings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from configs.errors import ConfigError
from topology.routing.dimension_order import DimensionOrderRouter
from topology.routing.direct import DirectRouter
from topology.routing.dragonfly import DragonflyPlan, MinimalRouter, ValiantRouter
from topology.routing.planes import OnePlaneRouter, PlaneRouter
from topology.routing.shortest import EcmpRouter, ShortestPathRouter
from topology.routing.twisted import TwistedRouter
from topology.routing.up_down import FatTreePlan, UpDownRouter

if TYPE_CHECKING:
    from configs.spec.topology import RoutingSpec
    from topology.graph import Router

__all__ = [
    "ON_ANY_GRAPH",
    "DimensionOrderRouter",
    "DirectRouter",
    "DragonflyPlan",
    "EcmpRouter",
    "FatTreePlan",
    "MinimalRouter",
    "OnePlaneRouter",
    "PlaneRouter",
    "ShortestPathRouter",
    "TwistedRouter",
    "UpDownRouter",
    "ValiantRouter",
    "choose_router",
]

ON_ANY_GRAPH = ("dimension_order", "shortest", "ecmp")


def choose_router(routing: RoutingSpec, natural: Router, others: Mapping[str, Router] | None = None) -> Router:
    """Return the router asked for: the kind's natural one, one that fits any graph, or one of `others`.

    Raises ConfigError where the routing does not fit the kind.
    """
    fitting: dict[str, Router] = {
        "dimension_order": natural,
        "shortest": ShortestPathRouter(),
        "ecmp": EcmpRouter(routing.spread),
        **(others or {}),
    }
    if routing.kind not in fitting:
        raise ConfigError((f"routing.kind: {routing.kind!r} does not fit here; accepted: {', '.join(fitting)}",))
    return fitting[routing.kind]
