"""Number formats as numpy knows them, and the rounding of values to them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from configs.dtypes import DTYPES

Floats = npt.NDArray[np.float32]

NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "fp32": np.dtype(np.float32),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "int32": np.dtype(np.int32),
}
"""The numpy type of every format that an array of a program may have."""

FP32 = NUMPY_DTYPES["fp32"]
INT32 = NUMPY_DTYPES["int32"]
_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


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
    """
    floats: Floats = np.asarray(values, np.float32)
    return floats if dtype == "fp32" else floats.astype(NUMPY_DTYPES[dtype]).astype(np.float32)


def wider(a: str, b: str) -> str:
    """Return the format with more bits: the one that mixed operands are computed in.

    >>> wider("bf16", "fp32"), wider("bf16", "bfp8")
    ('fp32', 'bf16')
    """
    return b if DTYPES[b].bits > DTYPES[a].bits else a
