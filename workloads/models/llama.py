"""The Llama family: RMSNorm, rotary positions, grouped-query attention, SwiGLU; its shape and its shards.

Neutral names of the stored matrices, all [out, in]: embedding, layers.N.{attention_norm, q, k, v, o,
ffn_norm, gate, up, down}, norm, head. Rows 2j and 2j+1 of a head in q and k are one rotated pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from attrs import fields, frozen

from configs.errors import ConfigError
from configs.spec import DtypeSpec
from workloads.chip import Chip, Tensor
from workloads.layout import Layout, Place, split_evenly
from workloads.models.llama_stage import LlamaStage
from workloads.shards import Part, ShardSpec

_EXACT_IDS = 2**24
"""Token ids travel beside their logits as float32, which holds integers exactly up to here."""
_MAX_LAYERS = 10_000
"""Far above any model: a damaged file's count is refused before anything is made for each layer."""


@frozen
class LlamaShape:
    """The sizes of a Llama model; `max_context` is in tokens."""

    n_layers: int
    hidden: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    rope_theta: float
    rms_eps: float
    tied_embeddings: bool
    max_context: int

    def __attrs_post_init__(self) -> None:
        """Refuse sizes that make no model."""
        problems = [
            f"{f.name}: {value!r} must be positive"
            for f in fields(LlamaShape)
            if not (value := getattr(self, f.name)) > 0 and f.name != "tied_embeddings"
        ]
        if not problems and self.n_heads % self.n_kv_heads:
            problems.append(f"n_heads: {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}")
        if self.head_dim % 2:
            problems.append(f"head_dim: {self.head_dim} is odd; rotary positions turn pairs")
        for name, limit in (("vocab", _EXACT_IDS), ("n_layers", _MAX_LAYERS)):
            if getattr(self, name) > limit:
                problems.append(f"{name}: {getattr(self, name)} is above {limit}")
        if problems:
            raise ConfigError(tuple(problems))

    def problems(self, layout: Layout) -> tuple[str, ...]:
        """Return what forbids this layout: more ranks than there is something to share."""
        limits = (
            ("tp", layout.tp, self.n_heads, "attention heads"),
            ("tp", layout.tp, self.ffn, "ffn rows"),
            ("tp", layout.tp, self.vocab, "vocabulary entries"),
            ("pp", layout.pp, self.n_layers, "layers"),
        )
        return tuple(
            f"parallel.{axis}: {degree} is above the model's {limit} {what}; at most {limit}"
            for axis, degree, limit, what in limits
            if degree > limit
        )

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every stored matrix, by neutral name."""
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        layer = {
            "attention_norm": (self.hidden,),
            "q": (q, self.hidden),
            "k": (kv, self.hidden),
            "v": (kv, self.hidden),
            "o": (self.hidden, q),
            "ffn_norm": (self.hidden,),
            "gate": (self.ffn, self.hidden),
            "up": (self.ffn, self.hidden),
            "down": (self.hidden, self.ffn),
        }
        layers = {f"layers.{i}.{name}": shape for i in range(self.n_layers) for name, shape in layer.items()}
        head = {} if self.tied_embeddings else {"head": (self.vocab, self.hidden)}
        return {"embedding": (self.vocab, self.hidden), **layers, "norm": (self.hidden,), **head}

    def shards(
        self, place: Place, layout: Layout, dtype: DtypeSpec, n_rows: int, max_length: int
    ) -> tuple[ShardSpec, ...]:
        """Return what the rank at `place` keeps: its share of the layers, embedding, head and KV cache."""
        first, last = place.pp == 0, place.pp == layout.pp - 1
        share = _share(self, place.tp, layout.tp)
        table = (len(share.vocab), self.hidden)
        shards = [
            shard
            for i in split_evenly(self.n_layers, layout.pp)[place.pp]
            for shard in _layer_shards(self, share, f"layers.{i}.", dtype, (n_rows, max_length))
        ]
        if first:
            shards.insert(0, ShardSpec("embedding", table, dtype.weights, (Part("embedding", share.vocab),)))
        if last:
            shards.append(ShardSpec("norm", (self.hidden,), dtype.weights, (Part("norm"),)))
        if last and not (first and self.tied_embeddings):
            head = "embedding" if self.tied_embeddings else "head"
            shards.append(ShardSpec("head", table, dtype.weights, (Part(head, share.vocab),)))
        return tuple(shards)

    def stage(self, chip: Chip, layout: Layout, dtype: DtypeSpec, memory: Mapping[str, Tensor]) -> LlamaStage:
        """Return this rank's stage, on the tensors that `shards` listed."""
        place = layout.place(chip.rank)
        share = _share(self, place.tp, layout.tp)
        return LlamaStage(
            chip,
            self,
            queries=share.queries,
            first_id=share.vocab.start,
            layers=split_evenly(self.n_layers, layout.pp)[place.pp],
            tp_group=layout.tp_group(chip.rank),
            activations=dtype.activations,
            memory=memory,
        )


@frozen
class _Share:
    """What one tensor-parallel rank holds: query heads, KV heads that these need, ffn rows, token ids.

    `queries` counts the own query heads of each own KV head.
    """

    heads: range
    kv_heads: range
    queries: tuple[int, ...]
    ffn: range
    vocab: range


@lru_cache(maxsize=1024)
def _share(shape: LlamaShape, index: int, tp: int) -> _Share:
    """Return the share of rank `index` of `tp`; every rank with a query head holds its KV head."""
    heads = split_evenly(shape.n_heads, tp)[index]
    group = shape.n_heads // shape.n_kv_heads
    kv_heads = range(heads.start // group, (heads.stop - 1) // group + 1)
    return _Share(
        heads,
        kv_heads,
        tuple(len([head for head in heads if head // group == kv]) for kv in kv_heads),
        split_evenly(shape.ffn, tp)[index],
        split_evenly(shape.vocab, tp)[index],
    )


def _layer_shards(
    shape: LlamaShape, share: _Share, layer: str, dtype: DtypeSpec, cache: tuple[int, int]
) -> tuple[ShardSpec, ...]:
    """Return one layer's shards, in the order they are used; `cache` is (rows, max length)."""
    dim, hidden, weights = shape.head_dim, shape.hidden, dtype.weights
    q, kv = (range(r.start * dim, r.stop * dim) for r in (share.heads, share.kv_heads))
    ffn = share.ffn
    n_rows, max_length = cache
    kv_shape = (n_rows, len(share.kv_heads), max_length, dim)

    def stored(name: str, shape: tuple[int, ...], *parts: Part) -> ShardSpec:
        return ShardSpec(layer + name, shape, weights, parts)

    def part(name: str, rows: range | None = None, cols: range | None = None) -> Part:
        return Part(layer + name, rows, cols)

    return (
        stored("attention_norm", (hidden,), part("attention_norm")),
        stored("qkv", (len(q) + 2 * len(kv), hidden), part("q", q), part("k", kv), part("v", kv)),
        ShardSpec(layer + "k_cache", kv_shape, dtype.kv),
        ShardSpec(layer + "v_cache", kv_shape, dtype.kv),
        stored("o", (hidden, len(q)), part("o", None, q)),
        stored("ffn_norm", (hidden,), part("ffn_norm")),
        stored("gate_up", (2 * len(ffn), hidden), part("gate", ffn), part("up", ffn)),
        stored("down", (hidden, len(ffn)), part("down", None, ffn)),
    )
