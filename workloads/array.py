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


def transposed(x: Array) -> Array:
    """Return the matrix x with its axes exchanged: free of charge, as x may have been written so.

    >>> transposed(np.array([[1, 2]])).tolist()
    [[1], [2]]
    """
    return ShapeArray(x.shape[::-1], x.dtype) if isinstance(x, ShapeArray) else np.ascontiguousarray(x.T)


def spread(x: Array, parts: Sequence[Sequence[range]], share: int) -> Array:
    """Return the rows of x that each of the parts lists, one part after the other, each filled up to `share` rows.

    Free of charge, as x may have been written into such a buffer.

    >>> spread(np.array([[1], [2], [3]]), [[range(0, 1), range(2, 3)], [range(1, 2)]], 2).ravel().tolist()
    [1, 3, 2, 0]
    """
    if isinstance(x, ShapeArray):
        return ShapeArray((len(parts) * share, *x.shape[1:]), x.dtype)
    y = np.zeros((len(parts), share, *x.shape[1:]), x.dtype)
    for own, part in zip(y, parts, strict=True):
        if part:
            rows = np.concatenate([x[r.start : r.stop] for r in part])
            own[: len(rows)] = rows
    return y.reshape(-1, *x.shape[1:])


def pack(x: Array, sizes: Sequence[int]) -> Array:
    """Return x, whose rows are equal parts, without what fills each of them up beyond its size: a view, as `head` is.

    >>> pack(np.array([[1], [3], [2], [0]]), [2, 1]).ravel().tolist()
    [1, 3, 2]
    """
    share = x.shape[0] // len(sizes)
    if isinstance(x, ShapeArray):
        return ShapeArray((sum(sizes), *x.shape[1:]), x.dtype)
    return np.concatenate([x[i * share : i * share + size] for i, size in enumerate(sizes)])


Array = Any
"""A numpy array or a `ShapeArray`; programs use only what both have: shape, dtype, size, ndim, nbytes."""
