"""What a measured row becomes: a case that can be simulated, or the reason why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cluster.validation.collective_cases import collective_case
from cluster.validation.decode_cases import decode_case
from cluster.validation.exchange_cases import METRICS, MOE, moe_case, operation_case
from cluster.validation.rows import CollectiveRow, DecodeRow, Row
from cluster.validation.vocabulary import Case, Skipped


def _of_collective(row: CollectiveRow) -> Case | Skipped:
    return moe_case(row) if row.collective in MOE else collective_case(row)


def _of_decode(row: DecodeRow) -> Case | Skipped:
    return operation_case(row) if row.metric in METRICS else decode_case(row)


CASES: Mapping[type[Row], Callable[[Any], Case | Skipped]] = {
    CollectiveRow: _of_collective,
    DecodeRow: _of_decode,
}
"""By kind of row, what makes a case of it; only the columns decide."""


def case_of(row: Row) -> Case | Skipped:
    """Return the case of a row."""
    return CASES[type(row)](row)
