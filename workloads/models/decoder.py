"""What decoder-only models have in common: a family's shape says its layers, the rest follows from them.

A family is a frozen class over `DecoderShape`: its sizes as files give them, `layer` (blocks put together), and how
other formats call its keys and its tensors. Neutral names of stored matrices, all [out, in]: embedding, positions,
layers.N.* (the blocks say what), norm, head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from math import prod

from attrs import fields, frozen

from configs.errors import ConfigError
from configs.fields import Bounds
from configs.spec.dtype import DtypeSpec
from workloads.chip import Chip, Tensor
from workloads.layout import Layout, Place, split_evenly
from workloads.models.blocks.layer import Layer
from workloads.models.blocks.norm import Norm
from workloads.models.blocks.site import ALONE, Peers, Plan, Site
from workloads.models.decoder_stage import DecoderStage
from workloads.shards import Part, ShardSpec

_EXACT_IDS = 2**24
"""Token ids travel beside their logits as float32, which holds integers exactly up to here."""
_POSITIVE = Bounds(0, open_low=True)
_MOST = 10_000
"""Far above any model: a damaged file's count is refused before anything is made for each layer or expert."""


@frozen(kw_only=True)
class DecoderShape(ABC):
    """The sizes that every decoder has; `max_context` is in tokens."""

    n_layers: int
    hidden: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    max_context: int
    tied_embeddings: bool

    def __attrs_post_init__(self) -> None:
        """Refuse sizes that make no model."""
        sizes = {f.name: getattr(self, f.name) for f in fields(type(self))}
        bounds = {f.name: f.metadata.get("bounds", _POSITIVE) for f in fields(type(self))}
        problems = [
            f"{name}: {value!r}" + (" must be positive" if bounds[name] == _POSITIVE else f"; accepted: {bounds[name]}")
            for name, value in sizes.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and not bounds[name].admit(value)
        ]
        if not problems and self.n_heads % self.n_kv_heads:
            problems.append(f"n_heads: {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        if sizes.get("experts_per_token", 1) > sizes.get("n_experts", 1):
            most = f"at most n_experts, {sizes['n_experts']}"
            problems.append(f"experts_per_token: {sizes['experts_per_token']}; accepted: {most}")
        if sizes.get("rope_theta", 2) <= 1:
            problems.append(f"rope_theta: {sizes['rope_theta']} must be above 1")
        if self.head_dim % 2:
            problems.append(f"head_dim: {self.head_dim} is odd; rotary positions turn pairs")
        for name, limit in (("vocab", _EXACT_IDS), ("n_layers", _MOST), ("n_experts", _MOST)):
            if sizes.get(name, 0) > limit:
                problems.append(f"{name}: {sizes[name]} is above {limit}")
        if problems:
            raise ConfigError(tuple(problems))

    # --- what a family says --------------------------------------------------------------------------------------

    @abstractmethod
    def layer(self, index: int) -> Layer:
        """Return the blocks of layer `index`."""

    @abstractmethod
    def norm(self) -> Norm:
        """Return the norm before the head."""

    @property
    def embedding_scale(self) -> float:
        """What embeddings are multiplied by."""
        return 1.0

    @property
    def n_positions(self) -> int:
        """Learned positions that are added to the embeddings; 0 for none."""
        return 0

    @property
    def logit_softcap(self) -> float | None:
        """The bound of the logits; None for none."""
        return None

    # --- what follows --------------------------------------------------------------------------------------------

    def problems(self, layout: Layout) -> tuple[str, ...]:
        """Return what forbids this layout: more ranks than there is something to share.

        Ranks beyond the attention heads share the rest; a stage beyond the layers holds only the head.
        """
        axes = "tp" if layout.cp == 1 else "tp × cp"
        limits = (
            (axes, layout.width, self.ffn, f"{self.ffn} ffn rows"),
            (axes, layout.width, self.vocab, f"{self.vocab} vocabulary entries"),
            ("pp", layout.pp, self.n_layers + 1, f"{self.n_layers} layers and its head"),
        )
        found = [
            f"parallel.{axis}: {degree} is above the model's {what}; at most {limit}"
            for axis, degree, limit, what in limits
            if degree > limit
        ]
        has_experts = hasattr(self, "n_experts")
        if not has_experts and (layout.ep > 1 or layout.redundant_experts):
            found.append("parallel.ep, experts.redundant: the model has no experts; accepted: ep 1 and redundant 0")
        return (*found, *self._grid_problems(layout))

    def _grid_problems(self, layout: Layout) -> Iterator[str]:
        """Yield what forbids matrices that are cut along both sides."""
        if layout.tp_grid is None:
            if layout.tp_attention != "heads":
                yield f"parallel.tp_attention: {layout.tp_attention} needs parallel.tp_grid; accepted without it: heads"
            return
        key = f"parallel.tp_grid: {list(layout.tp_grid)}"
        if prod(layout.tp_grid) != layout.tp:
            accepted = f"two numbers whose product is parallel.tp {layout.tp}"
            yield f"{key} are {prod(layout.tp_grid)} ranks; accepted: {accepted}"
        if layout.cp > 1 or layout.ep > 1 or layout.sequence:
            yield f"{key} goes with pp and dp; accepted: cp 1, ep 1 and sequence false"
        if layout.tp > self.hidden:
            yield f"{key} are above the model's hidden size {self.hidden}; at most {self.hidden}"
        layers = map(self.layer, range(self.n_layers))
        if not all(layer.attention.on_grid and layer.feed_forward.on_grid for layer in layers):
            yield f"{key}: mixtures of experts and latent attention are not cut along both sides; accepted: no tp_grid"

    def remarks(self, layout: Layout) -> tuple[str, ...]:
        """Return what is odd about a layout that works."""
        found = []
        if layout.tp > self.n_heads:
            found.append(f"parallel.tp: {layout.tp - self.n_heads} of {layout.tp} ranks have no attention head")
        if layout.pp > self.n_layers:
            found.append("parallel.pp: the last stage has no layer, only the head")
        return tuple(found)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every stored matrix, by neutral name."""
        found: dict[str, tuple[int, ...]] = {"embedding": (self.vocab, self.hidden)}
        if self.n_positions:
            found["positions"] = (self.n_positions, self.hidden)
        for i in range(self.n_layers):
            found |= {f"layers.{i}.{name}": shape for name, shape in self.layer(i).tensors().items()}
        head = {} if self.tied_embeddings else {"head": (self.vocab, self.hidden)}
        return found | self.norm().tensors("norm") | head

    def shards(
        self, place: Place, layout: Layout, dtype: DtypeSpec, n_rows: int, max_length: int
    ) -> tuple[ShardSpec, ...]:
        """Return what the rank at `place` keeps: its share of the layers, embedding, head and KV cache."""
        plan = Plan(place, layout, dtype, n_rows, max_length)
        first, last = place.pp == 0, place.pp == layout.pp - 1
        own, cols = layout.part(self.vocab, place), plan.hidden(self.hidden)
        table = (len(own), len(cols))
        shards: list[ShardSpec] = []
        if first:
            shards.append(plan.of_head.weights("embedding", table, Part("embedding", own, cols)))
        if first and self.n_positions:
            share = layout.own_hidden(self.hidden, place)
            part = Part("positions", None, share)
            shards.append(plan.weights("positions", (self.n_positions, len(share)), part))
        for i in split_evenly(self.n_layers, layout.pp)[place.pp]:
            shards += self.layer(i).shards(plan.under(f"layers.{i}."))
        if last:
            shards += self.norm().shards("norm", plan)
        if last and not (first and self.tied_embeddings):
            name = "embedding" if self.tied_embeddings else "head"
            shards.append(plan.of_head.weights("head", table, Part(name, own, cols)))
        return tuple(shards)

    def stage(
        self, chip: Chip, layout: Layout, dtype: DtypeSpec, memory: Mapping[str, Tensor], peers: Peers = ALONE
    ) -> DecoderStage:
        """Return this rank's stage, on the tensors that `shards` listed."""
        site = Site(chip, layout.place(chip.rank), layout, dtype, memory, peers)
        return DecoderStage(self, site)

    @property
    def n_parameters(self) -> int:
        """How many numbers the model's matrices hold."""
        return sum(prod(shape) for shape in self.tensors().values())

    def kv_bytes_per_token(self, dtype: str = "bf16") -> int:
        """Return the bytes of KV cache that one more token of a sequence takes, over all layers: no window is full."""
        shards = self.shards(Place(0, 0, 0), Layout(), DtypeSpec(kv=dtype), 1, 1)
        return sum(shard.size_bytes for shard in shards if shard.role == "kv")
