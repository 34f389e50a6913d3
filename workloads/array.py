"""Arrays that may have no data: the very same program runs on both."""

from __future__ import annotations

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


Array = Any
"""A numpy array or a `ShapeArray`; programs use only what both have: shape, dtype, size, ndim, nbytes."""
