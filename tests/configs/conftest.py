"""A vocabulary for tests: what the upper layers would offer, in miniature."""

from __future__ import annotations

from typing import ClassVar

import pytest
from attrs import field, frozen

from configs.fields import Bounds, at_least
from configs.loader import Vocabulary
from configs.spec.topology import LinkSpec


@frozen
class Grid:
    """Stands for line, ring, mesh and torus."""

    routings: ClassVar[tuple[str, ...]] = ("dimension_order", "shortest")

    dims: tuple[int, ...] = field(metadata=at_least(1))
    link: LinkSpec
    axes: tuple[str, ...] = ()
    wrap: bool | tuple[bool, ...] = True

    def __attrs_post_init__(self) -> None:
        """Refuse axes that do not match the dims."""
        if self.axes and len(self.axes) != len(self.dims):
            raise ValueError(f"{len(self.axes)} axes for {len(self.dims)} dims; accepted: a name for each")


@frozen
class Switch:
    """Stands for switch planes."""

    routings: ClassVar[tuple[str, ...]] = ("dimension_order", "shortest")

    chips: int = field(metadata=at_least(1))
    planes: tuple[int, ...] = field(metadata=at_least(1))
    link: LinkSpec
    in_network: bool = False


@frozen
class Shape:
    """The shape of a Llama."""

    n_layers: int = field(metadata=at_least(1))
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


VOCABULARY = Vocabulary(
    topology_kinds={"mesh": Grid, "torus": Grid, "line": Grid, "ring": Grid, "switch": Switch},
    model_families={"llama": Shape},
    algorithms={"all_reduce": {"ring": {"channels": Bounds(1, 32)}, "tree": {}}, "all_gather": {"ring": {}}},
)


@pytest.fixture
def vocabulary() -> Vocabulary:
    """Return the miniature vocabulary."""
    return VOCABULARY
