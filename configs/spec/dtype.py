"""How numbers are kept: their formats, and the tiers of memory that they are in."""

from __future__ import annotations

from attrs import field, frozen

from configs.dtypes import DTYPES
from configs.fields import one_of


@frozen
class DtypeSpec:
    """Number formats of the weights, the KV cache and the activations.

    feed_forward, feed_forward_activations: within feed-forward blocks and experts; head: of the embedding and the head;
    None: as the others.
    """

    weights: str = field(default="bf16", metadata=one_of(DTYPES))
    kv: str = field(default="bf16", metadata=one_of(DTYPES))
    activations: str = field(default="bf16", metadata=one_of(DTYPES))
    feed_forward: str | None = field(default=None, metadata=one_of(DTYPES))
    feed_forward_activations: str | None = field(default=None, metadata=one_of(DTYPES))
    head: str | None = field(default=None, metadata=one_of(DTYPES))

    @property
    def of_feed_forward(self) -> DtypeSpec:
        """The formats within feed-forward blocks and experts."""
        return DtypeSpec(self.feed_forward or self.weights, self.kv, self.feed_forward_activations or self.activations)

    @property
    def of_head(self) -> DtypeSpec:
        """The formats of the embedding and the head; inputs are not rounded for a head of its own format."""
        if self.head is None:
            return self
        return DtypeSpec(self.head, self.kv, DTYPES[self.activations].carrier)


@frozen
class TiersSpec:
    """The memory tier of the weights and of the KV cache, by name; by default the farthest."""

    weights: str | None = None
    kv: str | None = None

    def of(self, role: str) -> str | None:
        """Return the tier of what has a role: weights or kv."""
        return self.kv if role == "kv" else self.weights
