"""The kernels of grouped-query attention over a KV cache [rows, kv heads, max length, head_dim].

A batch is `starts` (one position per row: how many tokens its cache holds already) and n_tokens new tokens
per row; activations are [rows·n_tokens, heads·head_dim]. A rank may hold a part of the query heads of a KV
head, so the number of query heads per KV head varies: `queries` lists it, one entry per own KV head. Caches of
layers with a window may be shorter than a row (`workloads.window`).
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from attrs import evolve, frozen

from workloads.array import Array
from workloads.chip import Tensor, Work
from workloads.context import LOWEST, WHOLE, Stripe, pack, packed
from workloads.kernels import Inferred, as_fp32, part_bytes, vector_work
from workloads.rope import Rope, rope_table
from workloads.rounding import Floats, dtype_name, round_to, wider
from workloads.window import in_order, slots

Starts = tuple[int, ...]

ROPE_FLOPS = 3
"""Per element: a complex product is six flops on two elements."""
SOFTMAX_FLOPS = 5
"""Per score: scale, max, subtract, exp, sum."""
SOFTCAP_FLOPS = 3
"""Per score: divide, tanh, multiply."""


@frozen
class RopeAppend:
    """Rotate queries and keys by position, append keys and values to the cache, return the queries.

    qkv [rows·n_tokens, (heads + 2·kv heads)·head_dim]; elements 2j and 2j+1 of a head are one rotated pair.
    Without a `rope` nothing is rotated.
    """

    rope: Rope | None

    @property
    def name(self) -> str:
        """The number of rotated elements decides the work."""
        return f"rope_append_{self.rope.dim}" if self.rope else "kv_append"

    def infer(
        self, qkv: Array, k_cache: Tensor, v_cache: Tensor, *, starts: Starts, stripe: Stripe = WHOLE
    ) -> Inferred:
        """Return [rows·n_tokens, heads·head_dim]."""
        del v_cache, starts, stripe
        return (qkv.shape[0], _query_width(qkv, k_cache)), qkv.dtype

    def evaluate(self, qkv: Any, k_cache: Tensor, v_cache: Tensor, *, starts: Starts, stripe: Stripe = WHOLE) -> Floats:
        """Return the rotated queries; the caches are written in place, rounded to their dtype."""
        _, n_kv, _, dim = k_cache.shape
        n_rows, n_tokens = len(starts), qkv.shape[0] // len(starts)
        heads = as_fp32(qkv).reshape(n_rows, n_tokens, -1, dim)
        n_roped = heads.shape[2] - n_kv
        n_heads = n_roped - n_kv
        n_positions = 1 << (max(starts) + n_tokens - 1).bit_length()  # so that few tables are made
        roped = self._rotate(heads[:, :, :n_roped], starts, n_positions)
        _append(k_cache, roped[:, :, n_heads:], starts, stripe)
        _append(v_cache, heads[:, :, n_roped:], starts, stripe)
        q: Floats = roped[:, :, :n_heads].reshape(qkv.shape[0], -1)
        return q

    def _rotate(self, heads: Floats, starts: Starts, n_positions: int) -> Floats:
        """Return heads [rows, n_tokens, heads, head_dim], turned."""
        rope = self.rope
        if rope is None:
            return heads
        turns = turns_of(rope, n_positions, starts, heads.shape[1])
        if rope.dim == heads.shape[3]:
            whole: Floats = (heads.view(np.complex64) * turns).view(np.float32)
            return whole
        turned = np.ascontiguousarray(heads[..., : rope.dim]).view(np.complex64) * turns
        return np.concatenate([turned.view(np.float32), heads[..., rope.dim :]], axis=3)

    def work(self, qkv: Array, k_cache: Tensor, v_cache: Tensor, *, starts: Starts, stripe: Stripe = WHOLE) -> Work:
        """Return the rotation; qkv is read, q written, the new keys and values written to the cache."""
        n, width, dim = qkv.shape[0], _query_width(qkv, k_cache), k_cache.shape[3]
        new = n * k_cache.shape[1] * dim
        own = new if stripe == WHOLE else n_own(starts, n // len(starts), stripe) * k_cache.shape[1] * dim
        written = part_bytes(k_cache, own) + part_bytes(v_cache, own)
        flops = ROPE_FLOPS * (n * width + new) // dim * (self.rope.dim if self.rope else 0)
        return vector_work(
            qkv, flops, qkv.nbytes + n * width * qkv.dtype.itemsize, (k_cache.tier, written), kind="rope"
        )


def _query_width(qkv: Array, k_cache: Tensor) -> int:
    return int(qkv.shape[1] - 2 * k_cache.shape[1] * k_cache.shape[3])


def n_own(starts: Starts, n_tokens: int, stripe: Stripe) -> int:
    """Return how many of the rows' new tokens a rank caches."""
    return sum(stripe.count(start + n_tokens) - stripe.count(start) for start in starts)


def turns_of(rope: Rope, n_positions: int, starts: Starts, n_tokens: int) -> Any:
    """Return the rotation of every new token, [rows or 1, n_tokens, 1, head_dim/2]."""
    table = rope_table(rope, n_positions)
    if _all_equal(starts):
        return table[None, starts[0] : starts[0] + n_tokens, None]
    return table[np.add.outer(starts, np.arange(n_tokens))][:, :, None]


def _append(cache: Tensor, new: Floats, starts: Starts, stripe: Stripe) -> None:
    """Write those of `new` [rows, n_tokens, kv heads, head_dim] that are cached here at each row's position."""
    n_tokens = new.shape[1]
    values = round_to(cache.dtype, new).swapaxes(1, 2)
    if _all_equal(starts):
        taken, places = stripe.own(starts[0], n_tokens)
        cache.values[:, :, slots(places.start, places.stop, cache.shape[2])] = values[:, :, taken]
        return
    for row, start in enumerate(starts):
        taken, places = stripe.own(start, n_tokens)
        cache.values[row][:, slots(places.start, places.stop, cache.shape[2])] = values[row][:, taken]


def _all_equal(starts: Starts) -> bool:
    return starts.count(starts[0]) == len(starts)


@frozen
class Attention:
    """Attend causally: softmax(q Kᵀ · scale) V over each row's prefix of the cache.

    q [rows·n_tokens, heads·head_dim]; token t of a row sees the keys up to its own position start + t; with the
    param `window` only the last `window` of them, its own included.  scale: by default 1/√head_dim.
    softcap: scores s become softcap · tanh(s / softcap) (Gemma 2, arXiv 2408.00118).
    """

    scale: float | None = None
    softcap: float | None = None

    @property
    def name(self) -> str:
        """A soft cap is more work."""
        return "attention" if self.softcap is None else "attention_softcap"

    def infer(
        self,
        q: Array,
        k_cache: Tensor,
        v_cache: Tensor,
        *,
        starts: Starts,
        queries: tuple[int, ...],
        window: int | None = None,
    ) -> Inferred:
        """Return the shape of q."""
        del k_cache, v_cache, starts, queries, window
        return q.shape, q.dtype

    def evaluate(
        self,
        q: Any,
        k_cache: Tensor,
        v_cache: Tensor,
        *,
        starts: Starts,
        queries: tuple[int, ...],
        window: int | None = None,
    ) -> Floats:
        """Return the attended values."""
        out, _, total = self.attend(q, k_cache, v_cache, starts, queries, window, WHOLE)
        out /= total
        y: Floats = out.swapaxes(1, 2).reshape(q.shape)
        return y

    def attend(
        self, q: Any, k_cache: Tensor, v_cache: Tensor, starts: Starts, queries: tuple[int, ...], window: int | None,
        stripe: Stripe,
    ) -> tuple[Floats, Floats, Floats]:  # fmt: skip
        """Return Σ exp(s - m) v, m and Σ exp(s - m) over the keys here, all [rows, heads, tokens, ·].

        One run of KV heads with equally many queries at a time.
        """
        n_rows, n_tokens, dim = len(starts), q.shape[0] // len(starts), k_cache.shape[3]
        first = stripe.count(max(0, min(starts) + 1 - window) if window else 0)
        stop = stripe.count(max(starts) + n_tokens)
        scaled = as_fp32(q) * np.float32(dim**-0.5 if self.scale is None else self.scale)
        heads = scaled.reshape(n_rows, n_tokens, -1, dim).swapaxes(1, 2)
        bias = None if n_tokens == 1 and _all_equal(starts) else causal_bias(starts, n_tokens, first, window, stripe)
        outs = []
        head = 0
        for kv, group in _runs(queries):
            n_heads = len(kv) * group
            keys, values = (in_order(c.values[:, kv.start : kv.stop], first, stop) for c in (k_cache, v_cache))
            outs.append(_weighted(heads[:, head : head + n_heads], keys, values, bias, self.softcap))
            head += n_heads
        if not outs:  # no heads
            return heads, heads[..., :1], heads[..., :1]
        if len(outs) == 1:
            return outs[0]
        out, peak, total = (np.concatenate(parts, axis=1) for parts in zip(*outs, strict=True))
        return out, peak, total

    def work(
        self,
        q: Array,
        k_cache: Tensor,
        v_cache: Tensor,
        *,
        starts: Starts,
        queries: tuple[int, ...],
        window: int | None = None,
        stripe: Stripe = WHOLE,
    ) -> Work:
        """Return both products and the softmax over the visible keys; only the visible part of the cache is read.

        A causal triangle counts as the rectangle of its mean number of keys, rounded up.
        """
        n_tokens, dim = q.shape[0] // len(starts), k_cache.shape[3]
        matmuls: list[tuple[int, int, int, int]] = []
        seen = n_read = 0
        for start, n_rows in sorted(Counter(starts).items()):
            of_row = n_seen(start, n_tokens, window, stripe)
            n_keys = -(-of_row // n_tokens)
            for kv, group in _runs(queries):
                count, m = n_rows * len(kv), group * n_tokens
                matmuls += [(count, m, dim, n_keys), (count, m, n_keys, dim)]
            seen += n_rows * of_row
            n_read += n_rows * (stripe.count(start + n_tokens) - stripe.count(start + 1 - window if window else 0))
        prefix = n_read * len(queries) * dim
        flops = SOFTMAX_FLOPS + (0 if self.softcap is None else SOFTCAP_FLOPS)
        return Work(
            wider(dtype_name(q.dtype), k_cache.dtype),
            tuple(matmuls),
            flops * sum(queries) * seen,
            ((k_cache.tier, part_bytes(k_cache, prefix) + part_bytes(v_cache, prefix)),),
            2 * q.nbytes,
            "attention",
            streams=len(starts) * len(queries),
        )


@frozen
class PartialAttention:
    """Attend to the keys that are cached here: what `workloads.context.pack` makes of it, and `Attention`'s work."""

    whole: Attention

    @property
    def name(self) -> str:
        """That of the whole, in parts."""
        return f"partial_{self.whole.name}"

    def infer(self, q: Array, k_cache: Tensor, v_cache: Tensor, *, queries: tuple[int, ...], **params: Any) -> Inferred:
        """Return [heads·rows·n_tokens, bytes]."""
        del v_cache, params
        return packed((sum(queries), q.shape[0], k_cache.shape[3]), q.dtype)

    def evaluate(
        self, q: Any, k_cache: Tensor, v_cache: Tensor, *, starts: Starts, queries: tuple[int, ...], stripe: Stripe,
        window: int | None = None,
    ) -> Any:  # fmt: skip
        """Return the packed parts."""
        found = self.whole.attend(q, k_cache, v_cache, starts, queries, window, stripe)
        out, peak, total = (x.swapaxes(0, 1).reshape(sum(queries), q.shape[0], -1) for x in found)
        return pack(out, peak, total, q.dtype)

    def work(self, q: Array, k_cache: Tensor, v_cache: Tensor, *, queries: tuple[int, ...], **params: Any) -> Work:
        """Return the work over the keys here; parts are written."""
        (rows, width), _ = self.infer(q, k_cache, v_cache, queries=queries)
        work = self.whole.work(q, k_cache, v_cache, queries=queries, **params)
        return evolve(work, activation_bytes=q.nbytes + rows * width)


def n_seen(start: int, n_tokens: int, window: int | None, stripe: Stripe = WHOLE) -> int:
    """Return how many of the keys here the new tokens of a row see, all together.

    >>> n_seen(0, 4, None), n_seen(0, 4, 2), n_seen(9, 1, 4)
    (10, 7, 4)
    >>> n_seen(0, 4, None, Stripe(0, 2)), n_seen(0, 4, None, Stripe(1, 2))
    (6, 4)
    """
    seen = stripe.counts(start + n_tokens) - stripe.counts(start)
    if window is None:
        return seen
    return seen - stripe.counts(start + n_tokens - window) + stripe.counts(start - window)


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


@lru_cache(maxsize=4)
def causal_bias(starts: Starts, n_tokens: int, first: int, window: int | None, stripe: Stripe = WHOLE) -> Floats:
    """Return 0 for a visible key and -inf for another, [rows or 1, 1, 1, n_tokens, keys here from place `first` on]."""
    own = starts[:1] if _all_equal(starts) else starts
    position = np.add.outer(own, np.arange(n_tokens))[..., None]
    key = stripe.index + stripe.n * np.arange(first, stripe.count(max(starts) + n_tokens))
    hidden = key > position
    if window is not None:
        hidden |= key <= position - window
    return np.where(hidden, np.float32(-np.inf), np.float32(0))[:, None, None]


def _weighted(
    q: Floats, keys: Floats, values: Floats, bias: Floats | None, softcap: float | None
) -> tuple[Floats, Floats, Floats]:
    """Return exp(s - m) values, m and Σ exp(s - m) of s = q keysᵀ + bias, all [rows, heads, tokens, ·].

    q [rows, heads, tokens, dim], keys and values [rows, kv heads, length, dim].
    """
    n_rows, n_heads, n_tokens, dim = q.shape
    n_kv, length = keys.shape[1], keys.shape[2]
    # the query heads of one KV head are rows of one product
    scores: Floats = q.reshape(n_rows, n_kv, -1, dim) @ keys.swapaxes(-1, -2)
    if softcap is not None:
        scores /= np.float32(softcap)
        np.tanh(scores, out=scores)
        scores *= np.float32(softcap)
    if bias is not None:
        grouped = scores.reshape(n_rows, n_kv, n_heads // n_kv, n_tokens, length)
        grouped += bias
    peak = np.maximum.reduce(scores, axis=-1, keepdims=True, initial=LOWEST)
    scores -= peak
    np.exp(scores, out=scores)
    by_head = (n_rows, n_heads, n_tokens)
    total = np.add.reduce(scores, axis=-1, keepdims=True)
    return (scores @ values).reshape(*by_head, dim), peak.reshape(*by_head, 1), total.reshape(*by_head, 1)
