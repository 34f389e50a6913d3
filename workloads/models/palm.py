"""PaLM: parallel blocks after one norm, multi-query attention, gated SiLU, no biases (arXiv 2204.02311).

Shapes only: its weights were never published.
"""

from __future__ import annotations

from attrs import frozen

from workloads.models.blocks.attention import GroupedQueryAttention
from workloads.models.blocks.feed_forward import FeedForward
from workloads.models.blocks.layer import Layer
from workloads.models.blocks.norm import Norm
from workloads.models.decoder import DecoderShape
from workloads.rope import Rope


@frozen(kw_only=True)
class PalmShape(DecoderShape):
    """The sizes of a PaLM model."""

    rope_theta: float
    layer_norm_eps: float

    def layer(self, index: int) -> Layer:
        """Return the blocks of layer `index`."""
        del index
        rope = Rope(self.rope_theta, self.head_dim)
        attention = GroupedQueryAttention(self.hidden, self.n_heads, self.n_kv_heads, self.head_dim, rope)
        return Layer(attention, FeedForward(self.hidden, self.ffn), self.norm(), parallel=True, shared_norm=True)

    def norm(self) -> Norm:
        """Return the norm of every block."""
        return Norm(self.hidden, self.layer_norm_eps, "layer")
