"""Mistral: Llama whose layers may all have a sliding window (arXiv 2310.06825)."""

from __future__ import annotations

from typing import Self

from attrs import frozen

from workloads.keys import Keys
from workloads.models.blocks.site import Block
from workloads.models.llama import WindowedShape, llama_sizes


@frozen(kw_only=True)
class MistralShape(WindowedShape):
    """The sizes of a Mistral model."""

    def attention(self, index: int) -> Block:
        """Return the attention of layer `index`."""
        return self.grouped_query_attention(index, window=self.window(index))

    @classmethod
    def from_huggingface(cls, keys: Keys) -> Self:
        """Return the shape that a config.json describes."""
        return keys.build(cls, **llama_sizes(keys), sliding_window=keys.integer("sliding_window", default=None))
