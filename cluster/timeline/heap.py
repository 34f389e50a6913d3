"""A binary heap of (time, task, version) for the engine, in flat arrays; ties are ordered by task."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True)
def heap_less(heap: Any, a: int, b: int) -> Any:
    """Compare two entries by time, then task."""
    return heap[a, 0] < heap[b, 0] or (heap[a, 0] == heap[b, 0] and heap[a, 1] < heap[b, 1])


@njit(cache=True)
def heap_swap(heap: Any, a: int, b: int) -> None:
    """Swap two entries."""
    for k in range(3):
        kept = heap[a, k]
        heap[a, k] = heap[b, k]
        heap[b, k] = kept


@njit(cache=True)
def heap_push(heap: Any, n: int, time: int, task: int, version: int) -> Any:
    """Add an entry to the `n` there are; return the heap, in a larger array when it was full."""
    if n == len(heap):
        grown = np.empty((2 * n + 64, 3), np.int64)
        grown[:n] = heap
        heap = grown
    heap[n, 0], heap[n, 1], heap[n, 2] = time, task, version
    child = n
    while child > 0 and heap_less(heap, child, (child - 1) // 2):
        heap_swap(heap, child, (child - 1) // 2)
        child = (child - 1) // 2
    return heap


@njit(cache=True)
def heap_drop(heap: Any, n: int) -> None:
    """Remove the first of `n` entries."""
    last = n - 1
    heap_swap(heap, 0, last)
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= last:
            return
        if child + 1 < last and heap_less(heap, child + 1, child):
            child += 1
        if not heap_less(heap, child, parent):
            return
        heap_swap(heap, child, parent)
        parent = child
