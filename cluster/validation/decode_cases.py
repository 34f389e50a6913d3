"""Map rows of decoding to experiments."""

from __future__ import annotations

from cluster.validation.rows import DecodeRow
from cluster.validation.vocabulary import Case, Skipped


def decode_case(row: DecodeRow) -> Case | Skipped:
    """Return the experiment that predicts a row, or why there is none."""
    return Skipped(row, "decode rows are not mapped to experiments", row.model)
