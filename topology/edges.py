"""What a topology is made of: two-way edges, as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from configs.spec.topology import LinkSpec


@frozen(eq=False)
class Edges:
    """Two-way edges; the bandwidth (per direction) is that of all `count` parallel links together."""

    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    bandwidth_bytes_per_s: NDArray[np.float64]
    latency_ps: NDArray[np.int64]
    count: NDArray[np.int32]

    @classmethod
    def uniform(
        cls,
        link: LinkSpec,
        src: NDArray[np.integer],
        dst: NDArray[np.integer],
        lanes: NDArray[np.integer] | int = 1,
    ) -> Edges:
        """Return edges that are all `lanes` times `link` (one number, or one per edge)."""
        count = np.broadcast_to(np.asarray(lanes, np.int32) * np.int32(link.count), src.shape)
        bandwidth = count * float(link.bandwidth_bytes_per_s)
        latency = np.full(src.shape, link.latency_ps, np.int64)
        return cls(src.astype(np.int32), dst.astype(np.int32), bandwidth, latency, count)

    @classmethod
    def joined(cls, *parts: Edges) -> Edges:
        """Return the edges of all parts, one part after the other."""
        columns = ("src", "dst", "bandwidth_bytes_per_s", "latency_ps", "count")
        return cls(*(np.concatenate([getattr(part, column) for part in parts]) for column in columns))
