"""Falcon: parallel attention and feed-forward, layer norms with biases, GELU, few or one KV head (arXiv 2311.16867).

7B: multi-query, one norm for both blocks. 40B and 180B ("new decoder architecture"): grouped queries, a norm each.
A file fuses q, k and v; the queries of a KV head, its key and its value follow each other.
"""

from __future__ import annotations

from typing import Self

from attrs import frozen

from workloads.keys import Keys
from workloads.models.blocks.attention import GroupedQueryAttention
from workloads.models.blocks.feed_forward import FeedForward
from workloads.models.blocks.layer import Layer
from workloads.models.blocks.norm import Norm
from workloads.models.decoder import DecoderShape
from workloads.models.llama import rope_of
from workloads.naming import Names, Stored, grouped, halves
from workloads.rope import Rope, RopeScaling

_QKV = "self_attention.query_key_value"
_MODEL = {
    "embedding": "transformer.word_embeddings.weight",
    "norm": "transformer.ln_f.weight",
    "norm_bias": "transformer.ln_f.bias",
    "head": "lm_head.weight",
}
_LAYER = {
    "o": "self_attention.dense.weight",
    "o_bias": "self_attention.dense.bias",
    "up": "mlp.dense_h_to_4h.weight",
    "up_bias": "mlp.dense_h_to_4h.bias",
    "down": "mlp.dense_4h_to_h.weight",
    "down_bias": "mlp.dense_4h_to_h.bias",
}


@frozen(kw_only=True)
class FalconShape(DecoderShape):
    """The sizes of a Falcon model; norms_per_layer: 1 (shared by both blocks) or 2; bias: of all matrices."""

    rope_theta: float
    layer_norm_eps: float
    rope_scaling: RopeScaling | None = None
    parallel: bool = True
    norms_per_layer: int = 1
    bias: bool = False

    def layer(self, index: int) -> Layer:
        """Return the blocks of layer `index`."""
        del index
        attention = GroupedQueryAttention(
            self.hidden,
            self.n_heads,
            self.n_kv_heads,
            self.head_dim,
            Rope(self.rope_theta, self.head_dim, self.rope_scaling),
            qkv_bias=self.bias,
            o_bias=self.bias,
        )
        feed_forward = FeedForward(self.hidden, self.ffn, "gelu", gated=False, bias=self.bias)
        shared = self.parallel and self.norms_per_layer == 1
        return Layer(attention, feed_forward, self.norm(), parallel=self.parallel, shared_norm=shared)

    def norm(self) -> Norm:
        """Return the norm of every block."""
        return Norm(self.hidden, self.layer_norm_eps, "layer", bias=True)

    @classmethod
    def from_huggingface(cls, keys: Keys) -> Self:
        """Return the shape that a config.json describes (huggingface/transformers: models/falcon)."""
        new = keys.flag("new_decoder_architecture", default=False)
        hidden, n_heads = keys.integer("hidden_size"), keys.integer("num_attention_heads", "n_head")
        theta, scaling = rope_of(keys)
        keys.accept("alibi", keys.flag("alibi", default=False), False)
        keys.accept("activation", keys.text("activation", default="gelu"), "gelu")
        one = keys.flag("multi_query", default=True)
        norms = keys.integer("num_ln_in_parallel_attn", default=2 if new else 1)
        return keys.build(
            cls,
            n_layers=keys.integer("num_hidden_layers", "n_layer"),
            hidden=hidden,
            n_heads=n_heads,
            n_kv_heads=keys.integer("num_kv_heads", "n_head_kv", default=n_heads) if new else 1 if one else n_heads,
            head_dim=hidden // max(n_heads, 1),
            ffn=keys.integer("ffn_hidden_size", default=4 * hidden),
            vocab=keys.integer("vocab_size"),
            max_context=keys.integer("max_position_embeddings", default=2048),
            tied_embeddings=keys.flag("tie_word_embeddings", default=True),
            rope_theta=theta,
            rope_scaling=scaling,
            layer_norm_eps=keys.number("layer_norm_epsilon", default=1e-5),
            parallel=keys.flag("parallel_attn", default=True) or new,
            norms_per_layer=norms,
            bias=keys.flag("bias", default=False),
        )

    def huggingface_names(self) -> Names:
        """Return where a Hugging Face folder keeps the matrices."""
        two = self.parallel and self.norms_per_layer == 2
        attention, ffn = ("ln_attn", "ln_mlp") if two else ("input_layernorm", "post_attention_layernorm")
        norms = {"attention_norm": attention, "ffn_norm": ffn}
        layer: dict[str, Stored | str] = {**_LAYER}
        for name, tensor in norms.items():
            layer |= {name: f"{tensor}.weight", f"{name}_bias": f"{tensor}.bias"}
        dim, n = self.head_dim, self.n_heads // self.n_kv_heads
        for name, member, n_members in (("q", 0, n), ("k", n, 1), ("v", n + 1, 1)):
            rows = grouped(dim, n + 2, member, n_members, None if name == "v" else halves(dim))
            layer |= {name: Stored(f"{_QKV}.weight", rows), f"{name}_bias": Stored(f"{_QKV}.bias", rows)}
        return Names(_MODEL, layer, "transformer.h.{}.", root="transformer.")
