"""Qwen2 and Qwen2.5: Llama with biases on q, k and v (arXiv 2407.10671); the upper layers may have a window."""

from __future__ import annotations

from typing import Any, Self

from attrs import frozen

from workloads.keys import Keys
from workloads.models.blocks.site import Block
from workloads.models.llama import WindowedShape, gguf_sizes, llama_sizes
from workloads.naming import Names, gguf_names


@frozen(kw_only=True)
class Qwen2Shape(WindowedShape):
    """The sizes of a Qwen2 model."""

    def attention(self, index: int) -> Block:
        """Return the attention of layer `index`."""
        return self.grouped_query_attention(index, qkv_bias=True, o_bias=False, window=self.window(index))

    @classmethod
    def from_huggingface(cls, keys: Keys) -> Self:
        """Return the shape that a config.json describes."""
        return keys.build(cls, **llama_sizes(keys), **upper_windows(keys))

    @classmethod
    def from_gguf(cls, keys: Keys) -> Self:
        """Return the shape that a GGUF file's metadata describe."""
        return keys.build(cls, **gguf_sizes(keys))

    def gguf_names(self) -> Names:
        """Return where a GGUF file keeps the matrices."""
        return gguf_names(self.head_dim)


def upper_windows(keys: Keys) -> dict[str, Any]:
    """Return the window of the layers from max_window_layers on, if it is in use."""
    if not keys.flag("use_sliding_window", default=False):
        return {}
    first = keys.integer("max_window_layers", default=0)
    return {"sliding_window": keys.integer("sliding_window"), "first_window_layer": first}
