"""The dense feed-forward block: its rows are split over the tensor-parallel group.

Neutral names, all [out, in]: gate (of a gated block), up, down, with up_bias and down_bias where there are biases.
"""

from __future__ import annotations

from attrs import frozen

from workloads.array import Array
from workloads.chip import Chip, Tensor
from workloads.elementwise import Activation, GatedActivation
from workloads.kernels import Matmul
from workloads.models.blocks.site import Plan, Site
from workloads.shards import Part, ShardSpec


@frozen
class FeedForward:
    """down(activation(gate(x)) · up(x)), or down(activation(up(x))); biases only where it is not gated."""

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
        """Return the own rows of gate and up and columns of down; the first rank alone holds the bias of down."""
        own, hidden = plan.share(self.ffn), self.hidden
        down = plan.weights("down", (hidden, len(own)), Part("down", None, own))
        if self.gated:
            return (plan.weights("gate_up", (2 * len(own), hidden), Part("gate", own), Part("up", own)), down)
        found = [plan.weights("up", (len(own), hidden), Part("up", own))]
        if self.bias:
            found.append(plan.weights("up_bias", (len(own),), Part("up_bias", own)))
        found.append(down)
        if self.bias and plan.layout.index(plan.place) == 0:
            found.append(plan.weights("down_bias", (hidden,)))
        return tuple(found)

    def start(self, site: Site) -> RunningFeedForward:
        """Return the block on one rank."""
        return RunningFeedForward(
            site.chip,
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
    up_matmul: Matmul
    up: tuple[Tensor, ...]
    activation: GatedActivation | Activation
    down_matmul: Matmul
    down: tuple[Tensor, ...]

    async def __call__(self, x: Array, starts: tuple[int, ...]) -> Array:
        """Return this rank's part of the feed-forward block, to be summed over the group."""
        del starts
        apply = self.chip.apply
        return apply(self.down_matmul, apply(self.activation, apply(self.up_matmul, x, *self.up)), *self.down)
