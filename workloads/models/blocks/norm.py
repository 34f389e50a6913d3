"""Normalisation before (or after) a block."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from workloads.array import Array
from workloads.chip import Chip, Tensor
from workloads.elementwise import LayerNorm, RmsNorm
from workloads.models.blocks.site import Plan, Site
from workloads.shards import ShardSpec


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
        """Return the vectors, whole on every rank."""
        return tuple(plan.weights(vector, shape) for vector, shape in self.tensors(name).items())

    def start(self, name: str, site: Site) -> RunningNorm:
        """Return the norm `name` on one rank."""
        kernel = RmsNorm(self.eps, self.offset) if self.kind == "rms" else LayerNorm(self.eps)
        return RunningNorm(site.chip, kernel, site.tensors(name, f"{name}_bias"))


@frozen(eq=False)
class RunningNorm:
    """A norm on one rank."""

    chip: Chip
    kernel: RmsNorm | LayerNorm
    tensors: tuple[Tensor, ...]

    def __call__(self, x: Array) -> Array:
        """Return the normalised x."""
        return self.chip.apply(self.kernel, x, *self.tensors)
