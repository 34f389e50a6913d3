"""The kernels of multi-head latent attention over a cache [rows, max length, latent + rotated] (arXiv 2405.04434).

Keys and values of all heads come from one latent vector per token, and one rotated key is common to all heads: only
these are cached. Queries are absorbed: q_h · (U_h c) = (U_hᵀ q_h) · c, so that attention works on latents, and the
value projection follows the weighted sum. Batches are those of `workloads.attention`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from attrs import evolve, frozen

from workloads.array import Array
from workloads.attention import ROPE_FLOPS, SOFTMAX_FLOPS, Starts, causal_bias, n_own, n_seen, turns_of
from workloads.chip import Tensor, Work
from workloads.context import LOWEST, WHOLE, Stripe, pack, packed
from workloads.elementwise import RMS_NORM_FLOPS
from workloads.kernels import Inferred, as_fp32, part_bytes, vector_work
from workloads.rope import Rope
from workloads.rounding import Floats, dtype_name, round_to, wider


@frozen
class HeadMatmul:
    """Multiply each head by its own matrix: x [n, heads·in], w [heads·out, in] or its transpose, y [n, heads·out].

    transposed: w is stored as [heads·in, out], the matrix that goes the other way.
    inputs: the narrower number format that x is rounded to first, each head by itself; None for none.
    """

    label: str
    transposed: bool = False
    inputs: str | None = None

    @property
    def name(self) -> str:
        """The format of the inputs decides the rate."""
        return self.label if self.inputs is None else f"{self.label}_{self.inputs}"

    def _sides(self, x: Array, w: Tensor, n_heads: int) -> tuple[int, int]:
        k = x.shape[1] // n_heads
        return k, w.shape[1] if self.transposed else w.shape[0] // n_heads

    def infer(self, x: Array, w: Tensor, *, n_heads: int) -> Inferred:
        """Return [n, heads·out]."""
        return (x.shape[0], n_heads * self._sides(x, w, n_heads)[1]), x.dtype

    def evaluate(self, x: Any, w: Tensor, *, n_heads: int) -> Floats:
        """Return the products, head by head."""
        rows = as_fp32(x).reshape(len(x), n_heads, -1)
        heads = (rows if self.inputs is None else round_to(self.inputs, rows)).swapaxes(0, 1)
        matrices = w.values.reshape(n_heads, -1, w.shape[1])
        y = heads @ (matrices if self.transposed else matrices.swapaxes(1, 2))
        return np.ascontiguousarray(y.swapaxes(0, 1)).reshape(len(x), -1)

    def work(self, x: Array, w: Tensor, *, n_heads: int) -> Work:
        """Return a multiplication per head; all matrices are read."""
        k, out = self._sides(x, w, n_heads)
        return Work(
            wider(self.inputs or dtype_name(x.dtype), w.dtype),
            matmuls=((n_heads, x.shape[0], k, out),),
            tensor_bytes=((w.tier, w.size_bytes),),
            activation_bytes=x.nbytes + x.shape[0] * n_heads * out * x.dtype.itemsize,
            kind="matmul",
            rounded_bytes=0 if self.inputs is None else x.nbytes,
        )


@frozen
class SplitHeads:
    """Take the first or the last `width` elements of every head: x [n, heads·dim], y [n, heads·width]."""

    width: int
    last: bool = False

    @property
    def name(self) -> str:
        """The width decides the shape."""
        return f"split_heads_{self.width}"

    def infer(self, x: Array, *, n_heads: int) -> Inferred:
        """Return [n, heads·width]."""
        return (x.shape[0], n_heads * self.width), x.dtype

    def evaluate(self, x: Any, *, n_heads: int) -> Any:
        """Return the parts."""
        heads = x.reshape(len(x), n_heads, -1)
        part = heads[:, :, -self.width :] if self.last else heads[:, :, : self.width]
        return part.reshape(len(x), -1)

    def work(self, x: Array, *, n_heads: int) -> Work:
        """Return only traffic."""
        return vector_work(x, 0, 2 * x.shape[0] * n_heads * self.width * x.dtype.itemsize, kind="lookup")


@frozen
class LatentAppend:
    """Normalise the new latents, rotate their common key, and append both to the cache; return the rotated queries.

    q [n, heads·rotated], kv [n, latent + rotated], w [latent]; elements 2j and 2j+1 are one rotated pair.
    """

    rope: Rope
    eps: float

    @property
    def name(self) -> str:
        """The number of rotated elements decides the work."""
        return f"latent_append_{self.rope.dim}"

    def infer(
        self, q: Array, kv: Array, w: Tensor, cache: Tensor, *, starts: Starts, stripe: Stripe = WHOLE
    ) -> Inferred:
        """Return the shape of q."""
        del kv, w, cache, starts, stripe
        return q.shape, q.dtype

    def evaluate(self, q: Any, kv: Any, w: Tensor, cache: Tensor, *, starts: Starts, stripe: Stripe = WHOLE) -> Floats:
        """Return the rotated queries; the cache is written in place, rounded to its dtype."""
        n_rows, n_tokens, dim = len(starts), len(kv) // len(starts), self.rope.dim
        n_positions = cache.shape[1] if stripe == WHOLE else (cache.shape[1] + 1) * stripe.n
        turns = turns_of(self.rope, n_positions, starts, n_tokens)
        kv = as_fp32(kv)
        latent, key = kv[:, :-dim], np.ascontiguousarray(kv[:, -dim:])
        scale = np.sqrt(np.vecdot(latent, latent) / np.float32(latent.shape[1]) + np.float32(self.eps))
        key = (key.reshape(n_rows, n_tokens, 1, dim).view(np.complex64) * turns).view(np.float32)
        new = np.concatenate([latent / scale[:, None] * w.values, key.reshape(len(kv), dim)], axis=1)
        values = round_to(cache.dtype, new).reshape(n_rows, n_tokens, -1)
        for row, start in enumerate(starts):
            taken, places = stripe.own(start, n_tokens)
            cache.values[row, places] = values[row, taken]
        heads = np.ascontiguousarray(as_fp32(q)).reshape(n_rows, n_tokens, -1, dim)
        rotated: Floats = (heads.view(np.complex64) * turns).view(np.float32).reshape(q.shape)
        return rotated

    def work(self, q: Array, kv: Array, w: Tensor, cache: Tensor, *, starts: Starts, stripe: Stripe = WHOLE) -> Work:
        """Return the norm and the rotation; q and kv are read, q written, the new entries written to the cache."""
        n = kv.shape[0]
        own = n if stripe == WHOLE else n_own(starts, n // len(starts), stripe)
        flops = RMS_NORM_FLOPS * n * w.shape[0] + ROPE_FLOPS * (q.size + n * self.rope.dim)
        stored = ((cache.tier, part_bytes(cache, own * kv.shape[1])), (w.tier, w.size_bytes))
        return vector_work(q, flops, 2 * q.nbytes + kv.nbytes, *stored, kind="rope")


@frozen
class LatentAttention:
    """Attend causally on latents: y_h = softmax((l_h · c + r_h · k) · scale) c, over each row's prefix of the cache.

    l [n, heads·latent] absorbed queries, r [n, heads·rotated] rotated ones, y [n, heads·latent].
    """

    scale: float
    name: str = "latent_attention"

    def infer(self, latent: Array, rotated: Array, cache: Tensor, *, starts: Starts, n_heads: int) -> Inferred:
        """Return the shape of the absorbed queries."""
        del rotated, cache, starts, n_heads
        return latent.shape, latent.dtype

    def evaluate(self, latent: Any, rotated: Any, cache: Tensor, *, starts: Starts, n_heads: int) -> Floats:
        """Return the weighted sums of latents."""
        y, _, total = self.attend(latent, rotated, cache, starts, n_heads, WHOLE)
        y /= total
        by_head: Floats = y.swapaxes(1, 2).reshape(latent.shape)
        return by_head

    def attend(
        self, latent: Any, rotated: Any, cache: Tensor, starts: Starts, n_heads: int, stripe: Stripe
    ) -> tuple[Floats, Floats, Floats]:
        """Return Σ exp(s - m) c, m and Σ exp(s - m) over the entries here, all [rows, heads, tokens, ·]."""
        n_rows, n_tokens, width = len(starts), len(latent) // len(starts), latent.shape[1] // n_heads
        parts = (as_fp32(x).reshape(n_rows, n_tokens, n_heads, -1) for x in (latent, rotated))
        q = np.concatenate(list(parts), axis=3).swapaxes(1, 2).reshape(n_rows, n_heads * n_tokens, -1)
        keys = cache.values[:, : stripe.count(max(starts) + n_tokens)]
        scores: Floats = (q * np.float32(self.scale)) @ keys.swapaxes(1, 2)
        by_token = scores.reshape(n_rows, n_heads, n_tokens, keys.shape[1])
        by_token += causal_bias(starts, n_tokens, 0, None, stripe)[:, 0]
        peak = np.maximum.reduce(scores, axis=2, keepdims=True, initial=LOWEST)
        scores -= peak
        np.exp(scores, out=scores)
        by_head, total = (n_rows, n_heads, n_tokens), scores.sum(axis=2)
        return (
            (scores @ keys[:, :, :width]).reshape(*by_head, width),
            peak.reshape(*by_head, 1),
            total.reshape(*by_head, 1),
        )

    def work(
        self, latent: Array, rotated: Array, cache: Tensor, *, starts: Starts, n_heads: int, stripe: Stripe = WHOLE
    ) -> Work:
        """Return both products and the softmax over the visible entries; each row's part of the cache is read once."""
        n_tokens, width = latent.shape[0] // len(starts), latent.shape[1] // n_heads
        dim = width + rotated.shape[1] // n_heads
        matmuls: list[tuple[int, int, int, int]] = []
        seen = n_read = 0
        for start, n_rows in sorted(Counter(starts).items()):
            of_row = n_seen(start, n_tokens, None, stripe)
            n_keys, m = -(-of_row // n_tokens), n_heads * n_tokens
            matmuls += [(n_rows, m, dim, n_keys), (n_rows, m, n_keys, width)]
            seen += n_rows * of_row
            n_read += n_rows * stripe.count(start + n_tokens)
        return Work(
            wider(dtype_name(latent.dtype), cache.dtype),
            tuple(matmuls),
            SOFTMAX_FLOPS * n_heads * seen,
            ((cache.tier, part_bytes(cache, n_read * dim)),),
            2 * latent.nbytes + rotated.nbytes,
            "attention",
            streams=len(starts),
        )


@frozen
class PartialLatentAttention:
    """Attend to the entries that are cached here: `workloads.context.pack` of it, and the whole's work."""

    whole: LatentAttention
    name: str = "partial_latent_attention"

    def infer(self, latent: Array, rotated: Array, cache: Tensor, *, n_heads: int, **params: Any) -> Inferred:
        """Return [heads·n, bytes]."""
        del rotated, cache, params
        return packed((n_heads, latent.shape[0], latent.shape[1] // n_heads), latent.dtype)

    def evaluate(
        self, latent: Any, rotated: Any, cache: Tensor, *, starts: Starts, n_heads: int, stripe: Stripe
    ) -> Any:
        """Return the packed parts."""
        found = self.whole.attend(latent, rotated, cache, starts, n_heads, stripe)
        out, peak, total = (x.swapaxes(0, 1).reshape(n_heads, len(latent), -1) for x in found)
        return pack(out, peak, total, latent.dtype)

    def work(self, latent: Array, rotated: Array, cache: Tensor, *, n_heads: int, **params: Any) -> Work:
        """Return the work over the entries here; parts are written."""
        (rows, width), _ = self.infer(latent, rotated, cache, n_heads=n_heads)
        work = self.whole.work(latent, rotated, cache, n_heads=n_heads, **params)
        return evolve(work, activation_bytes=latent.nbytes + rotated.nbytes + rows * width)
