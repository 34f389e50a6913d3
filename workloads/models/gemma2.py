"""Gemma 2: a norm before and after each block, soft caps, a window in every other layer (arXiv 2408.00118)."""

from __future__ import annotations

from typing import Self

from attrs import field, frozen

from configs.fields import above, at_least
from workloads.keys import Keys
from workloads.models.blocks.feed_forward import FeedForward
from workloads.models.blocks.layer import Layer
from workloads.models.blocks.norm import Norm
from workloads.models.blocks.site import Block
from workloads.models.llama import LlamaShape, llama_sizes
from workloads.naming import LLAMA_LAYER, Names, llama_names

_LAYER = {
    **LLAMA_LAYER,
    "post_attention_norm": "post_attention_layernorm.weight",
    "ffn_norm": "pre_feedforward_layernorm.weight",
    "post_ffn_norm": "post_feedforward_layernorm.weight",
}


@frozen(kw_only=True)
class Gemma2Shape(LlamaShape):
    """The sizes of a Gemma 2 model.

    sliding_window: of layers 0, 2, 4...  query_scale: scores are divided by its root.  attention_softcap,
    final_softcap: the bounds of scores and logits, None for none.
    """

    sliding_window: int | None = field(default=None, metadata=at_least(1))
    query_scale: float = field(metadata=above(0))
    attention_softcap: float | None = field(default=50.0, metadata=above(0))
    final_softcap: float | None = field(default=30.0, metadata=above(0))

    def attention(self, index: int) -> Block:
        """Return the attention of layer `index`."""
        return self.grouped_query_attention(
            index,
            window=self.sliding_window if index % 2 == 0 else None,
            scale=self.query_scale**-0.5,
            softcap=self.attention_softcap,
        )

    def feed_forward(self, index: int) -> Block:
        """Return the feed-forward block of layer `index`."""
        del index
        return FeedForward(self.hidden, self.ffn, "gelu_tanh")

    def layer(self, index: int) -> Layer:
        """Return the blocks of layer `index`."""
        return Layer(self.attention(index), self.feed_forward(index), self.norm(), post_norms=True)

    def norm(self) -> Norm:
        """Return the norm of every block: its weight is kept as the difference from one."""
        return Norm(self.hidden, self.rms_eps, offset=1.0)

    @property
    def embedding_scale(self) -> float:
        """Embeddings are multiplied by the root of their length."""
        return float(self.hidden**0.5)

    @property
    def logit_softcap(self) -> float | None:
        """The bound of the logits."""
        return self.final_softcap

    @classmethod
    def from_huggingface(cls, keys: Keys) -> Self:
        """Return the shape that a config.json describes (huggingface/transformers: models/gemma2)."""
        sizes = llama_sizes(keys, activation=("hidden_activation", "gelu_pytorch_tanh"), tied=True)
        return keys.build(
            cls,
            **sizes,
            attention_bias=keys.flag("attention_bias", default=False),
            sliding_window=keys.integer("sliding_window", default=None),
            query_scale=keys.number("query_pre_attn_scalar", default=256.0),
            attention_softcap=keys.number("attn_logit_softcapping", default=None),
            final_softcap=keys.number("final_logit_softcapping", default=None),
        )

    def huggingface_names(self) -> Names:
        """Return where a Hugging Face folder keeps the matrices."""
        return llama_names(self.head_dim, _LAYER)
