"""Arrays that may have no data: the very same program runs on both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import frozen


@frozen
class ShapeArray:
    """An array that has a shape and a dtype and no data.

    >>> ShapeArray((2, 3), np.dtype("float32")).nbytes
    24
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.size * self.dtype.itemsize


def zeros(shape: tuple[int, ...], dtype: np.dtype[Any], *, real: bool) -> Array:
    """Return an array of zeros, or one without data."""
    return np.zeros(shape, dtype) if real else ShapeArray(shape, dtype)


def concatenate(arrays: Sequence[Array]) -> Array:
    """Return arrays joined along axis 0, with data or without.

    >>> concatenate([ShapeArray((2, 3), np.dtype("float32")), ShapeArray((1, 3), np.dtype("float32"))]).shape
    (3, 3)
    """
    first = arrays[0]
    if not isinstance(first, ShapeArray):
        return np.concatenate(arrays)
    return ShapeArray((sum(x.shape[0] for x in arrays), *first.shape[1:]), first.dtype)


Array = Any
"""A numpy array or a `ShapeArray`; programs use only what both have: shape, dtype, size, ndim, nbytes."""
