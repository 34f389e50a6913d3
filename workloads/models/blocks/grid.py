"""Two-dimensional tensor parallelism: matrices cut along both sides (Pope et al., arXiv 2211.05102, section 3.2.2).

On a grid of x · y ranks a matrix [F, E] of a block is cut into x parts along the hidden size E and y along F, so that
no rank ever has all of the hidden states. Elements that a rank sends per token and block, times (k - 1)/k of k ranks:

    all_gather over y     E/x        all_gather over x     F_out/y
    reduce_scatter over x F_in/y     reduce_scatter over y E/x

which is least at x/y = 2E/(F_in + F_out), and then falls as 1/√(x·y). Kernels between the products work on an even
share of F (heads, rows of the feed-forward), norms and sums on an even share of E.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from workloads.array import Array, head, pack, spread, transposed
from workloads.chip import Chip, Group
from workloads.models.blocks.joint import Joint
from workloads.models.blocks.site import Site

Parts = tuple[tuple[range, ...], ...]
"""For every rank of a line, its columns of what the line's ranks compute together."""


@frozen(eq=False)
class Line:
    """The ranks of one line of the grid: they share the columns of a product."""

    chip: Chip
    group: Group

    @property
    def _index(self) -> int:
        return self.group.ranks.index(self.chip.rank)

    async def scattered(self, y: Array, parts: Parts) -> Array:
        """Return the own columns, as `parts` lists them, of the sum of all ranks' y [n, columns]."""
        sizes = [sum(map(len, part)) for part in parts]
        if len(self.group) == 1 or not max(sizes):
            return y
        filled = spread(transposed(y), parts, max(sizes))
        return transposed(head(await self.chip.reduce_scatter(filled, self.group), sizes[self._index]))

    async def gathered(self, x: Array, sizes: Sequence[int]) -> Array:
        """Return the columns of all ranks, of which each has so many, side by side."""
        if len(self.group) == 1 or not max(sizes):
            return x
        filled = spread(transposed(x), [[range(sizes[self._index])]], max(sizes))
        return transposed(pack(await self.chip.all_gather(filled, self.group), sizes))


@frozen(eq=False)
class Inside:
    """The ranks that have the same part of a block's inside: they add up what matrices take from the hidden states.

    parts: the columns of the first product that each rank works on; sizes: how many columns it gives to the second.
    """

    line: Line
    parts: Parts
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, site: Site, parts: Parts, sizes: Sequence[int] = ()) -> Inside | None:
        """Return what one rank does inside of a block; None without a grid."""
        if site.layout.tp_grid is None:
            return None
        group = site.layout.across_group(site.chip.rank)
        return cls(Line(site.chip, site.chip.group(group.name, group.ranks)), parts, tuple(sizes))

    async def enter(self, y: Array) -> Array:
        """Return the own columns of the first product, of which every rank has a part of the sum."""
        return await self.line.scattered(y, self.parts)

    async def leave(self, x: Array) -> Array:
        """Return what the second product takes in, from the own columns."""
        return await self.line.gathered(x, self.sizes)


@frozen(eq=False)
class GridJoint(Joint):
    """What the ranks of a grid do together between the blocks: each has all tokens and a share of the hidden size."""

    line: Line
    shares: tuple[range, ...]
    """Of the hidden size, for every rank of the line."""

    @classmethod
    def on_grid(cls, site: Site, hidden: int) -> GridJoint:
        """Return the grid of the rank."""
        layout, chip = site.layout, site.chip
        group, along = layout.shard_group(chip.rank), layout.along_group(chip.rank)
        line = Line(chip, chip.group(along.name, along.ranks))
        shares = layout.hidden_shares(hidden, site.place)
        return cls(chip, chip.group(group.name, group.ranks), False, line, shares)

    async def total(self, y: Array) -> Array:
        """Return the own share of the hidden states, of the sum of all ranks' y [n, hidden part]."""
        first = self.shares[0].start
        parts = tuple((range(share.start - first, share.stop - first),) for share in self.shares)
        return await self.line.scattered(y, parts)

    async def features(self, x: Array) -> Array:
        """Return the rank's part of the hidden states [n, hidden part], of which every rank of the line has a share."""
        return await self.line.gathered(x, tuple(map(len, self.shares)))


def consecutive(sizes: Sequence[Sequence[int]]) -> Parts:
    """Return parts of so many columns each, one after the other.

    >>> consecutive([[2, 2], [1, 1]])
    ((range(0, 2), range(2, 4)), (range(4, 5), range(5, 6)))
    """
    parts, start = [], 0
    for own in sizes:
        part = []
        for size in own:
            part.append(range(start, start + size))
            start += size
        parts.append(tuple(part))
    return tuple(parts)
