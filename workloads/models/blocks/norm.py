"""Normalisation before (or after) a block."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Literal, Protocol

from attrs import frozen

from workloads.array import Array
from workloads.chip import Chip, Group, Tensor
from workloads.elementwise import LayerNorm, RmsNorm
from workloads.models.blocks.site import Plan, Site
from workloads.moments import Moments, Normalise
from workloads.shards import Part, ShardSpec


@frozen
class Norm:
    """RMS or layer normalisation over `hidden`; offset: added to the RMS weight; bias: of a layer norm."""

    hidden: int
    eps: float
    kind: Literal["rms", "layer"] = "rms"
    offset: float = 0.0
    bias: bool = False

    def tensors(self, name: str) -> dict[str, tuple[int, ...]]:
        """Return the shape of every stored vector."""
        return dict.fromkeys([name, f"{name}_bias"][: 1 + self.bias], (self.hidden,))

    def shards(self, name: str, plan: Plan) -> tuple[ShardSpec, ...]:
        """Return the vectors, whole on every rank; on a grid, for its share of the hidden states."""
        own = plan.layout.own_hidden(self.hidden, plan.place)
        return tuple(plan.weights(vector, (len(own),), Part(vector, own)) for vector in self.tensors(name))

    def start(self, name: str, site: Site) -> RunningNorm:
        """Return the norm `name` on one rank."""
        chip, tensors = site.chip, site.tensors(name, f"{name}_bias")
        if site.layout.tp_grid is not None:
            group = site.layout.shard_group(chip.rank)
            split = Normalise(self.hidden, self.eps, self.kind, self.offset)
            return SplitNorm(chip, split, Moments(self.kind), tensors, chip.group(group.name, group.ranks))
        return WholeNorm(chip, RmsNorm(self.eps, self.offset) if self.kind == "rms" else LayerNorm(self.eps), tensors)


class RunningNorm(Protocol):
    """A norm on one rank."""

    def __call__(self, x: Array) -> Awaitable[Array]:
        """Return the normalised x."""


@frozen(eq=False)
class WholeNorm:
    """A norm of tokens that are whole on this rank."""

    chip: Chip
    kernel: RmsNorm | LayerNorm
    tensors: tuple[Tensor, ...]

    async def __call__(self, x: Array) -> Array:
        """Return the normalised x."""
        return self.chip.apply(self.kernel, x, *self.tensors)


@frozen(eq=False)
class SplitNorm:
    """A norm of tokens of which every rank of the group has a share: the shares' moments are summed first."""

    chip: Chip
    kernel: Normalise
    moments: Moments
    tensors: tuple[Tensor, ...]
    group: Group

    async def __call__(self, x: Array) -> Array:
        """Return the normalised share of x."""
        moments = await self.chip.all_reduce(self.chip.apply(self.moments, x), self.group)
        return self.chip.apply(self.kernel, x, moments, *self.tensors)
