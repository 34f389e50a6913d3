"""Number formats: how much memory their elements and scales take, and at which of a chip's rates they compute.

The last axis of a tensor is its rows: shared scales and exponents never cross from one row into the next.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

RATED_DTYPES = (
    "fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "mxfp8", "bfp8", "fp6",
    "bfp4", "fp4", "nvfp4", "mxfp4", "int8", "mxint8", "int4", "mxint4",
)  # fmt: skip
"""Formats that a chip's data sheet may give a peak rate for."""


@frozen
class Dtype:
    """A number format, stored in blocks of `block` elements of `block_bytes` together, and `row_bytes` per row.

    rates: the peak rates of a chip that its matrix products may run at; the first that the chip has counts.
    carrier: the format of activations between kernels; where it differs from the format itself, matrix products
    round what they take in (as kernels for 8-bit weights and 8-bit activations do).
    """

    block_bytes: int
    rates: tuple[str, ...]
    block: int = 1
    row_bytes: int = 0
    carrier: str = "bf16"

    @property
    def bits(self) -> float:
        """Bits per element, shared exponents included, scales of rows left out."""
        return 8 * self.block_bytes / self.block

    def size_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the size of a tensor.

        >>> DTYPES["bf16"].size_bytes((2, 16)), DTYPES["bfp8"].size_bytes((2, 16)), DTYPES["bfp8"].size_bytes((2, 17))
        (64, 34, 68)
        """
        *rows, width = shape or (1,)
        return prod(rows) * (-(-width // self.block) * self.block_bytes + self.row_bytes * (width > 0))


DTYPES: Mapping[str, Dtype] = {
    "fp32": Dtype(4, ("fp32",), carrier="fp32"),
    "bf16": Dtype(2, ("bf16",)),
    "fp16": Dtype(2, ("fp16",), carrier="fp16"),
    # A scale per row: of weights per output channel, of activations per token, of the KV cache per token and head.
    "fp8_e4m3": Dtype(1, ("fp8",), row_bytes=2),
    "fp8_e5m2": Dtype(1, ("fp8",), row_bytes=2),
    "int8": Dtype(1, ("int8",), row_bytes=2),
    # 32 elements of four bits share one exponent of eight (OCP Microscaling Formats 1.0).
    "mxfp4": Dtype(17, ("mxfp4", "fp4"), block=32),
    # 16 elements of four bits share an E4M3 scale, a row an fp32 one (NVIDIA's Blackwell; there per tensor).
    "nvfp4": Dtype(9, ("nvfp4", "fp4"), block=16, row_bytes=4),
    # Tenstorrent's block floating point: 16 signs and mantissas, of eight or four bits together, share one exponent.
    "bfp8": Dtype(17, ("bfp8",), block=16),
    "bfp4": Dtype(9, ("bfp4",), block=16),
}


def vector_dtype(weights: str) -> str:
    """Return the format of norms and biases beside matrices of a format: not below 16 bits.

    >>> vector_dtype("fp32"), vector_dtype("mxfp4")
    ('fp32', 'bf16')
    """
    return weights if DTYPES[weights].bits >= DTYPES["bf16"].bits else "bf16"
