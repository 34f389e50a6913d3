"""What a model family offers to the programs: its shape class, and a pipeline stage that can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from configs.spec.dtype import DtypeSpec
from workloads.array import Array
from workloads.chip import Chip, Tensor
from workloads.layout import Layout, Place
from workloads.models.blocks.site import Peers
from workloads.sampling import Draw
from workloads.shards import ShardSpec


class Stage(Protocol):
    """One rank's part of one pipeline stage, its shards in memory.

    `starts` holds, per row of the batch, how many tokens its cache holds already. Hidden states are [n, hidden], or
    this rank's share of the n tokens where the ranks that share matrices split them (`workloads.models.blocks.joint`).
    """

    async def embed(self, ids: Array, starts: tuple[int, ...]) -> Array:
        """Return the hidden states [n, hidden] of token ids [n]; first stage only."""

    async def layers(self, x: Array, starts: tuple[int, ...], n: int) -> Array:
        """Return the hidden states of n tokens after this stage's layers."""

    async def logits(self, x: Array, rows: tuple[int, ...], n: int) -> Array:
        """Return own logits [k, own vocabulary] of k of the n tokens of `x`; last stage only."""

    async def pick(self, logits: Array, draw: Draw) -> Array:
        """Return the ids [k] that are chosen, the same on all ranks of the stage; last stage only."""


class ModelShape(Protocol):
    """A family's frozen shape."""

    vocab: int
    max_context: int

    def problems(self, layout: Layout) -> tuple[str, ...]:
        """Return what forbids this layout, in words."""

    def remarks(self, layout: Layout) -> tuple[str, ...]:
        """Return what is odd about a layout that works, in words."""

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every matrix that a weights file must hold, by neutral name."""

    def shards(
        self, place: Place, layout: Layout, dtype: DtypeSpec, n_rows: int, max_length: int
    ) -> tuple[ShardSpec, ...]:
        """Return what the rank at `place` keeps for `n_rows` sequences of at most `max_length` tokens."""

    def stage(self, chip: Chip, layout: Layout, dtype: DtypeSpec, memory: Mapping[str, Tensor], peers: Peers) -> Stage:
        """Return this rank's stage, on the tensors that `shards` listed."""
