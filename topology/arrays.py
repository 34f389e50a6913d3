"""Arrays that cannot be written, and numbers of several ranges in one array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view that cannot be written: routes and topologies are shared."""
    view = array.view()
    view.flags.writeable = False
    return view


def ragged(first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return first[0], first[0] + 1, … (count[0] numbers), then those from first[1], and so on.

    >>> ragged(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    before = np.cumsum(count) - count
    numbers: NDArray[np.int64] = np.arange(int(count.sum())) + np.repeat(first - before, count)
    return numbers
