"""The one graph type: chips, switches and directed links, as flat arrays."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray


@frozen(eq=False)
class Route:
    """The links that a transfer uses.

    A transfer of n bytes puts `weights[i] * n` bytes on link `links[i]`: 1 on a plain path, less where it is split
    over switch planes. `latency_ps` is the sum along the (longest) path.
    """

    links: NDArray[np.int32]
    weights: NDArray[np.float64]
    latency_ps: int


class Router(Protocol):
    """Find the route between two chips of a topology."""

    def route(self, topology: Topology, src: int, dst: int) -> Route:
        """Return the links from chip `src` to chip `dst` (src ≠ dst), in order."""


@frozen(eq=False)
class Topology:
    """Chips 0…n_chips-1, switches n_chips…n_nodes-1, and directed links between them.

    Every two-way edge is two directed links, listed one after the other; parallel physical links of one edge are one
    directed link of the summed bandwidth with `link_count` lanes. `dims`/`axes` name the chips' coordinates, row-major
    (last axis fastest); a topology without a grid has one axis, `chips`.
    """

    kind: str
    n_chips: int
    n_switches: int
    link_src: NDArray[np.int32]
    link_dst: NDArray[np.int32]
    link_bandwidth_bytes_per_s: NDArray[np.float64]
    link_latency_ps: NDArray[np.int64]
    link_count: NDArray[np.int32]
    dims: tuple[int, ...]
    axes: tuple[str, ...]
    wraps: tuple[bool, ...]
    router: Router = field(repr=False)
