"""The Llama family: RMSNorm, rotary positions, grouped-query attention, a gated SiLU feed-forward.

Touvron et al., arXiv 2302.13971 and 2307.09288; Llama 3: arXiv 2407.21783. Others differ by a switch and build on it.
"""

from __future__ import annotations

from typing import Any, Self

from attrs import field, frozen

from configs.fields import at_least
from workloads.keys import Keys
from workloads.models.blocks.attention import GroupedQueryAttention
from workloads.models.blocks.feed_forward import FeedForward
from workloads.models.blocks.layer import Layer
from workloads.models.blocks.norm import Norm
from workloads.models.blocks.site import Block
from workloads.models.decoder import DecoderShape
from workloads.naming import Names, gguf_names, llama_names
from workloads.rope import Rope, RopeScaling


@frozen(kw_only=True)
class LlamaShape(DecoderShape):
    """The sizes of a Llama model; attention_bias: of q, k, v and o."""

    rope_theta: float
    rms_eps: float
    rope_scaling: RopeScaling | None = None
    attention_bias: bool = False

    def attention(self, index: int) -> Block:
        """Return the attention of layer `index`."""
        return self.grouped_query_attention(index)

    def grouped_query_attention(self, index: int, **switches: Any) -> GroupedQueryAttention:
        """Return the attention of layer `index`; `switches` are what a family differs in."""
        del index
        plain: dict[str, Any] = {"qkv_bias": self.attention_bias, "o_bias": self.attention_bias}
        return GroupedQueryAttention(
            self.hidden,
            self.n_heads,
            self.n_kv_heads,
            self.head_dim,
            Rope(self.rope_theta, self.head_dim, self.rope_scaling),
            **(plain | switches),
        )

    def feed_forward(self, index: int) -> Block:
        """Return the feed-forward block of layer `index`."""
        del index
        return FeedForward(self.hidden, self.ffn)

    def layer(self, index: int) -> Layer:
        """Return the blocks of layer `index`."""
        return Layer(self.attention(index), self.feed_forward(index), self.norm())

    def norm(self) -> Norm:
        """Return the norm of every block."""
        return Norm(self.hidden, self.rms_eps)

    @classmethod
    def from_huggingface(cls, keys: Keys) -> Self:
        """Return the shape that a config.json describes."""
        bias = keys.flag("attention_bias", default=False)
        keys.accept("mlp_bias", keys.flag("mlp_bias", default=False), False)
        return keys.build(cls, **llama_sizes(keys), attention_bias=bias)

    def huggingface_names(self) -> Names:
        """Return where a Hugging Face folder keeps the matrices."""
        return llama_names(self.head_dim)

    @classmethod
    def from_gguf(cls, keys: Keys) -> Self:
        """Return the shape that a GGUF file's metadata describe."""
        return keys.build(cls, **gguf_sizes(keys))

    def gguf_names(self) -> Names:
        """Return where a GGUF file keeps the matrices: conversion made rotated pairs neighbours."""
        return gguf_names()


@frozen(kw_only=True)
class WindowedShape(LlamaShape):
    """A Llama whose layers from `first_window_layer` on see the last `sliding_window` tokens only."""

    sliding_window: int | None = field(default=None, metadata=at_least(1))
    first_window_layer: int | None = field(default=None, metadata=at_least(0))

    def window(self, index: int) -> int | None:
        """Return how many tokens layer `index` sees, None for all."""
        return self.sliding_window if index >= (self.first_window_layer or 0) else None


def llama_sizes(
    keys: Keys, *, activation: tuple[str, str] = ("hidden_act", "silu"), tied: bool = False
) -> dict[str, Any]:
    """Return the sizes that the config.json of Llama and of those who follow it have.

    activation: its key and the one that the family has; tied: whether embeddings are tied where the file is silent.
    """
    hidden, n_heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
    theta, scaling = rope_of(keys)
    key, accepted = activation
    keys.accept(key, keys.text(key, default=accepted), accepted)
    return {
        "n_layers": keys.integer("num_hidden_layers"),
        "hidden": hidden,
        "n_heads": n_heads,
        "n_kv_heads": keys.integer("num_key_value_heads", default=n_heads),
        "head_dim": keys.integer("head_dim", default=hidden // max(n_heads, 1)),
        "ffn": keys.integer("intermediate_size"),
        "vocab": keys.integer("vocab_size"),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "rms_eps": keys.number("rms_norm_eps", default=1e-6),
        "tied_embeddings": keys.flag("tie_word_embeddings", default=tied),
        "max_context": keys.integer("max_position_embeddings"),
    }


def rope_of(keys: Keys, default_theta: float = 10000.0) -> tuple[float, RopeScaling | None]:
    """Return rotary base and scaling from a config.json, in the newer form (rope_parameters) or the older."""
    newer = keys.section("rope_parameters")
    section = newer if newer.has("rope_type") or newer.has("rope_theta") else keys.section("rope_scaling")
    theta = section.number("rope_theta", default=keys.number("rope_theta", default=default_theta))
    kind = section.text("rope_type", "type", default="default")
    if kind == "default":
        return theta, None
    section.accept("rope_type", kind, "default", "linear", "llama3", "yarn")
    if kind == "linear":
        return theta, section.try_build(RopeScaling, kind=kind, factor=section.number("factor"))
    if kind == "yarn":
        return theta, yarn_of(keys, section)
    return theta, section.try_build(
        RopeScaling,
        kind="llama3",
        factor=section.number("factor"),
        low_freq_factor=section.number("low_freq_factor"),
        high_freq_factor=section.number("high_freq_factor"),
        original_context=section.integer("original_max_position_embeddings"),
    )


def yarn_of(keys: Keys, section: Keys) -> RopeScaling | None:
    """Return the scaling of a config.json with rope_type yarn; what is null has its default."""
    original = section.integer("original_max_position_embeddings", default=None)
    if original is None:
        original = keys.integer("max_position_embeddings")
    return section.try_build(
        RopeScaling,
        kind="yarn",
        factor=section.number("factor"),
        original_context=original,
        beta_fast=section.number("beta_fast", default=32.0),
        beta_slow=section.number("beta_slow", default=1.0),
        truncate=section.flag("truncate", default=True),
        attention_factor=section.number("attention_factor", default=None),
        mscale=section.number("mscale", default=None) or None,
        mscale_all_dim=section.number("mscale_all_dim", default=None) or None,
    )


def gguf_scaling(keys: Keys) -> RopeScaling | None:
    """Return the scaling of a GGUF file: listed factors, or that of rope.scaling.type (ggml-org/ggml: docs/gguf.md)."""
    factors = keys.list_of("rope.factors", float)
    kind = keys.text("rope.scaling.type", default="none")
    keys.accept("rope.scaling.type", kind, "none", "linear", "yarn")
    keys.accept("rope.scaling.attn_factor", keys.number("rope.scaling.attn_factor", default=1.0), 1.0)
    if factors:
        keys.accept("rope.scaling.type", kind, "none")
        return keys.try_build(RopeScaling, kind="factors", factors=tuple(factors))
    if kind == "linear":
        return keys.try_build(RopeScaling, kind=kind, factor=keys.number("rope.scaling.factor"))
    if kind == "yarn":
        return keys.try_build(
            RopeScaling,
            kind=kind,
            factor=keys.number("rope.scaling.factor"),
            original_context=keys.integer("rope.scaling.original_context_length"),
        )
    return None


def gguf_sizes(keys: Keys) -> dict[str, Any]:
    """Return the sizes that a GGUF file's metadata give; `gguf_weights` adds what its tensors tell."""
    hidden, n_heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    head_dim = keys.integer("attention.key_length", default=hidden // max(n_heads, 1))
    for key in ("attention.value_length", "rope.dimension_count"):
        keys.accept(key, keys.integer(key, default=head_dim), head_dim)
    return {
        "n_layers": keys.integer("block_count"),
        "hidden": hidden,
        "n_heads": n_heads,
        "n_kv_heads": keys.integer("attention.head_count_kv", default=n_heads),
        "head_dim": head_dim,
        "ffn": keys.integer("feed_forward_length"),
        "vocab": keys.integer("vocab_size"),
        "rope_theta": keys.number("rope.freq_base", default=10000.0),
        "rope_scaling": gguf_scaling(keys),
        "rms_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "tied_embeddings": keys.flag("tied_embeddings"),
        "max_context": keys.integer("context_length"),
    }
