"""What kernels reach of a chip's roofline: the section `kernels` of a chip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from attrs import field, frozen

from configs.fields import above, at_least, keys_of
from configs.spec.provenance import Provenance

KernelKind = Literal[
    "matmul", "experts", "attention", "norm", "residual", "activation", "rope", "route", "permute", "lookup", "sample",
    "elementwise",
]  # fmt: skip
"""Sorts of kernels: products with stored matrices, with those of experts, attention over the cache, normalisation,
sums of residuals, activation functions, rotation of queries and keys with the cache's update, choice of experts, copies
to and from experts, copies of rows, choice of tokens; elementwise is any other."""


@frozen
class KernelSpec:
    """What one kind of kernel reaches: start + max(flops / (peak × compute), bytes / (bandwidth × memory)).

    start_ps: from the end of the kernel before it to its streaming at full rate: launch, ramp and drain.
    compute, memory: the fraction of the peak and of the memory's bandwidth that long kernels reach.
    stream: the most that one part of the traffic reaches of the bandwidth: of a row's keys and values of one head.
    fused: it is part of the kernel before or after it, and takes no time of its own.
    """

    start_ps: int = field(default=0, metadata=at_least(0))
    compute: float = field(default=1.0, metadata=above(0, 1))
    memory: float = field(default=1.0, metadata=above(0, 1))
    stream: float = field(default=1.0, metadata=above(0, 1))
    fused: bool = False


@frozen
class KernelsSpec:
    """What the kernels of a chip's libraries reach, by kind; a kind that is not listed reaches the roofline.

    rounding_ps: what rounding its activations to a narrower format adds to a product.
    """

    name: str = "ideal"
    kinds: Mapping[str, KernelSpec] = field(factory=dict, metadata=keys_of(get_args(KernelKind)))
    rounding_ps: int = field(default=0, metadata=at_least(0))
    description: str = field(default="", eq=False)
    provenance: Mapping[str, Provenance] = field(factory=dict, eq=False)
