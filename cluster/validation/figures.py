"""The errors over the catalogue's measured figures, as they are kept in a file (`cluster.uncertainty`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.validation.errors import Errors, Validation

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
    for kind, section in found.items():
        skipped = sum(kind_of(s.row) == kind for s in validation.skipped)
        section["skipped"] = skipped
    return found


def kind_of(row: object) -> str:
    """Return which kind of row it is: collective or decode."""
    return type(row).__name__.removesuffix("Row").lower()


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
