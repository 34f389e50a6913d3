"""Number formats: how much memory an element takes, and what the simulator can do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping


@frozen
class Dtype:
    """A number format, stored in blocks of `block` elements of `block_bytes` together.

    computes: the chips calculate in it, so that activations may have it.
    rounds: its rounding of values is implemented, so that `numerics: real` may use it.
    """

    block_bytes: int
    block: int = 1
    computes: bool = True
    rounds: bool = True

    @property
    def bits(self) -> float:
        """Bits per element, shared exponents included."""
        return 8 * self.block_bytes / self.block

    def size_bytes(self, n_elements: int) -> int:
        """Return the size of a tensor of so many elements.

        >>> DTYPES["bf16"].size_bytes(32), DTYPES["bfp8"].size_bytes(32)
        (64, 34)
        """
        return -(-n_elements // self.block) * self.block_bytes


DTYPES: Mapping[str, Dtype] = {
    "fp32": Dtype(4),
    "bf16": Dtype(2),
    # Tenstorrent's block floating point: 16 bytes of sign and mantissa share one of exponent.
    "bfp8": Dtype(17, block=16, computes=False, rounds=False),
}

COMPUTE_DTYPES = tuple(name for name, dtype in DTYPES.items() if dtype.computes)

RATED_DTYPES = (
    "fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "mxfp8", "bfp8", "fp6",
    "bfp4", "fp4", "nvfp4", "mxfp4", "int8", "mxint8", "int4", "mxint4",
)  # fmt: skip
"""Formats that a chip's data sheet may give a peak rate for."""
