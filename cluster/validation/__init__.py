"""Predicted against measured: measured rows become cases, cases are simulated, their errors reported.

CSV ─► rows ─► cases (or why not) ─► predictions ─► errors
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.validation.cases import case_of
from cluster.validation.errors import Errors, Validation
from cluster.validation.predictions import OnProgress, Prediction, predictions
from cluster.validation.rows import Row, read_rows
from cluster.validation.vocabulary import Case, Skipped

__all__ = ["Case", "Errors", "Prediction", "Row", "Skipped", "Validation", "read_rows", "validate", "validate_rows"]


def _silent(_done: int, _of: int) -> None:
    """Show no progress."""


def validate(
    paths: Sequence[Path] = (), *, n_workers: int | None = None, on_progress: OnProgress = _silent
) -> Validation:
    """Predict the rows of measured figures in these files (without any: the catalogue's); raises ConfigError."""
    return validate_rows(read_rows(paths), n_workers=n_workers, on_progress=on_progress)


def validate_rows(
    rows: Sequence[Row], *, n_workers: int | None = None, on_progress: OnProgress = _silent
) -> Validation:
    """Predict rows; what cannot be predicted is skipped, with the reason."""
    found = [case_of(row) for row in rows]
    cases = [case for case in found if isinstance(case, Case)]
    outcomes = list(predictions(cases, n_workers, on_progress))
    skipped = [case for case in found if isinstance(case, Skipped)]
    skipped += [outcome for outcome in outcomes if isinstance(outcome, Skipped)]
    return Validation(tuple(o for o in outcomes if isinstance(o, Prediction)), tuple(skipped))
