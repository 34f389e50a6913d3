"""Which chips of a program do the same: what one of them leaves behind says what the others do.

Without values, what a chip does follows from sizes alone. Chips of one role run the same kernels on the same sizes and
communicate in the same order, each with groups and peers of its own. So one chip of every role runs, and what the
others do is what it does, with their groups and peers in the place of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property, lru_cache
from itertools import product
from typing import Protocol, cast

from attrs import define, evolve, field

from configs.spec.dtype import DtypeSpec
from workloads.chip import Group
from workloads.decode import DecodeJob
from workloads.layout import Layout, Place, split_evenly
from workloads.models.blocks.experts import Experts
from workloads.models.blocks.heads import heads_of, own_rows
from workloads.models.decoder import DecoderShape


class Roles(Protocol):
    """Who does the same in a program, if there are no values."""

    def representative(self, rank: int) -> int:
        """Return the lowest rank of `rank`'s role; representatives exchange messages with each other alone."""

    def group(self, group: Group, rank: int) -> Group:
        """Return the group that is to `rank` what `group` is to its representative, with members in the same order."""

    def peer(self, peer: int, rank: int) -> int:
        """Return the chip that is to `rank` what `peer` is to its representative."""


@define(eq=False)
class DecodeRoles:
    """The roles of `workloads.decode.decode`: replicas with rows alike, and ranks with shares alike within them.

    Stages are never alike, so representatives stand at the same replicas and indices on all stages; nor are
    context-parallel ranks, as the positions that they cache differ.
    """

    job: DecodeJob
    _dp: tuple[int, ...] = field(init=False)
    """Of every replica the first one that has rows of the same lengths; and so on."""
    _tp: tuple[int, ...] = field(init=False)
    _ep: dict[int, tuple[int, ...]] = field(init=False, factory=dict)

    @_dp.default
    def _alike_replicas(self) -> tuple[int, ...]:
        return first_alike([self.job.peers(Place(dp, 0, 0)).lengths for dp in range(self.job.layout.dp)])

    @_tp.default
    def _alike_shares(self) -> tuple[int, ...]:
        job = self.job
        alike = _alike_shards(self._shape, job.layout, job.dtype, job.max_length)
        return first_alike([(alike[tp], self._own_lengths(tp)) for tp in range(job.layout.tp)])

    def representative(self, rank: int) -> int:
        """Return the lowest rank that does the same."""
        layout = self.job.layout
        if rank not in layout.ranks:  # does nothing
            return rank
        place = layout.place(rank)
        dp = self._dp[place.dp]
        if dp not in self._ep:
            self._ep[dp] = first_alike(self._expert_shares(dp))
        return layout.rank(evolve(place, dp=dp, ep=self._ep[dp][place.ep], tp=self._tp[place.tp]))

    def group(self, group: Group, rank: int) -> Group:
        """Return the rank's group of the same kind; those that are no groups of the layout are of all ranks."""
        return self.job.layout.group_like(group, rank)

    def peer(self, peer: int, rank: int) -> int:
        """Return the chip on the same stage as `peer`."""
        layout = self.job.layout
        return layout.on_stage(rank, layout.place(peer).pp)

    @cached_property
    def _shape(self) -> DecoderShape:
        return cast("DecoderShape", self.job.shape)

    def _own_lengths(self, tp: int) -> Hashable:
        """Return the lengths of the rows that a tensor-parallel index attends to alone, in every replica."""
        job, layout = self.job, self.job.layout
        if layout.tp_attention == "heads":
            return ()
        rows = (job.rows(layout.replica(Place(dp, 0, 0))) for dp in range(layout.dp))
        own = (some[r.start : r.stop] for some in rows for r in [own_rows(len(some), layout, Place(0, 0, tp))])
        return tuple(tuple(job.prompt_lengths[row] for row in some) for some in own)

    def _expert_shares(self, dp: int) -> Sequence[Hashable]:
        """Return what the expert-parallel indices of a replica decide: own rows, own experts, and the tokens of all."""
        layout, shape, peers = self.job.layout, self._shape, self.job.peers(Place(dp, 0, 0))
        if layout.ep == 1:
            return [()]
        if peers.skew is not None:  # every layer and step draws anew
            return range(layout.ep)
        blocks = {layer.feed_forward for layer in map(shape.layer, range(shape.n_layers))}
        experts = {evolve(block, layer=0) for block in blocks if isinstance(block, Experts)}
        found: list[list[Hashable]] = [[lengths] for lengths in peers.lengths]
        n_parts = self.job.n_parts(Place(dp, 0, 0))
        parts = [self.job.peers(Place(dp, 0, 0), i, n_parts) for i in range(n_parts)] if n_parts > 1 else []
        steps = range(min(2, self.job.new_tokens))  # the prefill, and any step after it
        for block, rows, step in product(experts, [peers, *parts], steps):
            traffic = block.traffic(rows, step, layout.redundant_experts)
            shares = split_evenly(len(traffic.loads), layout.ep)
            received = traffic.rows.transposed.sent
            for i, share in enumerate(shares):
                found[i].append((traffic.rows.sent[i], received[i], traffic.loads[share.start : share.stop]))
        return [tuple(some) for some in found]


@lru_cache(maxsize=256)
def _alike_shards(shape: DecoderShape, layout: Layout, dtype: DtypeSpec, max_length: int) -> tuple[int, ...]:
    """Return of every tensor-parallel index the first one whose shards are alike."""
    return first_alike([_share(shape, layout, dtype, max_length, tp) for tp in range(layout.tp)])


def _share(shape: DecoderShape, layout: Layout, dtype: DtypeSpec, max_length: int, tp: int) -> Hashable:
    """Return what a tensor-parallel index decides: the shapes of the shards, and which heads go together."""
    shards = tuple(
        (shard.name, shard.shape, shard.dtype)
        for pp in range(layout.pp)
        for cp in range(layout.cp)
        for shard in shape.shards(Place(0, pp, tp, cp=cp), layout, dtype, 1, max_length)
    )
    across = layout.across(Place(0, 0, tp))
    heads = tuple(heads_of(shape.n_heads, shape.n_kv_heads, layout.tp, i % layout.tp) for i in across)
    return tp == 0, tp - across[0], tuple(share.queries for share in heads), shards


def first_alike(values: Sequence[Hashable]) -> tuple[int, ...]:
    """Return of every value the place of the first one that equals it.

    >>> first_alike("abcab")
    (0, 1, 2, 0, 1)
    """
    places: dict[Hashable, int] = {}
    return tuple(places.setdefault(value, i) for i, value in enumerate(values))
