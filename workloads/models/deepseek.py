"""DeepSeek-V2 and V3: latent attention, routed and shared experts, dense first layers.

arXiv 2405.04434 and 2412.19437; the same shape serves Kimi K2 (arXiv 2507.20534).
"""

from __future__ import annotations

from typing import Self

from attrs import field, frozen

from configs.errors import ConfigError
from configs.fields import above, at_least
from workloads.experts import Route
from workloads.keys import Keys
from workloads.models.blocks.experts import Experts
from workloads.models.blocks.feed_forward import FeedForward
from workloads.models.blocks.latent_attention import LatentHeads
from workloads.models.blocks.layer import Layer
from workloads.models.blocks.norm import Norm
from workloads.models.blocks.site import Block
from workloads.models.decoder import DecoderShape
from workloads.models.llama import llama_sizes
from workloads.models.mixtral import PROJECTIONS, expert_names
from workloads.naming import LLAMA_MODEL, Names, Stored, blocks_of, last_halves
from workloads.rope import Rope, RopeScaling

_ATTENTION = {
    "q": "q_proj", "q_down": "q_a_proj", "q_norm": "q_a_layernorm", "q_up": "q_b_proj",
    "kv_down": "kv_a_proj_with_mqa", "kv_norm": "kv_a_layernorm", "o": "o_proj",
}  # fmt: skip
_LAYER = {
    "attention_norm": "input_layernorm.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "router": "mlp.gate.weight",
    "router_bias": "mlp.gate.e_score_correction_bias",
    **{name: f"self_attn.{tensor}.weight" for name, tensor in _ATTENTION.items()},
    **{name: f"mlp.{tensor}.weight" for name, tensor in PROJECTIONS.items()},
    **{f"shared.{name}": f"mlp.shared_experts.{tensor}.weight" for name, tensor in PROJECTIONS.items()},
}


@frozen(kw_only=True)
class DeepseekShape(DecoderShape):
    """The sizes of a DeepSeek model.

    head_dim: the rotated part of a head; plain_dim: the rest of a query and key; value_dim: of a value.
    ffn: of the dense layers, the first `n_dense_layers`; expert_ffn: of one expert, routed or shared.
    """

    rope_theta: float
    rms_eps: float
    rope_scaling: RopeScaling | None = None
    rope_interleaved: bool = True
    attention_scale: float | None = field(default=None, metadata=above(0))
    q_latent: int | None = field(default=None, metadata=at_least(1))
    kv_latent: int = field(metadata=at_least(1))
    plain_dim: int = field(metadata=at_least(1))
    value_dim: int = field(metadata=at_least(1))
    n_dense_layers: int | None = field(default=None, metadata=at_least(0))
    expert_ffn: int = field(metadata=at_least(1))
    n_experts: int = field(metadata=at_least(1))
    experts_per_token: int = field(metadata=at_least(1))
    n_shared_experts: int | None = field(default=None, metadata=at_least(1))
    score: str = "sigmoid"
    router_bias: bool = True
    normalised: bool = True
    routed_scale: float = field(default=1.0, metadata=above(0))
    n_groups: int = field(default=1, metadata=at_least(1))
    n_groups_kept: int = field(default=1, metadata=at_least(1))

    def __attrs_post_init__(self) -> None:
        """Refuse choices that cannot be made."""
        super().__attrs_post_init__()
        if self.n_experts % self.n_groups or self.n_groups_kept > self.n_groups:
            what = f"n_groups: {self.n_groups} groups of {self.n_experts} experts, {self.n_groups_kept} kept"
            raise ConfigError((f"{what}; accepted: equal groups, at most all of them kept",))
        if self.experts_per_token > self.n_experts // self.n_groups * self.n_groups_kept:
            raise ConfigError((f"experts_per_token: {self.experts_per_token} are more than there are to choose from",))

    def layer(self, index: int) -> Layer:
        """Return the blocks of layer `index`."""
        return Layer(self._attention(), self._feed_forward(index), self.norm())

    def norm(self) -> Norm:
        """Return the norm of every block."""
        return Norm(self.hidden, self.rms_eps)

    def _attention(self) -> Block:
        rope = Rope(self.rope_theta, self.head_dim, self.rope_scaling)
        score_factor = 1.0 if self.rope_scaling is None else self.rope_scaling.score_factor
        scale = self.attention_scale or (self.plain_dim + self.head_dim) ** -0.5 * score_factor
        return LatentHeads(
            self.hidden, self.n_heads, self.q_latent, self.kv_latent, self.plain_dim, rope, self.value_dim,
            self.rms_eps, scale,
        )  # fmt: skip

    def _feed_forward(self, index: int) -> Block:
        if index < (self.n_dense_layers or 0):
            return FeedForward(self.hidden, self.ffn)
        best = 2 if self.score == "sigmoid" else 1
        route = Route(
            self.experts_per_token, self.score, self.normalised, self.routed_scale, self.n_groups, self.n_groups_kept,
            best,
        )  # fmt: skip
        shared = FeedForward(self.hidden, self.n_shared_experts * self.expert_ffn) if self.n_shared_experts else None
        return Experts(
            index, self.hidden, self.expert_ffn, self.n_experts, route, router_bias=self.router_bias, shared=shared
        )

    @classmethod
    def from_huggingface(cls, keys: Keys) -> Self:
        """Return the shape that a config.json of V3 describes (huggingface/transformers: models/deepseek_v3)."""
        sizes = llama_sizes(keys)
        for key in ("attention_bias", "mlp_bias"):
            keys.accept(key, keys.flag(key, default=False), False)
        rotated = keys.integer("qk_rope_head_dim")
        return keys.build(
            cls,
            **{**sizes, "head_dim": rotated, "n_kv_heads": sizes["n_heads"]},
            rope_interleaved=keys.flag("rope_interleave", default=True),
            q_latent=keys.integer("q_lora_rank", default=None),
            kv_latent=keys.integer("kv_lora_rank"),
            plain_dim=keys.integer("qk_nope_head_dim"),
            value_dim=keys.integer("v_head_dim"),
            n_dense_layers=keys.integer("first_k_dense_replace", default=None),
            expert_ffn=keys.integer("moe_intermediate_size"),
            n_experts=keys.integer("n_routed_experts"),
            experts_per_token=keys.integer("num_experts_per_tok"),
            n_shared_experts=keys.integer("n_shared_experts", default=None),
            normalised=keys.flag("norm_topk_prob", default=True),
            routed_scale=keys.number("routed_scaling_factor", default=1.0),
            n_groups=keys.integer("n_group", default=1),
            n_groups_kept=keys.integer("topk_group", default=1),
        )

    def huggingface_names(self) -> Names:
        """Return where a Hugging Face folder keeps the matrices: k_up and v_up are one tensor, head by head."""
        layer: dict[str, Stored | str] = {**_LAYER, **expert_names(self.n_experts, "mlp.experts.{}.", PROJECTIONS)}
        up, both = "self_attn.kv_b_proj.weight", self.plain_dim + self.value_dim
        layer |= {
            "k_up": Stored(up, blocks_of(self.plain_dim, both, 0)),
            "v_up": Stored(up, blocks_of(self.value_dim, both, self.plain_dim)),
        }
        if not self.rope_interleaved:
            query = self.plain_dim + self.head_dim
            for name, block in (("q", query), ("q_up", query), ("kv_down", self.kv_latent + self.head_dim)):
                layer[name] = Stored(str(layer[name]), last_halves(block, self.head_dim))
        return Names(LLAMA_MODEL, layer, "model.layers.{}.", root="model.")
