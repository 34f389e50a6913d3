"""What attention blocks do with a KV cache that is split along the sequence: exchange parts, and merge own heads."""

from __future__ import annotations

from attrs import frozen

from workloads.array import Array, zeros
from workloads.chip import Chip, Group
from workloads.context import MergeParts, Stripe
from workloads.layout import Layout, Place, split_evenly
from workloads.models.blocks.site import Site

MERGE_PARTS = MergeParts()


def stripe_of(place: Place, layout: Layout) -> Stripe:
    """Return the positions that the rank at a place caches."""
    return Stripe(place.cp, layout.cp)


def merged_heads(heads: range, place: Place, layout: Layout) -> range:
    """Return which of the tensor-parallel rank's heads are merged by its context-parallel rank at `place`."""
    share = split_evenly(len(heads), layout.cp)[place.cp]
    return heads[share.start : share.stop]


@frozen(eq=False)
class Context:
    """The context-parallel group of one rank, and how many heads each of its members merges."""

    chip: Chip
    group: Group
    heads: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, site: Site, n_heads: int) -> Context | None:
        """Return the group of a rank with so many query heads; None if it caches whole rows."""
        if site.layout.cp == 1:
            return None
        group = site.layout.cp_group(site.chip.rank)
        shares = tuple(len(share) for share in split_evenly(n_heads, site.layout.cp))
        return cls(site.chip, site.chip.group(group.name, group.ranks), shares, site.carrier)

    async def merge(self, parts: Array, n_tokens: int) -> Array:
        """Return the attended values of own heads [tokens, heads·dim], from the parts of all heads on own keys."""
        mine = self.heads[self.group.ranks.index(self.chip.rank)]
        to = tuple(heads * n_tokens for heads in self.heads)
        if sum(to):
            parts = await self.chip.all_to_all_v(parts, (to,) * len(to), self.group)
        if not mine:
            return zeros(
                (n_tokens, 0), MERGE_PARTS.infer(parts, n_ranks=1, heads=1, dtype=self.dtype)[1], real=self.chip.real
            )
        return self.chip.apply(MERGE_PARTS, parts, n_ranks=len(to), heads=mine, dtype=self.dtype)
