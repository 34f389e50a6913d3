"""Qwen3 with a mixture of experts in every layer (arXiv 2505.09388)."""

from __future__ import annotations

from typing import Self

from attrs import field, frozen

from configs.fields import at_least
from workloads.experts import Route
from workloads.keys import Keys
from workloads.models.blocks.experts import Experts
from workloads.models.blocks.site import Block
from workloads.models.llama import llama_sizes
from workloads.models.mixtral import PROJECTIONS, expert_names
from workloads.models.qwen2 import upper_windows
from workloads.models.qwen3 import Qwen3Shape
from workloads.naming import LLAMA_LAYER, Names, llama_names


@frozen(kw_only=True)
class Qwen3MoeShape(Qwen3Shape):
    """The sizes of the model; `ffn` is the rows of one expert; normalised: a token's weights sum to 1."""

    n_experts: int = field(metadata=at_least(1))
    experts_per_token: int = field(metadata=at_least(1))
    normalised: bool = True

    def feed_forward(self, index: int) -> Block:
        """Return the experts of layer `index`."""
        route = Route(self.experts_per_token, normalised=self.normalised)
        return Experts(index, self.hidden, self.ffn, self.n_experts, route)

    @classmethod
    def from_huggingface(cls, keys: Keys) -> Self:
        """Return the shape that a config.json describes; layers without experts are not supported."""
        keys.accept("decoder_sparse_step", keys.integer("decoder_sparse_step", default=1), 1)
        keys.accept("mlp_only_layers", tuple(keys.list_of("mlp_only_layers", int)), ())
        sizes = llama_sizes(keys)
        return keys.build(
            cls,
            **{**sizes, "ffn": keys.integer("moe_intermediate_size")},
            **upper_windows(keys),
            attention_bias=keys.flag("attention_bias", default=False),
            n_experts=keys.integer("num_experts"),
            experts_per_token=keys.integer("num_experts_per_tok"),
            normalised=keys.flag("norm_topk_prob", default=False),
        )

    def huggingface_names(self) -> Names:
        """Return where a Hugging Face folder keeps the matrices."""
        experts = expert_names(self.n_experts, "mlp.experts.{}.", PROJECTIONS)
        return llama_names(self.head_dim, {**LLAMA_LAYER, "router": "mlp.gate.weight", **experts})
