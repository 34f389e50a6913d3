"""The kernels of grouped-query attention over a KV cache [rows, kv heads, max length, head_dim].

A batch is `starts` (one position per row: how many tokens its cache holds already) and n_tokens new tokens
per row; activations are [rows·n_tokens, heads·head_dim]. A rank may hold a part of the query heads of a KV
head, so the number of query heads per KV head varies: `queries` lists it, one entry per own KV head.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen

from workloads.array import Array
from workloads.chip import Tensor, Work
from workloads.kernels import Inferred, as_fp32, part_bytes, vector_work
from workloads.rounding import Floats, dtype_name, round_to, wider

Starts = tuple[int, ...]

ROPE_FLOPS = 3
"""Per element: a complex product is six flops on two elements."""
SOFTMAX_FLOPS = 5
"""Per score: scale, max, subtract, exp, sum."""


@lru_cache(maxsize=8)
def rope_table(theta: float, head_dim: int, n_positions: int) -> npt.NDArray[np.complex64]:
    """Return e^(i·position·theta^(-2j/head_dim)), [n_positions, head_dim/2]."""
    frequency = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    turns = np.exp(1j * np.outer(np.arange(n_positions), frequency))
    return np.asarray(turns, np.complex64)


@frozen
class RopeAppend:
    """Rotate queries and keys by position, append keys and values to the cache, return the queries.

    qkv [rows·n_tokens, (heads + 2·kv heads)·head_dim]; elements 2j and 2j+1 of a head are one rotated pair.
    """

    theta: float
    name: str = "rope_append"

    def infer(self, qkv: Array, k_cache: Tensor, v_cache: Tensor, *, starts: Starts) -> Inferred:
        """Return [rows·n_tokens, heads·head_dim]."""
        del v_cache, starts
        return (qkv.shape[0], _query_width(qkv, k_cache)), qkv.dtype

    def evaluate(self, qkv: Any, k_cache: Tensor, v_cache: Tensor, *, starts: Starts) -> Floats:
        """Return the rotated queries; the caches are written in place, rounded to their dtype."""
        _, n_kv, max_length, dim = k_cache.shape
        n_rows, n_tokens = len(starts), qkv.shape[0] // len(starts)
        heads = as_fp32(qkv).reshape(n_rows, n_tokens, -1, dim)
        n_roped = heads.shape[2] - n_kv
        n_heads = n_roped - n_kv
        table = rope_table(self.theta, dim, max_length)
        roped = (heads[:, :, :n_roped].view(np.complex64) * _turns(table, starts, n_tokens)).view(np.float32)
        _append(k_cache, roped[:, :, n_heads:], starts)
        _append(v_cache, heads[:, :, n_roped:], starts)
        q: Floats = roped[:, :, :n_heads].reshape(qkv.shape[0], -1)
        return q

    def work(self, qkv: Array, k_cache: Tensor, v_cache: Tensor, *, starts: Starts) -> Work:
        """Return the rotation; qkv is read, q written, the new keys and values written to the cache."""
        del starts
        n, width = qkv.shape[0], _query_width(qkv, k_cache)
        new = n * k_cache.shape[1] * k_cache.shape[3]
        written = part_bytes(k_cache, new) + part_bytes(v_cache, new)
        flops = ROPE_FLOPS * (n * width + new)
        return vector_work(qkv, flops, qkv.nbytes + n * width * qkv.dtype.itemsize, (k_cache.tier, written))


def _query_width(qkv: Array, k_cache: Tensor) -> int:
    return int(qkv.shape[1] - 2 * k_cache.shape[1] * k_cache.shape[3])


def _turns(table: npt.NDArray[np.complex64], starts: Starts, n_tokens: int) -> Any:
    """Return the rotation of every new token, [rows or 1, n_tokens, 1, head_dim/2]."""
    if _all_equal(starts):
        return table[None, starts[0] : starts[0] + n_tokens, None]
    return table[np.add.outer(starts, np.arange(n_tokens))][:, :, None]


def _append(cache: Tensor, new: Floats, starts: Starts) -> None:
    """Write `new` [rows, n_tokens, kv heads, head_dim] at each row's position."""
    n_tokens = new.shape[1]
    values = round_to(cache.dtype, new).swapaxes(1, 2)
    if _all_equal(starts):
        cache.values[:, :, starts[0] : starts[0] + n_tokens] = values
        return
    for row, start in enumerate(starts):
        cache.values[row, :, start : start + n_tokens] = values[row]


def _all_equal(starts: Starts) -> bool:
    return starts.count(starts[0]) == len(starts)


@frozen
class Attention:
    """Attend causally: softmax(q Kᵀ / √head_dim) V over each row's prefix of the cache.

    q [rows·n_tokens, heads·head_dim]; token t of a row sees the keys up to its own position start + t.
    """

    name: str = "attention"

    def infer(
        self, q: Array, k_cache: Tensor, v_cache: Tensor, *, starts: Starts, queries: tuple[int, ...]
    ) -> Inferred:
        """Return the shape of q."""
        del k_cache, v_cache, starts, queries
        return q.shape, q.dtype

    def evaluate(self, q: Any, k_cache: Tensor, v_cache: Tensor, *, starts: Starts, queries: tuple[int, ...]) -> Floats:
        """Return the attended values, one run of KV heads with equally many queries at a time."""
        n_rows, n_tokens, dim = len(starts), q.shape[0] // len(starts), k_cache.shape[3]
        stop = max(starts) + n_tokens
        scaled = as_fp32(q) * np.float32(dim**-0.5)
        heads = scaled.reshape(n_rows, n_tokens, -1, dim).swapaxes(1, 2)
        bias = None if n_tokens == 1 and _all_equal(starts) else _causal_bias(starts, n_tokens)
        outs = []
        head = 0
        for kv, group in _runs(queries):
            n_heads = len(kv) * group
            keys, values = (c.values[:, kv.start : kv.stop, :stop] for c in (k_cache, v_cache))
            outs.append(_attend(heads[:, head : head + n_heads], keys, values, bias))
            head += n_heads
        out = outs[0] if len(outs) == 1 else np.concatenate(outs, axis=1)
        y: Floats = out.swapaxes(1, 2).reshape(q.shape)
        return y

    def work(self, q: Array, k_cache: Tensor, v_cache: Tensor, *, starts: Starts, queries: tuple[int, ...]) -> Work:
        """Return both products and the softmax over the visible keys; only the cache's prefixes are read.

        A causal triangle counts as the rectangle of its mean number of keys, rounded up.
        """
        n_tokens, dim = q.shape[0] // len(starts), k_cache.shape[3]
        matmuls: list[tuple[int, int, int, int]] = []
        for start, n_rows in sorted(Counter(starts).items()):
            n_keys = start + (n_tokens + 2) // 2
            for kv, group in _runs(queries):
                count, m = n_rows * len(kv), group * n_tokens
                matmuls += [(count, m, dim, n_keys), (count, m, n_keys, dim)]
        seen = sum(n_tokens * start + n_tokens * (n_tokens + 1) // 2 for start in starts)
        prefix = sum(start + n_tokens for start in starts) * len(queries) * dim
        return Work(
            wider(dtype_name(q.dtype), k_cache.dtype),
            tuple(matmuls),
            SOFTMAX_FLOPS * sum(queries) * seen,
            ((k_cache.tier, part_bytes(k_cache, prefix) + part_bytes(v_cache, prefix)),),
            2 * q.nbytes,
        )


@lru_cache(maxsize=1024)
def _runs(queries: tuple[int, ...]) -> tuple[tuple[range, int], ...]:
    """Return runs of neighbouring KV heads that serve equally many query heads.

    >>> _runs((1, 3, 3))
    ((range(0, 1), 1), (range(1, 3), 3))
    """
    runs, first = [], 0
    for group, members in groupby(queries):
        stop = first + len(list(members))
        runs.append((range(first, stop), group))
        first = stop
    return tuple(runs)


@lru_cache(maxsize=2)
def _causal_bias(starts: Starts, n_tokens: int) -> Floats:
    """Return 0 for a visible key and -inf for a later one, [rows or 1, 1, 1, n_tokens, stop]."""
    own = starts[:1] if _all_equal(starts) else starts
    position = np.add.outer(own, np.arange(n_tokens))
    hidden = np.arange(max(starts) + n_tokens) > position[..., None]
    return np.where(hidden, np.float32(-np.inf), np.float32(0))[:, None, None]


def _attend(q: Floats, keys: Floats, values: Floats, bias: Floats | None) -> Floats:
    """Return softmax(q keysᵀ + bias) values; q [rows, heads, tokens, dim], keys [rows, kv, length, dim]."""
    n_rows, n_heads, n_tokens, dim = q.shape
    n_kv, length = keys.shape[1], keys.shape[2]
    # the query heads of one KV head are rows of one product
    scores: Floats = q.reshape(n_rows, n_kv, -1, dim) @ keys.swapaxes(-1, -2)
    if bias is not None:
        grouped = scores.reshape(n_rows, n_kv, -1, n_tokens, length)
        grouped += bias
    scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    out: Floats = scores @ values
    out /= np.add.reduce(scores, axis=-1, keepdims=True)
    return out.reshape(n_rows, n_heads, n_tokens, dim)
