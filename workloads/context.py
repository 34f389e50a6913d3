"""Context parallelism: the KV cache is split along the sequence, and what each rank has attended to is merged.

Rank c of n caches the positions c, c + n, c + 2n, … of every row, so that caches grow evenly and a causal triangle is
shared evenly. Every rank attends with all queries to its own keys, and gives per query and head (flash-decoding; Dao et
al., crfm.stanford.edu/2023/10/12/flashdecoding.html; Milakov and Gimelshein, arXiv 1805.02867)

    m_i = max_j s_j      l_i = Σ_j exp(s_j - m_i)      o_i = Σ_j exp(s_j - m_i) v_j / l_i

from which, with m = max_i m_i and w_i = l_i exp(m_i - m), follows softmax(s) v = Σ_i w_i o_i / Σ_i w_i. The ranks
exchange (o_i, m_i, l_i) so that each merges some of the heads (all_to_all_v), as in Helix (arXiv 2507.07120), where, as
here, the ranks then share all other matrices too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen

from workloads.array import Array
from workloads.chip import Work
from workloads.kernels import Inferred
from workloads.rounding import NUMPY_DTYPES, Floats

UINT8 = np.dtype(np.uint8)
STATISTICS_BYTES = 8
"""Of one query and head: m and l in float32, whatever format o travels in."""
MERGE_FLOPS = 3
"""Per element of a part: multiply, add, and its share of the division."""
WEIGHT_FLOPS = 5
"""Per part, query and head: max, subtract, exp, multiply, add."""
LOWEST = np.float32(-1e30)
"""The maximum of no scores: finite, so that differences stay numbers."""


@frozen
class Stripe:
    """The positions of a row that one rank caches: index, index + n, index + 2n, and so on."""

    index: int = 0
    n: int = 1

    def count(self, length: int) -> int:
        """Return how many of a row's first `length` positions are here.

        >>> [Stripe(1, 3).count(length) for length in (0, 1, 2, 4, 5, -5)]
        [0, 0, 1, 1, 2, 0]
        """
        return max(0, -((self.index - length) // self.n))

    def counts(self, length: int) -> int:
        """Return count(1) + … + count(length).

        >>> Stripe(1, 3).counts(7) == sum(map(Stripe(1, 3).count, range(8)))
        True
        """
        full, rest = divmod(max(0, length - self.index), self.n)
        return self.n * full * (full + 1) // 2 + rest * (full + 1)

    def own(self, start: int, n_tokens: int) -> tuple[slice, slice]:
        """Return which of the positions start … start + n_tokens - 1 are here, and the places of these in the cache."""
        first, stop = self.count(start), self.count(start + n_tokens)
        offset = self.index + first * self.n - start
        return slice(offset, offset + (stop - first) * self.n, self.n), slice(first, stop)


WHOLE = Stripe()
"""All positions."""


def packed(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Inferred:
    """Return shape and dtype of packed parts: a row of bytes per head and token, for `shape` = (heads, tokens, dim)."""
    heads, tokens, dim = shape
    return (heads * tokens, dim * dtype.itemsize + STATISTICS_BYTES), UINT8


def pack(out: Floats, peak: Floats, total: Floats, dtype: np.dtype[Any]) -> Any:
    """Return o, m and l as rows of bytes, head by head; out [heads, tokens, dim], not yet divided by l."""
    o = out / np.where(total > 0, total, np.float32(1))
    flat = np.ascontiguousarray(o.reshape(-1, o.shape[-1]).astype(dtype))
    statistics = np.concatenate([peak.reshape(-1, 1), total.reshape(-1, 1)], axis=1).astype(np.float32)
    return np.concatenate([flat.view(np.uint8), statistics.view(np.uint8)], axis=1)


@frozen
class MergeParts:
    """Merge what the ranks have attended to: x as `pack` gives, rank after rank, y [tokens, heads·dim].

    Params: n_ranks; heads: how many are merged here; dtype: the number format of y and of the parts.
    """

    name: str = "merge_parts"

    def infer(self, x: Array, *, n_ranks: int, heads: int, dtype: str) -> Inferred:
        """Return [tokens, heads·dim]."""
        to = NUMPY_DTYPES[dtype]
        dim = (x.shape[1] - STATISTICS_BYTES) // to.itemsize
        return (x.shape[0] // (n_ranks * heads), heads * dim), to

    def evaluate(self, x: Any, *, n_ranks: int, heads: int, dtype: str) -> Floats:
        """Return Σ w_i o_i / Σ w_i."""
        o = np.ascontiguousarray(x[:, :-STATISTICS_BYTES]).view(NUMPY_DTYPES[dtype]).astype(np.float32)
        statistics = np.ascontiguousarray(x[:, -STATISTICS_BYTES:]).view(np.float32).reshape(n_ranks, heads, -1, 2)
        peak, total = statistics[..., :1], statistics[..., 1:]
        weight = total * np.exp(peak - peak.max(axis=0))
        y = (weight * o.reshape(n_ranks, heads, -1, o.shape[1])).sum(axis=0) / weight.sum(axis=0)
        by_token: Floats = y.swapaxes(0, 1).reshape(y.shape[1], -1)
        return by_token

    def work(self, x: Array, *, n_ranks: int, heads: int, dtype: str) -> Work:
        """Return the weights and the weighted sum; parts are read, y written."""
        (tokens, width), to = self.infer(x, n_ranks=n_ranks, heads=heads, dtype=dtype)
        flops = MERGE_FLOPS * n_ranks * tokens * width + WEIGHT_FLOPS * x.shape[0]
        return Work(dtype, vector_flops=flops, activation_bytes=x.nbytes + tokens * width * to.itemsize)
