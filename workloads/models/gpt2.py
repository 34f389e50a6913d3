"""GPT-2: learned positions, layer norms, biases everywhere, a GELU feed-forward (Radford et al. 2019)."""

from __future__ import annotations

from typing import Self

from attrs import frozen

from workloads.keys import Keys
from workloads.models.blocks.attention import GroupedQueryAttention
from workloads.models.blocks.feed_forward import FeedForward
from workloads.models.blocks.layer import Layer
from workloads.models.blocks.norm import Norm
from workloads.models.decoder import DecoderShape
from workloads.naming import Names, Stored, offset

_MODEL = {
    "embedding": "transformer.wte.weight",
    "positions": "transformer.wpe.weight",
    "norm": "transformer.ln_f.weight",
    "norm_bias": "transformer.ln_f.bias",
    "head": "lm_head.weight",
}


@frozen(kw_only=True)
class Gpt2Shape(DecoderShape):
    """The sizes of a GPT-2 model; `max_context` is the number of learned positions."""

    layer_norm_eps: float

    def layer(self, index: int) -> Layer:
        """Return the blocks of layer `index`."""
        del index
        attention = GroupedQueryAttention(
            self.hidden, self.n_heads, self.n_kv_heads, self.head_dim, rope=None, qkv_bias=True, o_bias=True
        )
        return Layer(attention, FeedForward(self.hidden, self.ffn, "gelu_tanh", gated=False, bias=True), self.norm())

    def norm(self) -> Norm:
        """Return the norm of every block."""
        return Norm(self.hidden, self.layer_norm_eps, "layer", bias=True)

    @property
    def n_positions(self) -> int:
        """Every position of the context is learned."""
        return self.max_context

    @classmethod
    def from_huggingface(cls, keys: Keys) -> Self:
        """Return the shape that a config.json describes (huggingface/transformers: models/gpt2)."""
        hidden, n_heads = keys.integer("n_embd"), keys.integer("n_head")
        keys.accept("activation_function", keys.text("activation_function", default="gelu_new"), "gelu_new")
        keys.accept("scale_attn_weights", keys.flag("scale_attn_weights", default=True), True)
        by_layer = "scale_attn_by_inverse_layer_idx"
        keys.accept(by_layer, keys.flag(by_layer, default=False), False)
        return keys.build(
            cls,
            n_layers=keys.integer("n_layer"),
            hidden=hidden,
            n_heads=n_heads,
            n_kv_heads=n_heads,
            head_dim=hidden // max(n_heads, 1),
            ffn=keys.integer("n_inner", default=4 * hidden),
            vocab=keys.integer("vocab_size"),
            max_context=keys.integer("n_positions", "n_ctx"),
            tied_embeddings=keys.flag("tie_word_embeddings", default=True),
            layer_norm_eps=keys.number("layer_norm_epsilon", default=1e-5),
        )

    def huggingface_names(self) -> Names:
        """Return where a Hugging Face folder keeps the matrices: [in, out], and q, k and v in one."""
        layer: dict[str, Stored | str] = {}
        for norm, tensor in (("attention_norm", "ln_1"), ("ffn_norm", "ln_2")):
            layer |= {norm: f"{tensor}.weight", f"{norm}_bias": f"{tensor}.bias"}
        for name, tensor in (("o", "attn.c_proj"), ("up", "mlp.c_fc"), ("down", "mlp.c_proj")):
            layer |= {name: Stored(f"{tensor}.weight", transposed=True), f"{name}_bias": f"{tensor}.bias"}
        for i, name in enumerate("qkv"):
            rows = offset(i * self.hidden)
            layer[name] = Stored("attn.c_attn.weight", rows, transposed=True)
            layer[f"{name}_bias"] = Stored("attn.c_attn.bias", rows)
        return Names(_MODEL, layer, "transformer.h.{}.", root="transformer.")
