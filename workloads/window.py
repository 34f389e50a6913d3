"""KV caches of layers with a sliding window: they keep the last positions, each where position - capacity was.

A prompt that is longer than such a cache is worked on with room for all of its keys and values, as for other
activations, and then its last positions are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import evolve, frozen

from configs.dtypes import DTYPES
from workloads.array import Array
from workloads.chip import Tensor, Work
from workloads.context import WHOLE, Stripe
from workloads.kernels import Inferred, part_bytes, vector_work
from workloads.rounding import INT32, Floats


def capacity(max_length: int, window: int | None, stripe: Stripe) -> int:
    """Return how many positions a rank's cache has room for: all of its own, or as many as a window can have.

    >>> capacity(100, None, WHOLE), capacity(100, 16, WHOLE), capacity(100, 16, Stripe(1, 3)), capacity(8, 16, WHOLE)
    (100, 16, 6, 8)
    """
    own = stripe.count(max_length)
    return own if window is None else min(own, -(-window // stripe.n))


def slots(first: int, stop: int, size: int) -> slice | npt.NDArray[np.int64]:
    """Return where the positions first … stop - 1 are in a cache of this size.

    >>> slots(1, 3, 4), slots(3, 6, 4).tolist()
    (slice(1, 3, None), [3, 0, 1])
    """
    return slice(first, stop) if stop <= size else np.arange(first, stop) % size


def in_order(values: Floats, first: int, stop: int) -> Floats:
    """Return the positions first … stop - 1 of [rows, kv heads, ·, dim], laid out as in a cache of all positions."""
    here = slots(first, stop, values.shape[2])
    return values[:, :, here] if isinstance(here, slice) else values.take(here, axis=2)


def with_room(cache: Tensor, n: int) -> Tensor:
    """Return a cache [rows, kv heads, ·, dim] with room for n positions, empty, in the same memory."""
    shape = (*cache.shape[:2], n, cache.shape[3])
    values = None if cache.values is None else np.zeros(shape, np.float32)
    return evolve(cache, shape=shape, size_bytes=DTYPES[cache.dtype].size_bytes(shape), values=values)


@frozen
class KeepWindow:
    """Keep the last positions of every row's prompt: k and v with room for all, the caches, y [rows] how many.

    q [n, ...] says the number format of activations; params: the rows' lengths, and which positions are here.
    """

    name: str = "keep_window"

    def infer(
        self, q: Array, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, *, lengths: tuple[int, ...],
        stripe: Stripe = WHOLE,
    ) -> Inferred:  # fmt: skip
        """Return [rows] in int32."""
        del q, k, v, k_cache, v_cache, stripe
        return (len(lengths),), INT32

    def evaluate(
        self, q: Any, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, *, lengths: tuple[int, ...],
        stripe: Stripe = WHOLE,
    ) -> Any:  # fmt: skip
        """Return how many are kept; the caches are written in place."""
        del q
        for row, length in enumerate(lengths):
            kept = self._kept(k_cache, length, stripe)
            for whole, cache in ((k, k_cache), (v, v_cache)):
                cache.values[row][:, slots(kept.start, kept.stop, cache.shape[2])] = whole.values[row][:, kept]
        return np.array([self._size(k_cache, length, stripe) for length in lengths], np.int32)

    def work(
        self, q: Array, k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, *, lengths: tuple[int, ...],
        stripe: Stripe = WHOLE,
    ) -> Work:  # fmt: skip
        """Return only traffic: what is kept is read and written."""
        n = sum(self._size(k_cache, length, stripe) for length in lengths) * k_cache.shape[1] * k_cache.shape[3]
        moved = sum(part_bytes(tensor, n) for tensor in (k, v, k_cache, v_cache))
        return vector_work(q, 0, 4 * len(lengths), (k_cache.tier, moved))

    def _kept(self, cache: Tensor, length: int, stripe: Stripe) -> slice:
        stop = stripe.count(length)
        return slice(max(0, stop - cache.shape[2]), stop)

    def _size(self, cache: Tensor, length: int, stripe: Stripe) -> int:
        kept = self._kept(cache, length, stripe)
        return int(kept.stop - kept.start)
