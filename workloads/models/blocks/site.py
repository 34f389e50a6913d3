"""What blocks are told: where a rank stands when its shards are planned, and what it has when it computes."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from functools import cached_property
from typing import ClassVar, Protocol

from attrs import evolve, frozen

from configs.dtypes import DTYPES, vector_dtype
from configs.spec.dtype import DtypeSpec
from workloads.array import Array
from workloads.chip import Chip, Tensor
from workloads.kernels import Matmul
from workloads.layout import Layout, Place, split_evenly
from workloads.shards import Part, ShardSpec


@frozen
class Plan:
    """A rank's place in the layout, the number formats, and the room of its KV cache."""

    place: Place
    layout: Layout
    dtype: DtypeSpec
    n_rows: int
    max_length: int
    prefix: str = ""

    @property
    def of_feed_forward(self) -> Plan:
        """The plan for matrices of feed-forward blocks and experts."""
        return evolve(self, dtype=self.dtype.of_feed_forward)

    @property
    def of_head(self) -> Plan:
        """The plan for the embedding and the head."""
        return evolve(self, dtype=self.dtype.of_head)

    def under(self, prefix: str) -> Plan:
        """Return the plan for tensors whose names begin with `prefix`."""
        return evolve(self, prefix=prefix)

    def share(self, n: int) -> range:
        """Return this rank's even share of n things that are split over the ranks that share matrices."""
        return split_evenly(n, self.layout.width)[self.layout.index(self.place)]

    def experts(self, n: int) -> range:
        """Return this rank's even share of n experts."""
        return split_evenly(n, self.layout.ep)[self.place.ep]

    def hidden(self, n: int) -> range:
        """Return the part of the hidden size n that this rank's matrices have."""
        return self.layout.hidden_part(n, self.place)

    @property
    def has_input_bias(self) -> bool:
        """Whether this rank holds biases of what its matrices make of the hidden states: once for every sum."""
        return self.layout.index(self.place) == self.layout.across(self.place)[0]

    @property
    def has_output_bias(self) -> bool:
        """Whether this rank holds biases of what its matrices add to the hidden states: once for every sum."""
        return self.layout.index(self.place) == self.layout.along(self.place)[0]

    def weights(self, name: str, shape: tuple[int, ...], *parts: Part) -> ShardSpec:
        """Return a shard of weights; without parts, all of the matrix of the same name. Vectors keep 16 bits."""
        dtype = self.dtype.weights if len(shape) > 1 else vector_dtype(self.dtype.weights)
        return ShardSpec(self.prefix + name, shape, dtype, parts or (Part(name),), self.prefix)

    def cache(self, name: str, shape: tuple[int, ...]) -> ShardSpec:
        """Return a KV cache [rows, ..., max length, ...] as `shape` says."""
        return ShardSpec(self.prefix + name, shape, self.dtype.kv)


@frozen
class Peers:
    """What a rank knows of its expert-parallel group, where there are no values to learn it from.

    lengths: the prompt lengths of every rank's rows.  seed, skew: see `workloads.routing`.
    first_step: the step that the rank begins with.  part: which part of the rows these are, of those that take turns.
    """

    lengths: tuple[tuple[int, ...], ...] = ((),)
    seed: int = 0
    skew: float | None = None
    first_step: int = 0
    part: int = 0

    def tokens(self, step: int) -> tuple[int, ...]:
        """Return how many tokens every rank has in a step; step 0 is the prefill, padded to a rank's longest row."""
        return self._decoded if step else self._prefilled

    @cached_property
    def _decoded(self) -> tuple[int, ...]:
        return tuple(map(len, self.lengths))

    @cached_property
    def _prefilled(self) -> tuple[int, ...]:
        return tuple(len(rows) * max(rows, default=0) for rows in self.lengths)


ALONE = Peers()
"""No expert-parallel group."""


@frozen(eq=False)
class Site:
    """A rank at work: its chip, its place, and the tensors that its plan listed.

    dtype: the number formats asked for; see `configs.dtypes.Dtype.carrier`.
    """

    chip: Chip
    place: Place
    layout: Layout
    dtype: DtypeSpec
    memory: Mapping[str, Tensor]
    peers: Peers = ALONE
    prefix: str = ""

    @property
    def carrier(self) -> str:
        """The number format of activations between kernels."""
        return DTYPES[self.dtype.activations].carrier

    @property
    def inputs(self) -> str | None:
        """The number format that matrix products round activations to; None for that between kernels."""
        return None if self.carrier == self.dtype.activations else self.dtype.activations

    def matmul(self, label: str) -> Matmul:
        """Return the kernel that multiplies activations by a matrix, in the format asked for."""
        return Matmul(label, self.inputs)

    @property
    def of_feed_forward(self) -> Site:
        """The site of feed-forward blocks and experts."""
        return evolve(self, dtype=self.dtype.of_feed_forward)

    @property
    def of_head(self) -> Site:
        """The site of the head."""
        return evolve(self, dtype=self.dtype.of_head)

    def under(self, prefix: str) -> Site:
        """Return the site for tensors whose names begin with `prefix`."""
        return evolve(self, prefix=prefix)

    def share(self, n: int) -> range:
        """Return this rank's even share of n things that are split over the ranks that share matrices."""
        return split_evenly(n, self.layout.width)[self.layout.index(self.place)]

    def experts(self, n: int) -> range:
        """Return this rank's even share of n experts."""
        return split_evenly(n, self.layout.ep)[self.place.ep]

    def tensors(self, *names: str) -> tuple[Tensor, ...]:
        """Return those of the named tensors that the model has, in order."""
        return tuple(self.memory[self.prefix + name] for name in names if self.prefix + name in self.memory)


class RunningBlock(Protocol):
    """A block of one layer on one rank."""

    def __call__(self, x: Array, starts: tuple[int, ...]) -> Awaitable[Array]:
        """Return this rank's part [n, hidden] of the block's output, to be summed over the tensor-parallel group.

        x: the normalised hidden states [n, hidden]; starts: per row, how many tokens its cache holds.
        """


class Block(Protocol):
    """A block of one layer as a family describes it; `on_grid`: whether it can be cut along both sides."""

    on_grid: ClassVar[bool]

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every stored matrix, by neutral name within the layer."""

    def shards(self, plan: Plan) -> tuple[ShardSpec, ...]:
        """Return what one rank keeps, in the order of use."""

    def start(self, site: Site) -> RunningBlock:
        """Return the block on one rank."""
