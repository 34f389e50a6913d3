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


def head(x: Array, stop: int, start: int = 0) -> Array:
    """Return the rows start … stop - 1, with data or without: a view, which costs a chip nothing.

    >>> head(ShapeArray((5, 3), np.dtype("float32")), 4, 1).shape
    (3, 3)
    """
    return ShapeArray((stop - start, *x.shape[1:]), x.dtype) if isinstance(x, ShapeArray) else x[start:stop]


def fill(x: Array, n_rows: int) -> Array:
    """Return x with rows of zeros behind, n_rows in all: free of charge, as x may have been written into such a buffer.

    >>> fill(np.ones((1, 2)), 2).tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    if x.shape[0] == n_rows:
        return x
    real = not isinstance(x, ShapeArray)
    return concatenate([x, zeros((n_rows - x.shape[0], *x.shape[1:]), x.dtype, real=real)])


Array = Any
"""A numpy array or a `ShapeArray`; programs use only what both have: shape, dtype, size, ndim, nbytes."""
