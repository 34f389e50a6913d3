"""gpt-oss: grouped-query attention with biases and a window in every other layer, experts everywhere.

Shapes only (arXiv 2508.10925): the learned sinks of its attention and the biases of its experts, 0.03 % of the
parameters, are left out.
"""

from __future__ import annotations

from attrs import field, frozen

from configs.fields import at_least
from workloads.experts import Route
from workloads.models.blocks.attention import GroupedQueryAttention
from workloads.models.blocks.experts import Experts
from workloads.models.blocks.layer import Layer
from workloads.models.blocks.norm import Norm
from workloads.models.decoder import DecoderShape
from workloads.rope import Rope, RopeScaling


@frozen(kw_only=True)
class GptOssShape(DecoderShape):
    """The sizes of the model; `ffn` is the rows of one expert; sliding_window: of layers 0, 2, 4..."""

    rope_theta: float
    rope_scaling: RopeScaling | None = None
    rms_eps: float
    sliding_window: int | None = field(default=None, metadata=at_least(1))
    n_experts: int = field(metadata=at_least(1))
    experts_per_token: int = field(metadata=at_least(1))

    def layer(self, index: int) -> Layer:
        """Return the blocks of layer `index`."""
        attention = GroupedQueryAttention(
            self.hidden,
            self.n_heads,
            self.n_kv_heads,
            self.head_dim,
            Rope(self.rope_theta, self.head_dim, self.rope_scaling),
            qkv_bias=True,
            o_bias=True,
            window=self.sliding_window if index % 2 == 0 else None,
        )
        experts = Experts(index, self.hidden, self.ffn, self.n_experts, Route(self.experts_per_token))
        return Layer(attention, experts, self.norm())

    def norm(self) -> Norm:
        """Return the norm of every block."""
        return Norm(self.hidden, self.rms_eps)
