"""Multi-head latent attention: heads are split over the tensor-parallel group, every rank caches all latents.

DeepSeek-AI, arXiv 2405.04434. Neutral names, all [out, in]: q, or q_down, q_norm and q_up; kv_down (latent, then the
rotated key), kv_norm, k_up and v_up [heads·dim, latent], o. Rows 2j and 2j+1 of a rotated part are one pair.
"""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import frozen

from workloads.array import Array, zeros
from workloads.chip import Chip, Tensor
from workloads.elementwise import RmsNorm
from workloads.kernels import Matmul
from workloads.latent import HeadMatmul, LatentAppend, LatentAttention, PartialLatentAttention, SplitHeads
from workloads.layout import split_evenly
from workloads.models.blocks.context import Context, merged_heads, stripe_of
from workloads.models.blocks.site import Plan, Site
from workloads.rope import Rope
from workloads.shards import Part, ShardSpec


@frozen
class LatentHeads:
    """The sizes of the block; q_latent: None if queries are made directly; plain: what is not rotated of a head."""

    on_grid: ClassVar[bool] = False

    hidden: int
    n_heads: int
    q_latent: int | None
    latent: int
    plain: int
    rope: Rope
    value: int
    eps: float
    scale: float

    @property
    def _query(self) -> int:
        return self.plain + self.rope.dim

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every stored matrix."""
        queries = self.n_heads * self._query
        found: dict[str, tuple[int, ...]] = {"q": (queries, self.hidden)}
        if self.q_latent is not None:
            found = {
                "q_down": (self.q_latent, self.hidden), "q_norm": (self.q_latent,), "q_up": (queries, self.q_latent),
            }  # fmt: skip
        return found | {
            "kv_down": (self.latent + self.rope.dim, self.hidden),
            "kv_norm": (self.latent,),
            "k_up": (self.n_heads * self.plain, self.latent),
            "v_up": (self.n_heads * self.value, self.latent),
            "o": (self.hidden, self.n_heads * self.value),
        }

    def _own(self, at: Plan | Site) -> range:
        """Return the heads of a tensor-parallel rank."""
        return split_evenly(self.n_heads, at.layout.tp)[at.place.tp]

    def shards(self, plan: Plan) -> tuple[ShardSpec, ...]:
        """Return what makes the latents, whole, and the own heads of the rest; a rank without heads needs none."""
        own, latent, shapes = self._own(plan), self.latent, self.tensors()
        if not own:
            return (plan.weights("o", (self.hidden, 0), Part("o", None, range(0))),)
        merged = merged_heads(own, plan.place, plan.layout)

        def rows(heads: range, dim: int) -> range:
            return range(heads.start * dim, heads.stop * dim)

        q = rows(own, self._query)
        if self.q_latent is None:
            found = [plan.weights("q", (len(q), self.hidden), Part("q", q))]
        else:
            found = [plan.weights(name, shapes[name]) for name in ("q_down", "q_norm")]
            found.append(plan.weights("q_up", (len(q), self.q_latent), Part("q_up", q)))
        found += [plan.weights(name, shapes[name]) for name in ("kv_down", "kv_norm")]
        n_cached = stripe_of(plan.place, plan.layout).count(plan.max_length)
        found.append(plan.cache("latent_cache", (plan.n_rows, n_cached, latent + self.rope.dim)))
        k, v = rows(own, self.plain), rows(merged, self.value)
        found.append(plan.weights("k_up", (len(k), latent), Part("k_up", k)))
        found.append(plan.weights("v_up", (len(v), latent), Part("v_up", v)))
        found.append(plan.weights("o", (self.hidden, len(v)), Part("o", None, v)))
        return tuple(found)

    def start(self, site: Site) -> RunningLatentHeads:
        """Return the block on one rank."""
        names = ("q",) if self.q_latent is None else ("q_down", "q_norm", "q_up")
        own = self._own(site)
        return RunningLatentHeads(
            self, site.chip, len(own), len(merged_heads(own, site.place, site.layout)), site.tensors(*names),
            site.tensors("kv_down", "kv_norm", "latent_cache"), site.tensors("k_up", "v_up", "o"),
            {} if site.layout.cp == 1 else {"stripe": stripe_of(site.place, site.layout)}, Context.of(site, len(own)),
            Products.of(site),
        )  # fmt: skip


@frozen
class Products:
    """The block's products, which take in activations in the format asked for."""

    q: Matmul
    q_down: Matmul
    kv_down: Matmul
    absorb_q: HeadMatmul
    v_up: HeadMatmul
    o: Matmul

    @classmethod
    def of(cls, site: Site) -> Products:
        """Return the products of one rank."""
        return cls(
            site.matmul("q_matmul"),
            site.matmul("q_down_matmul"),
            site.matmul("kv_down_matmul"),
            HeadMatmul("absorb_k_up", transposed=True, inputs=site.inputs),
            HeadMatmul("v_up_matmul", inputs=site.inputs),
            site.matmul("o_matmul"),
        )


@frozen(eq=False)
class RunningLatentHeads:
    """The block on one rank."""

    block: LatentHeads
    chip: Chip
    n_heads: int
    n_merged: int
    q: tuple[Tensor, ...]
    kv: tuple[Tensor, ...]
    up: tuple[Tensor, ...]
    cached: dict[str, Any]
    context: Context | None
    products: Products

    async def __call__(self, x: Array, starts: tuple[int, ...]) -> Array:
        """Return this rank's part of the attention block, to be summed over the group."""
        apply, block, n_heads, products = self.chip.apply, self.block, self.n_heads, self.products
        if not n_heads:
            return apply(products.o, zeros((x.shape[0], 0), x.dtype, real=self.chip.real), *self.up)
        (kv_down, kv_norm, cache), (k_up, v_up, o) = self.kv, self.up
        q = self._queries(x)
        kv = apply(products.kv_down, x, kv_down)
        rotated = apply(SplitHeads(block.rope.dim, last=True), q, n_heads=n_heads)
        rotated = apply(LatentAppend(block.rope, block.eps), rotated, kv, kv_norm, cache, starts=starts, **self.cached)
        latent = apply(products.absorb_q, apply(SplitHeads(block.plain), q, n_heads=n_heads), k_up, n_heads=n_heads)
        whole, of_heads = LatentAttention(block.scale), {"starts": starts, "n_heads": n_heads}
        if self.context is None:
            y = apply(whole, latent, rotated, cache, **of_heads)
        else:
            parts = apply(PartialLatentAttention(whole), latent, rotated, cache, **of_heads, **self.cached)
            y = await self.context.merge(parts, x.shape[0])
        if self.n_merged:  # else it merges none, where there are more context-parallel ranks than heads
            y = apply(products.v_up, y, v_up, n_heads=self.n_merged)
        return apply(products.o, y, o)

    def _queries(self, x: Array) -> Array:
        apply, products = self.chip.apply, self.products
        if len(self.q) == 1:
            return apply(products.q, x, *self.q)
        down, norm, up = self.q
        return apply(products.q, apply(RmsNorm(self.block.eps), apply(products.q_down, x, down), norm), up)
