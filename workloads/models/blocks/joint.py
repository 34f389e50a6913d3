"""What the ranks that share matrices do together: sum their parts, over all tokens or each over its own.

With sequence parallelism (Korthikanti et al., arXiv 2205.05198) an all_reduce becomes a reduce_scatter before what is
done for each token by itself (norms, residual sums), and an all_gather after it; the ranks' shares of the tokens are
equal, the last ones filled up. Steps with fewer tokens than ranks are summed whole.
"""

from __future__ import annotations

from attrs import frozen

from workloads.array import Array, fill, head
from workloads.chip import Chip, Group
from workloads.models.blocks.site import Site


@frozen(eq=False)
class Joint:
    """The group of one rank, None if it is alone; `sequence`: between blocks every rank has its share of the tokens."""

    chip: Chip
    group: Group | None
    sequence: bool

    @classmethod
    def of(cls, site: Site) -> Joint:
        """Return the group of the rank."""
        group = site.layout.shard_group(site.chip.rank)
        alone = len(group) == 1
        return cls(site.chip, None if alone else site.chip.group(group.name, group.ranks), site.layout.sequence)

    def __len__(self) -> int:
        return 1 if self.group is None else len(self.group)

    def splits(self, n: int) -> bool:
        """Return whether n tokens are shared."""
        return self.sequence and self.group is not None and n >= len(self.group)

    def own(self, x: Array) -> Array:
        """Return this rank's share of the tokens of x [n, hidden]."""
        if self.group is None or not self.splits(x.shape[0]):
            return x
        share, index = -(-x.shape[0] // len(self)), self.group.ranks.index(self.chip.rank)
        return head(fill(x, share * len(self)), (index + 1) * share, start=index * share)

    async def total(self, y: Array) -> Array:
        """Return the sum of all ranks' y [n, hidden], this rank's share of it where tokens are shared."""
        if self.group is None or not y.shape[0]:
            return y
        if not self.splits(y.shape[0]):
            return await self.chip.all_reduce(y, self.group)
        return await self.chip.reduce_scatter(fill(y, -(-y.shape[0] // len(self)) * len(self)), self.group)

    async def whole(self, x: Array, n: int) -> Array:
        """Return what a block's matrices take in of n tokens, from the rank's share x of the hidden states."""
        return await self.features(await self.tokens(x, n))

    async def features(self, x: Array) -> Array:
        """Return all that the rank's matrices take in of every token: it is there."""
        return x

    async def tokens(self, x: Array, n: int) -> Array:
        """Return all n tokens of x, of which every rank has its share."""
        if self.group is None or not self.splits(n):
            return x
        return head(await self.chip.all_gather(x, self.group), n)
