"""Shards: what each rank keeps in memory, said once, for planning and for loading alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve, frozen

from configs.dtypes import DTYPES
from configs.spec.dtype import TiersSpec
from workloads.chip import Chip, Tensor
from workloads.rounding import Floats

if TYPE_CHECKING:
    from workloads.weights import WeightSource


@frozen
class Part:
    """A block of a model's matrix, called `name` within its layer: its rows and columns; None takes all."""

    name: str
    rows: range | None = None
    cols: range | None = None


@frozen
class ShardSpec:
    """A tensor of one rank: its parts stacked along axis 0; one without parts starts as zeros (KV cache).

    prefix: what the names of the parts begin with.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: tuple[Part, ...] = ()
    prefix: str = ""

    @property
    def size_bytes(self) -> int:
        """Size on the modelled machine."""
        return DTYPES[self.dtype].size_bytes(self.shape)

    @property
    def role(self) -> str:
        """What the memory is for: weights or kv."""
        return "weights" if self.parts else "kv"


def place_shards(
    chip: Chip, shards: Iterable[ShardSpec], source: WeightSource | None, tiers: TiersSpec
) -> dict[str, Tensor]:
    """Put a rank's shards into its chip's memory, reading only these from `source` (None in shapes mode)."""
    memory = {}
    for shard in shards:
        values = None if source is None else _values(shard, source)
        tier = tiers.of(shard.role)
        memory[shard.name] = chip.place(shard.name, shard.shape, shard.dtype, values, tier=tier, role=shard.role)
    return memory


def rows_of(memory: Mapping[str, Tensor], shards: Iterable[ShardSpec], rows: range) -> dict[str, Tensor]:
    """Return the tensors as some rows of the batch see them: their part of the caches, and the weights whole."""
    return {s.name: _part(memory[s.name], rows) if s.role == "kv" else memory[s.name] for s in shards}


def _part(cache: Tensor, rows: range) -> Tensor:
    """Return rows of a cache; their values are the same memory."""
    shape = (len(rows), *cache.shape[1:])
    values = None if cache.values is None else cache.values[rows.start : rows.stop]
    return evolve(cache, shape=shape, size_bytes=DTYPES[cache.dtype].size_bytes(shape), values=values)


def _values(shard: ShardSpec, source: WeightSource) -> Floats:
    if not shard.parts:
        return np.zeros(shard.shape, np.float32)
    blocks = [source.read(shard.prefix + part.name, part.rows, part.cols) for part in shard.parts]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
