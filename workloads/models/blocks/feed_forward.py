"""The dense feed-forward block: its rows are split over the tensor-parallel group, on a grid its columns, too.

Neutral names, all [out, in]: gate (of a gated block), up, down, with up_bias and down_bias where there are biases.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from workloads.array import Array
from workloads.chip import Chip, Tensor
from workloads.elementwise import Activation, GatedActivation
from workloads.kernels import Matmul
from workloads.models.blocks.grid import Inside, consecutive
from workloads.models.blocks.site import Plan, Site
from workloads.shards import Part, ShardSpec


@frozen
class FeedForward:
    """down(activation(gate(x)) · up(x)), or down(activation(up(x))); biases only where it is not gated."""

    on_grid: ClassVar[bool] = True

    hidden: int
    ffn: int
    activation: str = "silu"
    gated: bool = True
    bias: bool = False

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every stored matrix."""
        up = (self.ffn, self.hidden)
        found: dict[str, tuple[int, ...]] = {"gate": up} if self.gated else {}
        found |= {"up": up, "down": (self.hidden, self.ffn)}
        return found | ({"up_bias": (self.ffn,), "down_bias": (self.hidden,)} if self.bias else {})

    def shards(self, plan: Plan) -> tuple[ShardSpec, ...]:
        """Return the own rows of gate and up, rank by rank across, and columns of down; biases once for every sum."""
        plan = plan.of_feed_forward
        own, cols = plan.layout.part(self.ffn, plan.place), plan.hidden(self.hidden)
        down = plan.weights("down", (len(cols), len(own)), Part("down", cols, own))
        if self.gated:
            shares = plan.layout.shares(self.ffn, plan.place)
            parts = (Part(name, share, cols) for share in shares for name in ("gate", "up"))
            return (plan.weights("gate_up", (2 * len(own), len(cols)), *parts), down)
        found = [plan.weights("up", (len(own), len(cols)), Part("up", own, cols))]
        if self.bias and plan.has_input_bias:
            found.append(plan.weights("up_bias", (len(own),), Part("up_bias", own)))
        found.append(down)
        if self.bias and plan.has_output_bias:
            found.append(plan.weights("down_bias", (len(cols),), Part("down_bias", cols)))
        return tuple(found)

    def start(self, site: Site) -> RunningFeedForward:
        """Return the block on one rank."""
        site = site.of_feed_forward
        sizes = [len(share) for share in site.layout.shares(self.ffn, site.place)]
        return RunningFeedForward(
            site.chip,
            Inside.of(site, consecutive([[size] * (1 + self.gated) for size in sizes]), sizes),
            site.matmul("gate_up_matmul" if self.gated else "up_matmul"),
            site.tensors("gate_up") if self.gated else site.tensors("up", "up_bias"),
            GatedActivation(self.activation) if self.gated else Activation(self.activation),
            site.matmul("down_matmul"),
            site.tensors("down", "down_bias"),
        )


@frozen(eq=False)
class RunningFeedForward:
    """The block on one rank."""

    chip: Chip
    inside: Inside | None
    up_matmul: Matmul
    up: tuple[Tensor, ...]
    activation: GatedActivation | Activation
    down_matmul: Matmul
    down: tuple[Tensor, ...]

    async def __call__(self, x: Array, starts: tuple[int, ...]) -> Array:
        """Return this rank's part of the feed-forward block, to be summed over the group."""
        del starts
        apply, inside = self.chip.apply, self.inside
        z = apply(self.up_matmul, x, *self.up)
        z = apply(self.activation, await inside.enter(z) if inside else z)
        return apply(self.down_matmul, await inside.leave(z) if inside else z, *self.down)
