"""Mixtral: Mistral with a mixture of experts in place of every feed-forward block (arXiv 2401.04088)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from attrs import field, frozen

from configs.fields import at_least
from workloads.experts import Route
from workloads.keys import Keys
from workloads.models.blocks.experts import Experts
from workloads.models.blocks.site import Block
from workloads.models.llama import llama_sizes
from workloads.models.mistral import MistralShape
from workloads.naming import LLAMA_LAYER, Names, llama_names


@frozen(kw_only=True)
class MixtralShape(MistralShape):
    """The sizes of a Mixtral model; `ffn` is the rows of one expert."""

    n_experts: int = field(metadata=at_least(1))
    experts_per_token: int = field(metadata=at_least(1))

    def feed_forward(self, index: int) -> Block:
        """Return the experts of layer `index`: the weights of the chosen ones sum to 1."""
        return Experts(index, self.hidden, self.ffn, self.n_experts, Route(self.experts_per_token))

    @classmethod
    def from_huggingface(cls, keys: Keys) -> Self:
        """Return the shape that a config.json describes."""
        return keys.build(
            cls,
            **llama_sizes(keys),
            sliding_window=keys.integer("sliding_window", default=None),
            n_experts=keys.integer("num_local_experts"),
            experts_per_token=keys.integer("num_experts_per_tok"),
        )

    def huggingface_names(self) -> Names:
        """Return where a Hugging Face folder keeps the matrices."""
        router = {"router": "block_sparse_moe.gate.weight"}
        experts = expert_names(self.n_experts, "block_sparse_moe.experts.{}.", {"gate": "w1", "up": "w3", "down": "w2"})
        return llama_names(self.head_dim, {**LLAMA_LAYER, **router, **experts})


def expert_names(n_experts: int, prefix: str, matrices: Mapping[str, str]) -> dict[str, str]:
    """Return the tensors of all experts.

    >>> expert_names(1, "mlp.experts.{}.", {"up": "up_proj"})
    {'experts.0.up': 'mlp.experts.0.up_proj.weight'}
    """
    return {
        f"experts.{e}.{name}": f"{prefix.format(e)}{tensor}.weight"
        for e in range(n_experts)
        for name, tensor in matrices.items()
    }


PROJECTIONS: Mapping[str, str] = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
"""The matrices of an expert, as most families call them."""
