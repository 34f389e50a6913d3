"""The Llama forward pass of one rank, as SPMD code over a chip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from workloads.array import Array
from workloads.attention import Attention, RopeAppend
from workloads.chip import Chip, Group, Tensor
from workloads.kernels import (
    Add,
    Embedding,
    LocalArgmax,
    Matmul,
    MergeArgmax,
    RmsNorm,
    SiluMul,
    TakeRows,
)

if TYPE_CHECKING:
    from workloads.models.llama import LlamaShape

QKV = Matmul("qkv_matmul")
O_PROJ = Matmul("o_matmul")
GATE_UP = Matmul("gate_up_matmul")
DOWN = Matmul("down_matmul")
HEAD = Matmul("head_matmul")
SILU_MUL = SiluMul()
ADD = Add()
TAKE_ROWS = TakeRows()
ATTENTION = Attention()
MERGE_ARGMAX = MergeArgmax()


@frozen
class _Layer:
    """The tensors of one layer on one rank."""

    attention_norm: Tensor
    qkv: Tensor
    k_cache: Tensor
    v_cache: Tensor
    o: Tensor
    ffn_norm: Tensor
    gate_up: Tensor
    down: Tensor


class LlamaStage:
    """A rank's layers, embedding and head; `queries` counts its query heads per KV head."""

    def __init__(
        self,
        chip: Chip,
        shape: LlamaShape,
        *,
        queries: tuple[int, ...],
        first_id: int,
        layers: range,
        tp_group: Group,
        activations: str,
        memory: Mapping[str, Tensor],
    ) -> None:
        self._chip = chip
        self._group = chip.group(tp_group.name, tp_group.ranks) if len(tp_group) > 1 else None
        self._memory = memory
        self._layers = tuple(_layer(memory, f"layers.{i}.") for i in layers)
        self._queries = queries
        self._activations = activations
        self._embedding = Embedding(first_id)
        self._norm = RmsNorm(shape.rms_eps)
        self._rope = RopeAppend(shape.rope_theta)
        self._local_argmax = LocalArgmax(first_id)
        self._tp = len(tp_group)

    async def embed(self, ids: Array) -> Array:
        """Return the hidden states [n, hidden] of token ids [n]: every rank looks up its own ids."""
        x = self._chip.apply(self._embedding, ids, self._memory["embedding"], dtype=self._activations)
        return await self._sum(x)

    async def layers(self, x: Array, starts: tuple[int, ...]) -> Array:
        """Return the hidden states [n, hidden] after this stage's layers."""
        apply = self._chip.apply
        for layer in self._layers:
            x = apply(ADD, x, await self._sum(self._attend(layer, x, starts)))
            x = apply(ADD, x, await self._sum(self._feed_forward(layer, x)))
        return x

    def logits(self, x: Array, rows: tuple[int, ...]) -> Array:
        """Return own logits [k, own vocabulary] of k rows of `x`, float32 from the accumulator."""
        if len(rows) < x.shape[0]:
            x = self._chip.apply(TAKE_ROWS, x, rows=rows)
        x = self._chip.apply(self._norm, x, self._memory["norm"])
        head = self._memory.get("head") or self._memory["embedding"]
        return self._chip.apply(HEAD, x, head, keep_fp32=True)

    async def pick(self, logits: Array) -> Array:
        """Return the greedy ids [k]: each rank's best, gathered and merged on every rank alike."""
        best = self._chip.apply(self._local_argmax, logits)
        if self._group:
            best = await self._chip.all_gather(best, self._group)
        return self._chip.apply(MERGE_ARGMAX, best, n_ranks=self._tp)

    def _attend(self, layer: _Layer, x: Array, starts: tuple[int, ...]) -> Array:
        """Return this rank's part of the attention block, to be summed over the group."""
        apply, k_cache, v_cache = self._chip.apply, layer.k_cache, layer.v_cache
        qkv = apply(QKV, apply(self._norm, x, layer.attention_norm), layer.qkv)
        q = apply(self._rope, qkv, k_cache, v_cache, starts=starts)
        attended = apply(ATTENTION, q, k_cache, v_cache, starts=starts, queries=self._queries)
        return apply(O_PROJ, attended, layer.o)

    def _feed_forward(self, layer: _Layer, x: Array) -> Array:
        """Return this rank's part of the SwiGLU block, to be summed over the group."""
        apply = self._chip.apply
        gate_up = apply(GATE_UP, apply(self._norm, x, layer.ffn_norm), layer.gate_up)
        return apply(DOWN, apply(SILU_MUL, gate_up), layer.down)

    async def _sum(self, x: Array) -> Array:
        """Return the sum over the tensor-parallel group."""
        return await self._chip.all_reduce(x, self._group) if self._group else x


def _layer(memory: Mapping[str, Tensor], prefix: str) -> _Layer:
    names = ("attention_norm", "qkv", "k_cache", "v_cache", "o", "ffn_norm", "gate_up", "down")
    return _Layer(*(memory[prefix + name] for name in names))
