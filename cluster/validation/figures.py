"""The errors over the catalogue's measured figures, as they are kept in a file (`cluster.uncertainty`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.validation.collective_cases import CollectiveWork, profile_of
from cluster.validation.errors import Errors, Validation
from cluster.validation.exchange_cases import METRICS
from cluster.validation.predictions import Prediction
from cluster.validation.rows import DecodeRow

GROUPS: Mapping[str, Sequence[str]] = {"all": (), "sizes": ("size_class",), "systems": ("system",)}
"""What is kept for every kind of row."""
ROUND = 4


def figures_of(validation: Validation) -> dict[str, Any]:
    """Return the errors of every kind of row, as they are kept."""
    found: dict[str, Any] = {}
    for name, by in GROUPS.items():
        for (kind, *rest), errors in validation.grouped("kind", *by).items():
            section = found.setdefault(kind, {})
            if rest:
                section.setdefault(name, {})[rest[0]] = _figures(errors)
            else:
                section[name] = _figures(errors)
    profiles = _by_profile(validation.predictions)
    if profiles:
        found["collective"]["profiles"] = profiles
    for kind, section in found.items():
        skipped = sum(kind_of(s.row) == kind for s in validation.skipped)
        section["skipped"] = skipped
    return found


def kind_of(row: object) -> str:
    """Return which kind of row it is: collective or decode."""
    if isinstance(row, DecodeRow) and row.metric in METRICS:
        return "collective"
    return type(row).__name__.removesuffix("Row").lower()


def _by_profile(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the errors of collectives by communication profile, with the range of the calls."""
    groups: dict[str, list[tuple[Prediction, CollectiveWork]]] = {}
    for p in predictions:
        if isinstance(p.case.work, CollectiveWork):
            groups.setdefault(profile_of(p.case.work.system, p.case.work.overrides), []).append((p, p.case.work))
    found = {}
    for name, pairs in sorted(groups.items()):
        works = [work for _, work in pairs]
        values = {"ranks": "n_ranks", "nodes": "n_domains", "sizes_bytes": "size_bytes"}
        ranges = {key: [f(getattr(w, name) for w in works) for f in (min, max)] for key, name in values.items()}
        sources = len({p.case.row.source for p, _ in pairs})
        found[name] = {**_figures(Errors.of([p for p, _ in pairs])), **ranges, "sources": sources}
    return found


def _figures(errors: Errors) -> dict[str, Any]:
    return {
        "n": errors.n, "median": round(errors.median, ROUND), "p90": round(errors.p90, ROUND),
        "worst": errors.worst.case.row.id, "error": round(errors.worst.error, ROUND),
    }  # fmt: skip


def grown(now: Mapping[str, Any], before: Mapping[str, Any], by: float = 0.01) -> list[str]:
    """Return which errors of all rows and of size classes have grown by more than that."""
    found = []
    for kind in now.keys() & before.keys():
        pairs = [(kind, now[kind]["all"], before[kind]["all"])]
        pairs += [
            (f"{kind} {name}", figures, before[kind]["sizes"][name])
            for name, figures in now[kind]["sizes"].items() if name in before[kind]["sizes"]
        ]  # fmt: skip
        found += [
            f"{name}: {what} {new[what]:.2%}, was {old[what]:.2%}"
            for name, new, old in pairs for what in ("median", "p90") if new[what] > old[what] + by
        ]  # fmt: skip
    return sorted(found)
