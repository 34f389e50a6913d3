"""Grouped-query attention: query heads are split over the tensor-parallel group, KV heads go where they are needed.

Over context-parallel ranks, q, k and v are on each; the cache is split along the sequence, and o by the heads merged.
On a grid a rank's matrices have the heads of all ranks across, which add up their parts and work on their own heads.

Neutral names, all [out, in]: q, k, v, o, with _bias where there is one; q_norm, k_norm [head_dim].  Rows 2j and 2j+1
of a head in q and k are one rotated pair.
"""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen

from workloads.array import Array
from workloads.attention import Attention, PartialAttention, RopeAppend
from workloads.chip import Chip, Tensor
from workloads.context import WHOLE, Stripe
from workloads.elementwise import QueryKeyNorm
from workloads.kernels import Matmul
from workloads.models.blocks.context import Context, stripe_of
from workloads.models.blocks.grid import Inside
from workloads.models.blocks.heads import ByHeads, ByRows, Exchange, Spread
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
        """Return the rank's rows of q, k and v, its cache, and its columns of o.

        Biases are held once for every sum of ranks' results.
        """
        spread, dim, cols = self._spread(plan), self.head_dim, plan.hidden(self.hidden)
        q, k, v = spread.held(plan)
        n = len(q) + len(k) + len(v)
        found = [plan.weights("qkv", (n, len(cols)), Part("q", q, cols), Part("k", k, cols), Part("v", v, cols))]
        if self.qkv_bias and plan.has_input_bias:
            found.append(plan.weights("qkv_bias", (n,), Part("q_bias", q), Part("k_bias", k), Part("v_bias", v)))
        if self.qk_norm_eps is not None:
            found += [plan.weights(name, (dim,)) for name in ("q_norm", "k_norm")]
        n_rows, n_kv = spread.cached(plan)
        cache = (n_rows, n_kv, capacity(plan.max_length, self.window, stripe_of(plan.place, plan.layout)), dim)
        found += [plan.cache(name, cache) for name in ("k_cache", "v_cache")]
        out = spread.out(plan)
        found.append(plan.weights("o", (len(cols), len(out)), Part("o", cols, out)))
        if self.o_bias and plan.has_output_bias:
            found.append(plan.weights("o_bias", (len(cols),), Part("o_bias", cols)))
        return tuple(found)

    def _spread(self, at: Plan | Site) -> Spread:
        kind = ByRows if at.layout.tp_attention == "batch" else ByHeads
        return kind(self.n_heads, self.n_kv_heads, self.head_dim)

    def start(self, site: Site) -> RunningAttention:
        """Return the block on one rank."""
        spread = self._spread(site)
        queries, exchange = spread.queries(site), spread.exchange(site)
        k_cache, v_cache = site.tensors("k_cache", "v_cache")
        params: dict[str, Any] = {"queries": queries}
        if self.window is not None:
            params["window"] = self.window
        whole = Attention(self.scale, self.softcap)
        cached = {"stripe": stripe_of(site.place, site.layout)} if site.layout.cp > 1 else {}
        lengths = site.peers.lengths[site.place.ep]
        return RunningAttention(
            site.chip,
            spread.inside(site),
            exchange,
            site.matmul("qkv_matmul"),
            site.tensors("qkv", "qkv_bias"),
            None if self.qk_norm_eps is None else QueryKeyNorm(self.qk_norm_eps),
            site.tensors("q_norm", "k_norm"),
            RopeAppend(self.rope),
            PartialAttention(whole) if cached else whole,
            params | cached,
            cached,
            Context.of(site, sum(queries)),
            k_cache,
            v_cache,
            exchange.own(lengths) if exchange else lengths,
            site.matmul("o_matmul"),
            site.tensors("o", "o_bias"),
        )


@frozen(eq=False)
class RunningAttention:
    """The block on one rank."""

    chip: Chip
    inside: Inside | None
    exchange: Exchange | None
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
        apply, inside, n, n_rows = self.chip.apply, self.inside, x.shape[0], len(starts)
        qkv = apply(self.qkv_matmul, x, *self.qkv)
        if inside is not None:
            qkv = await inside.enter(qkv)
        if self.exchange is not None:
            qkv, starts = await self.exchange.to_rows(qkv, n_rows), self.exchange.own(starts)
        attended = self._attend(qkv, starts)
        if self.context is not None:
            attended = await self.context.merge(attended, n)
        if self.exchange is not None:
            attended = await self.exchange.to_columns(attended, n_rows, n)
        if inside is not None:
            attended = await inside.leave(attended)
        return apply(self.o_matmul, attended, *self.o)

    def _attend(self, qkv: Array, starts: tuple[int, ...]) -> Array:
        """Return what the queries attend to; their keys and values are cached."""
        apply = self.chip.apply
        k_cache, v_cache = self._room(starts, qkv.shape[0])
        if self.qk_norm is not None:
            qkv = apply(self.qk_norm, qkv, *self.norms, n_kv=k_cache.shape[1])
        q = apply(self.rope, qkv, k_cache, v_cache, starts=starts, **self.cached)
        attended = apply(self.attention, q, k_cache, v_cache, starts=starts, **self.params)
        if k_cache is not self.k_cache:
            caches = self.k_cache, self.v_cache
            apply(KEEP_WINDOW, q, k_cache, v_cache, *caches, lengths=self.lengths, **self.cached)
        return attended

    def _room(self, starts: tuple[int, ...], n: int) -> tuple[Tensor, Tensor]:
        """Return where the keys and values of n new tokens go: the caches, or room for all where these are shorter."""
        n_tokens = n // max(len(starts), 1)
        stripe: Stripe = self.cached.get("stripe", WHOLE)
        n_positions = stripe.count(max(starts, default=0) + n_tokens)
        if n_tokens <= 1 or not self.k_cache.shape[1] or n_positions <= self.k_cache.shape[2]:
            return self.k_cache, self.v_cache
        return with_room(self.k_cache, n_positions), with_room(self.v_cache, n_positions)
