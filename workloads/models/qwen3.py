"""Qwen3, the dense models: Llama with a norm on every query and key head (arXiv 2505.09388)."""

from __future__ import annotations

from typing import Self

from attrs import frozen

from workloads.keys import Keys
from workloads.models.blocks.site import Block
from workloads.models.llama import WindowedShape, gguf_sizes, llama_sizes
from workloads.models.qwen2 import upper_windows
from workloads.naming import Names, gguf_names


@frozen(kw_only=True)
class Qwen3Shape(WindowedShape):
    """The sizes of a Qwen3 model."""

    def attention(self, index: int) -> Block:
        """Return the attention of layer `index`."""
        return self.grouped_query_attention(index, qk_norm_eps=self.rms_eps, window=self.window(index))

    @classmethod
    def from_huggingface(cls, keys: Keys) -> Self:
        """Return the shape that a config.json describes."""
        bias = keys.flag("attention_bias", default=False)
        return keys.build(cls, **llama_sizes(keys), **upper_windows(keys), attention_bias=bias)

    @classmethod
    def from_gguf(cls, keys: Keys) -> Self:
        """Return the shape that a GGUF file's metadata describe."""
        return keys.build(cls, **gguf_sizes(keys))

    def gguf_names(self) -> Names:
        """Return where a GGUF file keeps the matrices."""
        return gguf_names(self.head_dim)
