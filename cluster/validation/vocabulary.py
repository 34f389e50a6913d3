"""The words of a validation: works, cases, and rows that are skipped."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal, Protocol

from attrs import frozen

from cluster.validation.rows import Row


class Work(Protocol):
    """Something to simulate, as plain values: equal works run once, in any process."""

    @property
    def place(self) -> Hashable:
        """Works of one place share what takes long to build: they run one after the other in one process."""

    def run(self) -> Mapping[str, Any]:
        """Return what is found, by name (of cases: simulated quantities); raises ChipmeshError where it cannot be."""


@frozen
class Case:
    """A row with the work that predicts it: `quantity` of the work's result stands against `measured`.

    system, operation, size_class: the groups in which errors are reported. size: where the row lies within them
    (bytes of a collective, rows of a batch), for pictures and neighbourhoods.
    """

    row: Row
    work: Work
    kind: Literal["collective", "decode"]
    quantity: str
    measured: float
    system: str
    operation: str
    size_class: str
    size: float


@frozen
class Skipped:
    """A row that is not predicted; `reason` is one of few, `detail` is about this row."""

    row: Row
    reason: str
    detail: str = ""
