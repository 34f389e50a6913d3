"""A chip: its peak rates, its memory, its links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen

from configs.dtypes import RATED_DTYPES
from configs.fields import above, at_least, between, keys_of
from configs.spec.kernels import KernelsSpec
from configs.spec.provenance import Provenance
from configs.spec.topology import MOST_LINKS

Status = Literal["shipping", "legacy", "internal", "announced", "claimed"]


@frozen
class MemoryTier:
    """One level of a chip's memory; what is unknown is None. Traffic at an unknown bandwidth is not charged."""

    name: str
    capacity_bytes: int | None = field(default=None, metadata=above(0))
    bandwidth_bytes_per_s: float | None = None
    efficiency: float = field(default=1.0, metadata=above(0, 1))
    energy_per_byte_pj: float | None = None


@frozen
class ChipLinks:
    """A chip's links of one sort, as its data sheet has them: bandwidths per direction; what is unknown is None.

    `total_bytes_per_s` is for sheets that give no more than the sum.
    """

    name: str
    count: int | None = field(default=None, metadata=between(1, MOST_LINKS))
    bandwidth_bytes_per_s: float | None = None
    total_bytes_per_s: float | None = None

    @property
    def sum_bytes_per_s(self) -> float | None:
        """Return what all links carry per direction, or None.

        >>> ChipLinks("NVLink4", count=18, bandwidth_bytes_per_s=25e9).sum_bytes_per_s
        450000000000.0
        """
        if self.total_bytes_per_s is not None or self.count is None or self.bandwidth_bytes_per_s is None:
            return self.total_bytes_per_s
        return self.count * self.bandwidth_bytes_per_s


@frozen
class ChipSpec:
    """A chip: dense peak FLOPS per dtype, matrix tile (m, k, n), memory tiers, the nearest first.

    kernel_launch_ps is added to every kernel; none takes less than kernel_floor_ps, in which the next one is started.
    devices: how many accelerators software sees in it. measured_flops: the best matrix product that was measured.
    power_w: the most that it draws; idle_power_w: what it draws doing nothing. energy_per_flop_pj, by dtype, and
    energy_per_link_bit_pj, of a bit over one link, both ends together, come on top of that (docs/energy.md).
    """

    name: str
    peak_flops: Mapping[str, float] = field(metadata=keys_of(RATED_DTYPES))
    memory: tuple[MemoryTier, ...]
    matrix_tile: tuple[int, int, int] = field(default=(1, 1, 1), metadata=at_least(1))
    kernel_launch_ps: int = 0
    kernel_floor_ps: int = 0
    kernels: KernelsSpec = KernelsSpec()
    power_w: float | None = None
    idle_power_w: float | None = None
    energy_per_flop_pj: Mapping[str, float] = field(factory=dict, metadata=keys_of(RATED_DTYPES))
    energy_per_link_bit_pj: float | None = None
    vendor: str = field(default="", eq=False)
    description: str = field(default="", eq=False)
    status: Status = field(default="shipping", eq=False)
    process: str = field(default="", eq=False)
    devices: int = field(default=1, eq=False, metadata=at_least(1))
    measured_flops: Mapping[str, float] = field(factory=dict, eq=False, metadata=keys_of(RATED_DTYPES))
    links: tuple[ChipLinks, ...] = field(default=(), eq=False)
    price_usd: float | None = field(default=None, eq=False)
    notes: str = field(default="", eq=False)
    provenance: Mapping[str, Provenance] = field(factory=dict, eq=False)
