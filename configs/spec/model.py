"""A model, and where its weights are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from configs.spec.provenance import Provenance


@frozen
class WeightsSpec:
    """Where a model's weights are: a file, or a file in an installed package (located, never imported)."""

    path: str | None = None
    package: str | None = None
    file: str | None = None
    requirement: str | None = None


@frozen
class ModelSpec:
    """A model: its family, the family's own frozen shape (a class of workloads/models), its weights."""

    name: str
    family: str
    shape: Any
    weights: WeightsSpec | None = None
    provenance: Mapping[str, Provenance] = field(factory=dict, eq=False)
