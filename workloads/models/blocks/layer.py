"""A decoder layer: how attention, feed-forward and norms stand to each other.

sequential:  x += Σ attention(norm(x)); x += Σ ffn(norm(x)), Σ the sum over the tensor-parallel group; with post norms
             each sum is normalised before it is added (Gemma 2).
parallel:    x += Σ (attention(norm(x)) + ffn(norm(x))): one sum for both (Falcon, PaLM).

Neutral names of the norms: attention_norm, ffn_norm, post_attention_norm, post_ffn_norm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import chain

from attrs import frozen

from workloads.array import Array
from workloads.chip import Chip
from workloads.elementwise import Add
from workloads.models.blocks.joint import Joint
from workloads.models.blocks.norm import Norm, RunningNorm
from workloads.models.blocks.site import Block, Plan, RunningBlock, Site
from workloads.shards import ShardSpec

ADD = Add()

RunningLayer = Callable[[Array, tuple[int, ...], int], Awaitable[Array]]
"""(x, starts, n): x are the hidden states of n tokens, or this rank's share of them."""


@frozen
class Layer:
    """One layer; a parallel layer may share the norm of its attention with its feed-forward."""

    attention: Block
    feed_forward: Block
    norm: Norm
    parallel: bool = False
    shared_norm: bool = False
    post_norms: bool = False

    def _norms(self) -> tuple[str, ...]:
        post = ("post_attention_norm", "post_ffn_norm") if self.post_norms else ()
        return ("attention_norm", *(() if self.shared_norm else ("ffn_norm",)), *post)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every stored matrix, by neutral name within the layer."""
        norms: dict[str, tuple[int, ...]] = {}
        for name in self._norms():
            norms |= self.norm.tensors(name)
        return norms | self.attention.tensors() | self.feed_forward.tensors()

    def shards(self, plan: Plan) -> tuple[ShardSpec, ...]:
        """Return what one rank keeps, in the order of use."""
        norms = {name: self.norm.shards(name, plan) for name in self._norms()}
        return tuple(
            chain(
                norms["attention_norm"],
                self.attention.shards(plan),
                norms.get("post_attention_norm", ()),
                norms.get("ffn_norm", ()),
                self.feed_forward.shards(plan),
                norms.get("post_ffn_norm", ()),
            )
        )

    def start(self, site: Site, joint: Joint) -> RunningLayer:
        """Return the layer on one rank; `joint` are the ranks that share its matrices."""
        norms = {name: self.norm.start(name, site) for name in self._norms()}
        attention, feed_forward = self.attention.start(site), self.feed_forward.start(site)
        if self.parallel:
            return _Parallel(site.chip, joint, norms["attention_norm"], attention, norms.get("ffn_norm"), feed_forward)
        return _Sequential(
            site.chip,
            joint,
            (
                (norms["attention_norm"], attention, norms.get("post_attention_norm")),
                (norms["ffn_norm"], feed_forward, norms.get("post_ffn_norm")),
            ),
        )


@frozen(eq=False)
class _Sequential:
    """One block after the other: (norm, block, post norm) each."""

    chip: Chip
    joint: Joint
    blocks: tuple[tuple[RunningNorm, RunningBlock, RunningNorm | None], ...]

    async def __call__(self, x: Array, starts: tuple[int, ...], n: int) -> Array:
        for norm, block, post in self.blocks:
            y = await self.joint.total(await block(await self.joint.whole(await norm(x), n), starts))
            x = self.chip.apply(ADD, x, await post(y) if post else y)
        return x


@frozen(eq=False)
class _Parallel:
    """Both blocks on the same input, and one sum."""

    chip: Chip
    joint: Joint
    norm: RunningNorm
    attention: RunningBlock
    ffn_norm: RunningNorm | None
    feed_forward: RunningBlock

    async def __call__(self, x: Array, starts: tuple[int, ...], n: int) -> Array:
        apply, joint, normed = self.chip.apply, self.joint, await self.joint.whole(await self.norm(x), n)
        attended = await self.attention(normed, starts)
        if self.ffn_norm is not None:
            normed = await joint.whole(await self.ffn_norm(x), n)
        other = await self.feed_forward(normed, starts)
        return apply(ADD, x, await joint.total(apply(ADD, attended, other)))
