"""How attention is spread over tensor-parallel ranks: each has some heads of all rows, or all heads of some rows.

By heads, KV heads go where a query head needs them. By rows (`tp_attention: batch`; Pope et al., arXiv 2211.05102,
section 3.3) q, k and v are made column by column like any matrix on a grid; every rank then gets all columns of its own
rows of the batch by an all_to_all_v, and gives back what it attended to by another. So the KV cache is split by rows
where there are few KV heads or one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from attrs import frozen

from collectives import Rows
from workloads.array import Array, fill, head, transposed
from workloads.chip import Chip, Group, Work
from workloads.kernels import Inferred, vector_work
from workloads.layout import Layout, Place, split_evenly
from workloads.models.blocks.context import merged_heads
from workloads.models.blocks.grid import Inside, consecutive
from workloads.models.blocks.site import Plan, Site


class Spread(Protocol):
    """What of an attention block is where; ranges are of elements, head by head."""

    def held(self, at: Plan | Site) -> tuple[range, range, range]:
        """Return the rows of q, k and v in a rank's matrices."""

    def out(self, at: Plan | Site) -> range:
        """Return the columns of o in a rank's matrix."""

    def cached(self, plan: Plan) -> tuple[int, int]:
        """Return how many rows of the batch, and how many of their KV heads, a rank caches."""

    def queries(self, at: Site) -> tuple[int, ...]:
        """Return the number of query heads of every KV head that a rank attends to."""

    def inside(self, site: Site) -> Inside | None:
        """Return what the ranks do inside of the block, on a grid."""

    def exchange(self, site: Site) -> Exchange | None:
        """Return how a rank gets its rows of the batch; None if it works on all."""


@frozen
class ByHeads:
    """Every rank has an even share of the query heads."""

    n_heads: int
    n_kv_heads: int
    dim: int

    def _share(self, at: Plan | Site) -> HeadShare:
        return heads_of(self.n_heads, self.n_kv_heads, at.layout.tp, at.place.tp)

    def _across(self, at: Plan | Site) -> list[HeadShare]:
        """Return the heads of all ranks that have the same part of the block's inside."""
        tp = at.layout.tp
        return [heads_of(self.n_heads, self.n_kv_heads, tp, i % tp) for i in at.layout.across(at.place)]

    def held(self, at: Plan | Site) -> tuple[range, range, range]:
        """Return the rows of the heads of all ranks across."""
        heads, kv_heads = together(self._across(at))
        kv = self._elements(kv_heads)
        return self._elements(heads), kv, kv

    def out(self, at: Plan | Site) -> range:
        """Return the columns of the heads of all ranks across, of those merged here."""
        return self._elements(merged_heads(together(self._across(at))[0], at.place, at.layout))

    def cached(self, plan: Plan) -> tuple[int, int]:
        """Return all rows, and the own KV heads."""
        return plan.n_rows, len(self._share(plan).kv_heads)

    def queries(self, at: Site) -> tuple[int, ...]:
        """Return the number of own query heads of every own KV head."""
        return self._share(at).queries

    def inside(self, site: Site) -> Inside | None:
        """Return how the ranks across share the columns of q, k and v, which are stored one after the other."""
        shares = self._across(site)
        heads, kv_heads = together(shares)
        k = len(heads) - kv_heads.start
        v = k + len(kv_heads)
        parts = (
            (
                self._elements(s.heads, -heads.start),
                self._elements(s.kv_heads, k),
                self._elements(s.kv_heads, v),
            )
            if s.heads
            else ()
            for s in shares
        )
        return Inside.of(site, tuple(parts), [len(s.heads) * self.dim for s in shares])

    def exchange(self, site: Site) -> Exchange | None:
        """Return None: a rank works on all rows."""
        del site
        return None

    def _elements(self, heads: range, offset: int = 0) -> range:
        return range((heads.start + offset) * self.dim, (heads.stop + offset) * self.dim)


@frozen
class ByRows:
    """Every rank has an even share of the rows of the batch, and of the columns of q, k and v together."""

    n_heads: int
    n_kv_heads: int
    dim: int

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self.n_heads * self.dim, self.n_kv_heads * self.dim, self.n_kv_heads * self.dim

    def held(self, at: Plan | Site) -> tuple[range, range, range]:
        """Return the rank's part of q, k and v, which follow each other."""
        part, found, start = at.layout.part(sum(self._sizes), at.place), [], 0
        for size in self._sizes:
            first, stop = (min(max(end - start, 0), size) for end in (part.start, part.stop))
            found.append(range(first, stop))
            start += size
        q, k, v = found
        return q, k, v

    def out(self, at: Plan | Site) -> range:
        """Return the rank's part of the columns of o."""
        return at.layout.part(self.n_heads * self.dim, at.place)

    def cached(self, plan: Plan) -> tuple[int, int]:
        """Return the own rows, and all KV heads."""
        return len(own_rows(plan.n_rows, plan.layout, plan.place)), self.n_kv_heads

    def queries(self, at: Site) -> tuple[int, ...]:
        """Return the number of query heads of every KV head."""
        del at
        return (self.n_heads // self.n_kv_heads,) * self.n_kv_heads

    def inside(self, site: Site) -> Inside | None:
        """Return how the ranks across share the columns, one after the other."""
        sizes, outs = (map(len, site.layout.shares(n, site.place)) for n in (sum(self._sizes), self._sizes[0]))
        return Inside.of(site, consecutive([[size] for size in sizes]), tuple(outs))

    def exchange(self, site: Site) -> Exchange | None:
        """Return the exchange of columns for rows."""
        group = site.layout.shard_group(site.chip.rank)
        columns, outs = (tuple(map(len, split_evenly(n, site.layout.tp))) for n in (sum(self._sizes), self._sizes[0]))
        return Exchange(site.chip, site.chip.group(group.name, group.ranks), site.layout, site.place, columns, outs)


def own_rows(n_rows: int, layout: Layout, place: Place) -> range:
    """Return which rows of a replica a rank attends to, where attention is split by rows."""
    return split_evenly(n_rows, layout.tp)[layout.index(place)]


@frozen(eq=False)
class Exchange:
    """The ranks of a tensor-parallel group, how many columns of q, k and v each makes, and how many of o each takes."""

    chip: Chip
    group: Group
    layout: Layout
    place: Place
    columns: tuple[int, ...]
    outs: tuple[int, ...]

    def own(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """Return what is the rank's own of something per row."""
        share = own_rows(len(rows), self.layout, self.place)
        return rows[share.start : share.stop]

    def _tokens(self, n_rows: int, n: int) -> list[int]:
        """Return how many of n tokens every rank attends to."""
        return [len(share) * n // n_rows for share in split_evenly(n_rows, self.layout.tp)]

    async def to_rows(self, x: Array, n_rows: int) -> Array:
        """Return all columns of the own rows, from the own columns of all."""
        tokens, widest = self._tokens(n_rows, x.shape[0]), max(self.columns)
        filled = transposed(fill(transposed(x), widest))
        got = await self.chip.all_to_all_v(filled, Rows([tuple(tokens)] * len(tokens)), self.group)
        return self.chip.apply(JOIN_COLUMNS, got, sizes=self.columns)

    async def to_columns(self, x: Array, n_rows: int, n: int) -> Array:
        """Return the own columns of all n tokens, from all columns of the own rows."""
        tokens = self._tokens(n_rows, n)
        cut = self.chip.apply(SPLIT_COLUMNS, x, sizes=self.outs)
        table = Rows([(count,) * len(tokens) for count in tokens])
        got = await self.chip.all_to_all_v(cut, table, self.group)
        return transposed(head(transposed(got), self.outs[self.layout.index(self.place)]))


@frozen
class JoinColumns:
    """Put what every rank sent side by side: x [ranks·n, widest], y [n, Σ sizes]."""

    name: str = "join_columns"

    def infer(self, x: Array, *, sizes: tuple[int, ...]) -> Inferred:
        """Return [n, Σ sizes]."""
        return (x.shape[0] // len(sizes), sum(sizes)), x.dtype

    def evaluate(self, x: Any, *, sizes: tuple[int, ...]) -> Any:
        """Return the columns, rank by rank."""
        parts = x.reshape(len(sizes), -1, x.shape[1])
        return np.concatenate([part[:, :size] for part, size in zip(parts, sizes, strict=True)], axis=1)

    def work(self, x: Array, *, sizes: tuple[int, ...]) -> Work:
        """Return only traffic: each element is read and written."""
        return vector_work(x, 0, 2 * x.shape[0] // len(sizes) * sum(sizes) * x.dtype.itemsize)


@frozen
class SplitColumns:
    """Cut the columns for every rank, filled up to the widest part: x [n, Σ sizes], y [ranks·n, widest]."""

    name: str = "split_columns"

    def infer(self, x: Array, *, sizes: tuple[int, ...]) -> Inferred:
        """Return [ranks·n, widest]."""
        return (x.shape[0] * len(sizes), max(sizes)), x.dtype

    def evaluate(self, x: Any, *, sizes: tuple[int, ...]) -> Any:
        """Return the parts, rank by rank."""
        y = np.zeros((len(sizes), len(x), max(sizes)), x.dtype)
        for part, size, stop in zip(y, sizes, np.cumsum(sizes).tolist(), strict=True):
            part[:, :size] = x[:, stop - size : stop]
        return y.reshape(-1, max(sizes))

    def work(self, x: Array, *, sizes: tuple[int, ...]) -> Work:
        """Return only traffic: each element is read and written."""
        del sizes
        return vector_work(x, 0, 2 * x.nbytes)


JOIN_COLUMNS, SPLIT_COLUMNS = JoinColumns(), SplitColumns()


@frozen
class HeadShare:
    """What one tensor-parallel rank holds: query heads, and the KV heads that these need.

    `queries` counts the own query heads of each own KV head; a rank beyond the heads has none of either.
    """

    heads: range
    kv_heads: range
    queries: tuple[int, ...]


@lru_cache(maxsize=4096)
def heads_of(n_heads: int, n_kv_heads: int, tp: int, index: int) -> HeadShare:
    """Return the share of rank `index` of `tp`; every rank with a query head holds its KV head.

    >>> heads_of(6, 2, 4, 1)
    HeadShare(heads=range(2, 4), kv_heads=range(0, 2), queries=(1, 1))
    """
    heads = split_evenly(n_heads, tp)[index]
    group = n_heads // n_kv_heads
    kv_heads = range(heads.start // group, (heads.stop - 1) // group + 1) if heads else range(0)
    queries = tuple(len([head for head in heads if head // group == kv]) for kv in kv_heads)
    return HeadShare(heads, kv_heads, queries)


def together(shares: Sequence[HeadShare]) -> tuple[range, range]:
    """Return the query and the KV heads of neighbouring ranks.

    >>> together([heads_of(6, 2, 4, 0), heads_of(6, 2, 4, 1)])
    (range(0, 4), range(0, 2))
    """
    some = [share for share in shares if share.heads] or shares[:1]
    first, last = some[0], some[-1]
    return range(first.heads.start, last.heads.stop), range(first.kv_heads.start, last.kv_heads.stop)
