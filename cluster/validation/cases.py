"""What a measured row becomes: a case that can be simulated, or the reason why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cluster.validation.collective_cases import collective_case
from cluster.validation.decode_cases import decode_case
from cluster.validation.rows import CollectiveRow, DecodeRow, Row
from cluster.validation.vocabulary import Case, Skipped

CASES: Mapping[type[Row], Callable[[Any], Case | Skipped]] = {
    CollectiveRow: collective_case,
    DecodeRow: decode_case,
}
"""By kind of row, what makes a case of it; only the columns decide."""


def case_of(row: Row) -> Case | Skipped:
    """Return the case of a row."""
    return CASES[type(row)](row)
