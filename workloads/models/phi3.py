"""Phi-3 and Phi-4: Llama whose files fuse q, k and v, and gate and up (arXiv 2404.14219)."""

from __future__ import annotations

from typing import Any, Self

from attrs import evolve, field, frozen

from configs.errors import ConfigError
from configs.fields import above
from workloads.keys import Keys
from workloads.models.blocks.site import Block
from workloads.models.llama import WindowedShape, llama_sizes
from workloads.naming import LLAMA_LAYER, LLAMA_MODEL, Names, Stored, halves, offset
from workloads.rope import Rope


@frozen(kw_only=True)
class Phi3Shape(WindowedShape):
    """The sizes of a Phi-3 model; rotary_fraction: the part of a head that is rotated."""

    rotary_fraction: float = field(default=1.0, metadata=above(0, 1))

    def __attrs_post_init__(self) -> None:
        """Refuse sizes that make no model."""
        super().__attrs_post_init__()
        if self.rotated % 2:
            raise ConfigError((f"rotary_fraction: {self.rotated} elements of a head are odd; positions turn pairs",))

    @property
    def rotated(self) -> int:
        """How many elements of a head are rotated."""
        return int(self.head_dim * self.rotary_fraction)

    def attention(self, index: int) -> Block:
        """Return the attention of layer `index`."""
        rope = Rope(self.rope_theta, self.rotated, self.rope_scaling)
        return evolve(self.grouped_query_attention(index), rope=rope, window=self.window(index))

    @classmethod
    def from_huggingface(cls, keys: Keys) -> Self:
        """Return the shape that a config.json describes."""
        sizes: dict[str, Any] = llama_sizes(keys)
        window = keys.integer("sliding_window", default=None)
        fraction = keys.number("partial_rotary_factor", default=1.0)
        return keys.build(cls, **sizes, sliding_window=window, rotary_fraction=fraction)

    def huggingface_names(self) -> Names:
        """Return where a Hugging Face folder keeps the matrices."""
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        pairs, qkv, gate_up = (
            halves(self.head_dim, self.rotated),
            "self_attn.qkv_proj.weight",
            "mlp.gate_up_proj.weight",
        )
        layer: dict[str, Stored | str] = {
            **LLAMA_LAYER,
            "q": Stored(qkv, pairs),
            "k": Stored(qkv, offset(q, pairs)),
            "v": Stored(qkv, offset(q + kv)),
            "gate": gate_up,
            "up": Stored(gate_up, offset(self.ffn)),
        }
        return Names(LLAMA_MODEL, layer, "model.layers.{}.", root="model.")
