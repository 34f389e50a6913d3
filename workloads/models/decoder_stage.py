"""The forward pass of one rank of a decoder, as SPMD code over a chip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workloads.array import Array
from workloads.elementwise import AddPositions, SoftCap
from workloads.kernels import Embedding, TakeRows
from workloads.layout import split_evenly
from workloads.models.blocks.grid import GridJoint, Inside, consecutive
from workloads.models.blocks.joint import Joint
from workloads.models.blocks.site import Site
from workloads.sampling import Draw

if TYPE_CHECKING:
    from workloads.models.decoder import DecoderShape

TAKE_ROWS = TakeRows()
ADD_POSITIONS = AddPositions()


class DecoderStage:
    """A rank's layers, embedding and head; implements `workloads.models.family.Stage`."""

    def __init__(self, shape: DecoderShape, site: Site) -> None:
        self._chip, self._activations = site.chip, site.carrier
        self._joint = Joint.of(site) if site.layout.tp_grid is None else GridJoint.on_grid(site, shape.hidden)
        self._vocab, self._ids = shape.vocab, site.share(shape.vocab)
        ids = site.layout.shares(shape.vocab, site.place)
        self._embedding = Embedding(ids[0].start, shape.embedding_scale)
        self._inside = Inside.of(site, consecutive([[len(own)] for own in ids]))
        self._softcap = None if shape.logit_softcap is None else SoftCap(shape.logit_softcap)
        self._numbers = split_evenly(shape.n_layers, site.layout.pp)[site.place.pp]
        self._layers = tuple(shape.layer(i).start(site.under(f"layers.{i}."), self._joint) for i in self._numbers)
        self._head_matmul = site.of_head.matmul("head_matmul")
        self._norm = shape.norm().start("norm", site)
        self._table = site.memory.get("embedding")
        self._head = site.memory.get("head", self._table)
        self._positions = site.memory.get("positions")

    async def embed(self, ids: Array, starts: tuple[int, ...]) -> Array:
        """Return the hidden states [n, hidden] of token ids [n]: every rank looks up its own ids."""
        x = self._chip.apply(self._embedding, ids, self._table, dtype=self._activations)
        if self._positions is None:
            return await self._joint.total(x)
        x = await self._joint.tokens(await self._joint.total(x), ids.shape[0])
        return self._joint.own(self._chip.apply(ADD_POSITIONS, x, self._positions, starts=starts))

    async def layers(self, x: Array, starts: tuple[int, ...], n: int) -> Array:
        """Return the hidden states of n tokens after this stage's layers."""
        for number, layer in zip(self._numbers, self._layers, strict=True):
            self._chip.layer = number
            x = await layer(x, starts, n)
        self._chip.layer = None
        return x

    async def logits(self, x: Array, rows: tuple[int, ...], n: int) -> Array:
        """Return own logits [k, own vocabulary] of k of the n tokens of `x`, float32 from the accumulator."""
        x = await self._joint.tokens(x, n)
        if len(rows) < n:
            x = self._chip.apply(TAKE_ROWS, x, rows=rows)
        x = await self._joint.features(await self._norm(x))
        logits = self._chip.apply(self._head_matmul, x, self._head, keep_fp32=True)
        if self._inside is not None:
            logits = await self._inside.enter(logits)
        return logits if self._softcap is None else self._chip.apply(self._softcap, logits)

    async def pick(self, logits: Array, draw: Draw) -> Array:
        """Return the ids [k] that are chosen: each rank's candidates, gathered and merged on every rank alike."""
        n_ranks = len(self._joint)
        best = self._chip.apply(draw.local(self._ids), logits, **draw.params(self._vocab, n_ranks))
        if self._joint.group and best.shape[0]:
            best = await self._chip.all_gather(best, self._joint.group)
        return self._chip.apply(draw.merge(self._vocab), best, n_ranks=n_ranks)
