"""Grouped-query attention: query heads are split over the tensor-parallel group, KV heads go where they are needed.

Over context-parallel ranks, q, k and v are on each; the cache is split along the sequence, and o by the heads merged.
On a grid a rank's matrices have the heads of all ranks across, which add up their parts and work on their own heads.

Neutral names, all [out, in]: q, k, v, o, with _bias where there is one; q_norm, k_norm [head_dim].  Rows 2j and 2j+1
of a head in q and k are one rotated pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

from attrs import frozen

from workloads.array import Array
from workloads.attention import Attention, PartialAttention, RopeAppend
from workloads.chip import Chip, Tensor
from workloads.context import WHOLE, Stripe
from workloads.elementwise import QueryKeyNorm
from workloads.kernels import Matmul
from workloads.layout import split_evenly
from workloads.models.blocks.context import Context, merged_heads, stripe_of
from workloads.models.blocks.grid import Inside
from workloads.models.blocks.site import Plan, Site
from workloads.rope import Rope
from workloads.shards import Part, ShardSpec
from workloads.window import KeepWindow, capacity, with_room

KEEP_WINDOW = KeepWindow()


@frozen
class GroupedQueryAttention:
    """The sizes and switches of an attention block.

    rope: None if positions are not rotated.  qk_norm_eps: None without query and key norms.
    window: how many tokens a token sees, None for all.  scale, softcap: see `workloads.attention.Attention`.
    """

    on_grid: ClassVar[bool] = True

    hidden: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rope: Rope | None
    qkv_bias: bool = False
    o_bias: bool = False
    qk_norm_eps: float | None = None
    window: int | None = None
    scale: float | None = None
    softcap: float | None = None

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every stored matrix."""
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        found: dict[str, tuple[int, ...]] = {
            "q": (q, self.hidden), "k": (kv, self.hidden), "v": (kv, self.hidden), "o": (self.hidden, q),
        }  # fmt: skip
        if self.qkv_bias:
            found |= {"q_bias": (q,), "k_bias": (kv,), "v_bias": (kv,)}
        if self.o_bias:
            found["o_bias"] = (self.hidden,)
        if self.qk_norm_eps is not None:
            found |= {"q_norm": (self.head_dim,), "k_norm": (self.head_dim,)}
        return found

    def shards(self, plan: Plan) -> tuple[ShardSpec, ...]:
        """Return the rows of q, k and v of the own heads, their cache, and the columns of o of those merged here.

        Biases are held once for every sum of ranks' results.
        """
        dim, cols = self.head_dim, plan.hidden(self.hidden)
        share = heads_of(self.n_heads, self.n_kv_heads, plan.layout.tp, plan.place.tp)
        held = together(self._across(plan))
        q, kv = (range(r.start * dim, r.stop * dim) for r in (held.heads, held.kv_heads))
        n = len(q) + 2 * len(kv)
        parts = (Part("q", q, cols), Part("k", kv, cols), Part("v", kv, cols))
        found = [plan.weights("qkv", (n, len(cols)), *parts)]
        if self.qkv_bias and plan.has_input_bias:
            found.append(plan.weights("qkv_bias", (n,), Part("q_bias", q), Part("k_bias", kv), Part("v_bias", kv)))
        if self.qk_norm_eps is not None:
            found += [plan.weights(name, (dim,)) for name in ("q_norm", "k_norm")]
        n_cached = capacity(plan.max_length, self.window, stripe_of(plan.place, plan.layout))
        cache = (plan.n_rows, len(share.kv_heads), n_cached, dim)
        found += [plan.cache(name, cache) for name in ("k_cache", "v_cache")]
        merged = merged_heads(held.heads, plan.place, plan.layout)
        out = range(merged.start * dim, merged.stop * dim)
        found.append(plan.weights("o", (len(cols), len(out)), Part("o", cols, out)))
        if self.o_bias and plan.has_output_bias:
            found.append(plan.weights("o_bias", (len(cols),), Part("o_bias", cols)))
        return tuple(found)

    def _across(self, at: Plan | Site) -> list[HeadShare]:
        """Return the heads of all ranks that have the same part of the block's inside."""
        tp = at.layout.tp
        return [heads_of(self.n_heads, self.n_kv_heads, tp, i % tp) for i in at.layout.across(at.place)]

    def _inside(self, site: Site) -> Inside | None:
        """Return how the ranks across share the columns of q, k and v, which are stored one after the other."""
        shares, dim = self._across(site), self.head_dim
        held = together(shares)
        k = len(held.heads) - held.kv_heads.start
        v = k + len(held.kv_heads)

        def columns(heads: range, offset: int) -> range:
            return range((heads.start + offset) * dim, (heads.stop + offset) * dim)

        parts = (
            (columns(s.heads, -held.heads.start), columns(s.kv_heads, k), columns(s.kv_heads, v)) if s.heads else ()
            for s in shares
        )
        return Inside.of(site, tuple(parts), [len(s.heads) * dim for s in shares])

    def start(self, site: Site) -> RunningAttention:
        """Return the block on one rank."""
        share = heads_of(self.n_heads, self.n_kv_heads, site.layout.tp, site.place.tp)
        k_cache, v_cache = site.tensors("k_cache", "v_cache")
        params: dict[str, Any] = {"queries": share.queries}
        if self.window is not None:
            params["window"] = self.window
        whole = Attention(self.scale, self.softcap)
        cached = {"stripe": stripe_of(site.place, site.layout)} if site.layout.cp > 1 else {}
        return RunningAttention(
            site.chip,
            self._inside(site),
            site.matmul("qkv_matmul"),
            site.tensors("qkv", "qkv_bias"),
            None if self.qk_norm_eps is None else QueryKeyNorm(self.qk_norm_eps),
            site.tensors("q_norm", "k_norm"),
            RopeAppend(self.rope),
            PartialAttention(whole) if cached else whole,
            params | cached,
            cached,
            Context.of(site, len(share.heads)),
            k_cache,
            v_cache,
            site.peers.lengths[site.place.ep],
            site.matmul("o_matmul"),
            site.tensors("o", "o_bias"),
        )


@frozen
class HeadShare:
    """What one tensor-parallel rank holds: query heads, and the KV heads that these need.

    `queries` counts the own query heads of each own KV head; a rank beyond the heads has none of either.
    """

    heads: range
    kv_heads: range
    queries: tuple[int, ...]


@lru_cache(maxsize=4096)
def heads_of(n_heads: int, n_kv_heads: int, tp: int, index: int) -> HeadShare:
    """Return the share of rank `index` of `tp`; every rank with a query head holds its KV head.

    >>> heads_of(6, 2, 4, 1)
    HeadShare(heads=range(2, 4), kv_heads=range(0, 2), queries=(1, 1))
    """
    heads = split_evenly(n_heads, tp)[index]
    group = n_heads // n_kv_heads
    kv_heads = range(heads.start // group, (heads.stop - 1) // group + 1) if heads else range(0)
    queries = tuple(len([head for head in heads if head // group == kv]) for kv in kv_heads)
    return HeadShare(heads, kv_heads, queries)


@frozen
class HeldHeads:
    """The query and KV heads that are in a rank's matrices."""

    heads: range
    kv_heads: range


def together(shares: Sequence[HeadShare]) -> HeldHeads:
    """Return the heads of neighbouring ranks.

    >>> together([heads_of(6, 2, 4, 0), heads_of(6, 2, 4, 1)])
    HeldHeads(heads=range(0, 4), kv_heads=range(0, 2))
    """
    some = [share for share in shares if share.heads] or shares[:1]
    first, last = some[0], some[-1]
    return HeldHeads(range(first.heads.start, last.heads.stop), range(first.kv_heads.start, last.kv_heads.stop))


@frozen(eq=False)
class RunningAttention:
    """The block on one rank."""

    chip: Chip
    inside: Inside | None
    qkv_matmul: Matmul
    qkv: tuple[Tensor, ...]
    qk_norm: QueryKeyNorm | None
    norms: tuple[Tensor, ...]
    rope: RopeAppend
    attention: Attention | PartialAttention
    params: dict[str, Any]
    cached: dict[str, Any]
    context: Context | None
    k_cache: Tensor
    v_cache: Tensor
    lengths: tuple[int, ...]
    """Of the rows' prompts."""
    o_matmul: Matmul
    o: tuple[Tensor, ...]

    async def __call__(self, x: Array, starts: tuple[int, ...]) -> Array:
        """Return this rank's part of the attention block, to be summed over the group."""
        apply, inside = self.chip.apply, self.inside
        k_cache, v_cache = self._room(starts, x.shape[0])
        qkv = apply(self.qkv_matmul, x, *self.qkv)
        if inside is not None:
            qkv = await inside.enter(qkv)
        if self.qk_norm is not None:
            qkv = apply(self.qk_norm, qkv, *self.norms, n_kv=k_cache.shape[1])
        q = apply(self.rope, qkv, k_cache, v_cache, starts=starts, **self.cached)
        attended = apply(self.attention, q, k_cache, v_cache, starts=starts, **self.params)
        if k_cache is not self.k_cache:
            caches = self.k_cache, self.v_cache
            apply(KEEP_WINDOW, q, k_cache, v_cache, *caches, lengths=self.lengths, **self.cached)
        if self.context is not None:
            attended = await self.context.merge(attended, x.shape[0])
        if inside is not None:
            attended = await inside.leave(attended)
        return apply(self.o_matmul, attended, *self.o)

    def _room(self, starts: tuple[int, ...], n: int) -> tuple[Tensor, Tensor]:
        """Return where the keys and values of n new tokens go: the caches, or room for all where these are shorter."""
        n_tokens = n // max(len(starts), 1)
        stripe: Stripe = self.cached.get("stripe", WHOLE)
        n_positions = stripe.count(max(starts, default=0) + n_tokens)
        if n_tokens <= 1 or not self.k_cache.shape[1] or n_positions <= self.k_cache.shape[2]:
            return self.k_cache, self.v_cache
        return with_room(self.k_cache, n_positions), with_room(self.v_cache, n_positions)
