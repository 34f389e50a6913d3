"""Number formats as numpy knows them, and the rounding of values to them.

All rounding is to the nearest, ties to even. Formats with shared scales or exponents find them along the last axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from configs.dtypes import DTYPES

Floats = npt.NDArray[np.float32]

NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "fp32": np.dtype(np.float32),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp16": np.dtype(np.float16),
    "int32": np.dtype(np.int32),
}
"""The numpy type of every format that an array of a program may have."""

FP32 = NUMPY_DTYPES["fp32"]
INT32 = NUMPY_DTYPES["int32"]
_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}
_SMALLEST = np.float32(2.0**-126)
_E2M1_MAX, _E2M1_EXPONENT = 6.0, 2
_E4M3_MAX = 448.0


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the name of a numpy type.

    >>> dtype_name(np.dtype("float32"))
    'fp32'
    """
    return _NAMES[dtype]


def round_to(dtype: str, values: Any) -> Floats:
    """Return `values` rounded (to nearest, ties to even) to a number format, as float32.

    >>> float(round_to("bf16", np.float32([1.001]))[0])
    1.0
    >>> round_to("bfp4", np.float32([1, 0.3, -0.4])).tolist()
    [1.0, 0.25, -0.5]
    """
    floats: Floats = np.asarray(values, np.float32)
    return ROUNDINGS[dtype](floats)


def wider(a: str, b: str) -> str:
    """Return the format with more bits: the one that mixed operands are computed in.

    >>> wider("bf16", "fp32"), wider("bf16", "bfp8")
    ('fp32', 'bf16')
    """
    return b if DTYPES[b].bits > DTYPES[a].bits else a


def _cast(dtype: Any) -> Callable[[Floats], Floats]:
    def rounded(x: Floats) -> Floats:
        return x.astype(dtype).astype(np.float32)

    return rounded


def _to_fp16(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # beyond the format is infinity
        return x.astype(np.float16).astype(np.float32)


def _scaled(limit: float, rounded: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """Return the rounding of x / s, s a bf16 number per row that takes the row's largest element to `limit`.

    A bf16 scale makes every element, and so the largest, exact in float32: rounding again changes nothing.
    """

    def by_row(x: Floats) -> Floats:
        largest = np.max(np.abs(x), axis=-1, keepdims=True, initial=0)
        scale = np.maximum(_to_bf16(largest / np.float32(limit)), _SMALLEST)
        with np.errstate(invalid="ignore"):  # a row with an infinity becomes NaN
            y: Floats = rounded(np.clip(x / scale, -limit, limit)) * scale
        return y

    return by_row


def _blocked(size: int, rounded: Callable[[Floats, Floats], Floats]) -> Callable[[Floats], Floats]:
    """Return the rounding of rows cut into blocks: `rounded` takes blocks [..., size] and their largest [..., 1]."""

    def by_block(x: Floats) -> Floats:
        width = x.shape[-1]
        padded = -(-width // size) * size
        blocks = np.zeros((*x.shape[:-1], padded), np.float32)
        blocks[..., :width] = x
        blocks = blocks.reshape(*x.shape[:-1], -1, size)
        with np.errstate(invalid="ignore"):
            y = rounded(blocks, np.max(np.abs(blocks), axis=-1, keepdims=True, initial=0))
        return np.ascontiguousarray(y.reshape(*x.shape[:-1], padded)[..., :width], np.float32)

    return by_block


def _exponent(largest: Floats) -> Any:
    """Return floor(log2(largest)), at least -126: the exponent that a block shares."""
    return np.maximum(np.frexp(largest)[1] - 1, -126)


def _to_bfp(mantissa_bits: int) -> Callable[[Floats, Floats], Floats]:
    """Return the rounding of a block to sign and mantissa under its largest element's exponent."""
    most = 2**mantissa_bits - 1

    def rounded(x: Floats, largest: Floats) -> Floats:
        step = np.ldexp(np.float32(1), _exponent(largest) - (mantissa_bits - 1))
        y: Floats = np.clip(np.rint(x / step), -most, most) * step
        return y

    return rounded


def _mxfp4(x: Floats, largest: Floats) -> Floats:
    scale = np.ldexp(np.float32(1), np.maximum(_exponent(largest) - _E2M1_EXPONENT, -126))
    y: Floats = _to_e2m1(np.clip(x / scale, -_E2M1_MAX, _E2M1_MAX)) * scale
    return y


def _nvfp4(x: Floats, largest: Floats) -> Floats:
    row = np.max(largest, axis=-2, keepdims=True, initial=0)
    row_scale = np.maximum(_to_bf16(row / np.float32(_E2M1_MAX * _E4M3_MAX)), _SMALLEST)
    scale = _to_e4m3(np.minimum(largest / np.float32(_E2M1_MAX) / row_scale, np.float32(_E4M3_MAX))) * row_scale
    divisor = np.where(scale == 0, np.float32(1), scale)
    y: Floats = _to_e2m1(np.clip(x / divisor, -_E2M1_MAX, _E2M1_MAX)) * scale
    return y


_to_bf16 = _cast(ml_dtypes.bfloat16)
_to_e4m3 = _cast(ml_dtypes.float8_e4m3fn)
_to_e2m1 = _cast(ml_dtypes.float4_e2m1fn)

ROUNDINGS: Mapping[str, Callable[[Floats], Floats]] = {
    "fp32": lambda x: x,
    "bf16": _to_bf16,
    "fp16": _to_fp16,
    "fp8_e4m3": _scaled(_E4M3_MAX, _to_e4m3),
    "fp8_e5m2": _scaled(57344.0, _cast(ml_dtypes.float8_e5m2)),
    "int8": _scaled(127.0, np.rint),
    "mxfp4": _blocked(32, _mxfp4),
    "nvfp4": _blocked(16, _nvfp4),
    "bfp8": _blocked(16, _to_bfp(7)),
    "bfp4": _blocked(16, _to_bfp(3)),
}
"""The rounding of float32 values to every format of `configs.dtypes.DTYPES`."""
