"""Errors of predictions: group by group, in the words of `chipmesh validate --json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from cluster.validation.predictions import Prediction
from cluster.validation.vocabulary import Skipped

SCHEMA = "chipmesh.validate.v1"


@frozen
class Errors:
    """The errors of some predictions: relative, without sign; ratio: the median of predicted by measured."""

    n: int
    median: float
    p90: float
    ratio: float
    worst: Prediction

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> Errors:
        """Return the errors of at least one prediction."""
        errors = np.array([p.error for p in predictions])
        ratio = float(np.median([p.ratio for p in predictions]))
        return cls(
            len(errors), float(np.median(errors)), float(np.quantile(errors, 0.9)), ratio,
            predictions[int(errors.argmax())],
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return the errors as fractions, and the worst row."""
        worst = self.worst
        return {
            "n": self.n,
            "median_abs_error": self.median,
            "p90_abs_error": self.p90,
            "median_ratio": self.ratio,
            "worst": {
                "id": worst.case.row.id, "measured": worst.case.measured, "predicted": worst.predicted,
                "abs_error": worst.error,
            },
        }  # fmt: skip


Key = Callable[[Prediction], str]
BY: dict[str, Key] = {
    "kind": lambda p: p.case.kind,
    "system": lambda p: p.case.system,
    "operation": lambda p: p.case.operation,
    "size_class": lambda p: p.case.size_class,
}
"""What predictions are grouped by."""


@frozen
class Validation:
    """All predictions, and the rows that have none."""

    predictions: tuple[Prediction, ...]
    skipped: tuple[Skipped, ...]

    def grouped(self, *names: str) -> dict[tuple[str, ...], Errors]:
        """Return the errors of all predictions that are alike in these respects (`BY`), in order."""
        groups: dict[tuple[str, ...], list[Prediction]] = {}
        for p in self.predictions:
            groups.setdefault(tuple(BY[name](p) for name in names), []).append(p)
        return {key: Errors.of(groups[key]) for key in sorted(groups)}

    @property
    def reasons(self) -> list[tuple[str, int, Skipped]]:
        """Why rows are skipped: the reason, how many rows, and the first of them; the most frequent first."""
        counts = Counter(s.reason for s in self.skipped)
        first = {s.reason: s for s in reversed(self.skipped)}
        return [(reason, n, first[reason]) for reason, n in counts.most_common()]

    def to_json(self) -> dict[str, Any]:
        """Return the document of `chipmesh validate --json`; errors are fractions, None without a prediction."""
        whole = Errors.of(self.predictions) if self.predictions else None
        return {
            "schema": SCHEMA,
            "n": len(self.predictions),
            "skipped": len(self.skipped),
            "median_abs_error": whole.median if whole else None,
            "p90_abs_error": whole.p90 if whole else None,
            "groups": list(_documents(self.grouped(*BY), tuple(BY))),
            "kinds": list(_documents(self.grouped("kind"), ("kind",))),
            "systems": list(_documents(self.grouped("kind", "system"), ("kind", "system"))),
            "sizes": list(_documents(self.grouped("kind", "size_class"), ("kind", "size_class"))),
            "reasons": [{"reason": why, "n": n, "first": s.row.id, "detail": s.detail} for why, n, s in self.reasons],
        }


def _documents(groups: dict[tuple[str, ...], Errors], names: Iterable[str]) -> Iterable[dict[str, Any]]:
    names = tuple(names)
    return ({**dict(zip(names, key, strict=True)), **errors.to_json()} for key, errors in groups.items())
