"""How long a kernel takes on a chip: the roofline with the matrix tile, and what the chip's kernels reach of it.

    duration = start + max(flops / (peak(dtype) × compute), Σ_tier bytes / (bandwidth × efficiency × memory)) + launch

and at least the chip's `kernel_floor`. start, compute and memory are those of the kernel's kind
(`configs.spec.kernels.KernelSpec`): 0, 1 and 1 on ideal kernels. A fused kind takes no time. docs/fidelity.md tells
where the constants come from.

Matrix work is counted with its dimensions rounded up to the chip's tile, which is how utilisation enters: a tile that
is half empty takes as long as a full one. A tier whose bandwidth is unknown is not charged.
"""

from __future__ import annotations

from typing import Literal

from configs.dtypes import DTYPES
from configs.errors import ConfigError
from configs.spec.chip import ChipSpec
from configs.spec.kernels import KernelSpec
from configs.units import round_ps
from workloads.chip import Work

ROOFLINE = KernelSpec()
LONGEST_S = 1e5
"""Of one kernel; the clock ends after 50 days."""


def matmul_flops(count: int, m: int, k: int, n: int, tile: tuple[int, int, int]) -> int:
    """Return the floating-point operations of `count` products (m, k) x (k, n), each side rounded up to the tile.

    >>> matmul_flops(1, 1, 64, 64, (32, 32, 32)) == 2 * 32 * 64 * 64
    True
    """
    m, k, n = (-(-side // t) * t for side, t in zip((m, k, n), tile, strict=True))
    return 2 * count * m * k * n


def duration(chip: ChipSpec, work: Work) -> tuple[int, Literal["compute", "memory"]]:
    """Return (duration in ps, what bounds it); raise ConfigError if the chip has no peak for the dtype."""
    reached = chip.kernels.kinds.get(work.kind, ROOFLINE)
    flops = work_flops(chip, work)
    compute_s = flops / (peak_flops(chip, work.dtype) * reached.compute) if flops else 0.0
    streams = (0, work.activation_bytes), *work.tensor_bytes
    memory = min(reached.memory, reached.stream * work.streams) if work.streams else reached.memory
    memory_s = sum(stream_s(chip, tier, size) for tier, size in streams) / memory
    bound: Literal["compute", "memory"] = "memory" if memory_s > compute_s else "compute"
    longest_s = max(compute_s, memory_s)
    if longest_s > LONGEST_S:
        why = f"at most {LONGEST_S:.0f} s; are peak.{work.dtype}, matrix_tile and the memory's bandwidth right?"
        raise ConfigError((f"chip {chip.name}: one kernel would take {longest_s:.3g} s; accepted: {why}",))
    if reached.fused:
        return 0, bound
    start_ps = reached.start_ps + (chip.kernels.rounding_ps if work.rounded_bytes else 0)
    return max(round_ps(longest_s * 1e12) + start_ps + chip.kernel_launch_ps, chip.kernel_floor_ps), bound


def work_flops(chip: ChipSpec, work: Work) -> int:
    """Return the floating-point operations of some work, padded to the chip's tile."""
    return work.vector_flops + sum(matmul_flops(*m, chip.matrix_tile) for m in work.matmuls)


def work_bytes(chip: ChipSpec, work: Work) -> tuple[int, ...]:
    """Return the bytes that some work moves to and from every memory tier of the chip.

    >>> from configs.loader import load_chip
    >>> work_bytes(load_chip("wormhole-n150"), Work("bf16", tensor_bytes=((1, 64), (1, 64)), activation_bytes=8))
    (8, 128)
    """
    moved = [0] * len(chip.memory)
    for tier, size_bytes in ((0, work.activation_bytes), *work.tensor_bytes):
        moved[tier] += size_bytes
    return tuple(moved)


def stream_s(chip: ChipSpec, tier: int, size_bytes: int) -> float:
    """Return how long bytes of a memory tier stream at its bandwidth; 0 where that is unknown."""
    memory = chip.memory[tier]
    if memory.bandwidth_bytes_per_s is None:
        return 0.0
    return size_bytes / (memory.bandwidth_bytes_per_s * memory.efficiency)


def peak_flops(chip: ChipSpec, dtype: str) -> float:
    """Return the chip's peak for a dtype; raise ConfigError if it has none."""
    rates = DTYPES[dtype].rates if dtype in DTYPES else (dtype,)
    peak = next((chip.peak_flops[rate] for rate in rates if rate in chip.peak_flops), None)
    if peak is None:
        known = ", ".join(sorted(chip.peak_flops)) or "none"
        what = f"peak.{rates[0]} is unknown and this run computes in {dtype}; known: {known}"
        raise ConfigError((f"chip {chip.name}: {what}; give it with --set system.chip.peak.{rates[0]}=…TFLOPS",))
    return peak
