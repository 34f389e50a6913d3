"""Errors on rows that the constants were not fitted on: sources, models and engines are left out in turn.

For each value of a column, the constants are fitted on all other rows of the families' chips, and the rows of this
value are predicted with them. What no other row asks for (the host's time of an engine, say) stays usual.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cluster.backends.processes import Lost, n_cores, run_in_processes
from cluster.validation.cases import case_of
from cluster.validation.decode_fit import Measured, Rows, fitted
from cluster.validation.decode_makeup import Makeup, makeups
from cluster.validation.decode_work import DecodeWork
from cluster.validation.figures import ROUND
from cluster.validation.kernel_cases import KernelWork
from cluster.validation.predictions import OnProgress
from cluster.validation.rows import DecodeRow
from cluster.validation.vocabulary import Case
from configs.errors import ChipmeshError, RunError

FAMILIES: Mapping[str, str] = {
    "NVIDIA Hopper and Blackwell": "nvidia-(hopper|blackwell)",
    "NVIDIA A100": "nvidia-ampere",
    "AMD MI300X": "amd-cdna3",
    "Tenstorrent Wormhole": "tt-wormhole",
}
"""Families of chips by the profiles of their kernels."""
TOGETHER = 48
"""Works that a process takes apart at a time."""
LEAST = 5
"""Rows that a value must have to be left out."""
Task = tuple[tuple[str, DecodeWork | KernelWork, str], ...]


def source_of(row: DecodeRow) -> str:
    """Return the repository or site of a row's source, and the page there, without version and date.

    >>> from cluster.validation.rows import DecodeRow
    >>> blank = (None,) * 15
    >>> source_of(DecodeRow("a", *blank, source="https://github.com/tenstorrent/tt-metal README.md @00065be (May)"))
    'github.com/tenstorrent/tt-metal README.md'
    """
    text = re.split(r"\s*[@(]", row.source.removeprefix("https://"))[0]
    return text.strip()


def site_of(row: DecodeRow) -> str:
    """Return the repository or site of a row's source: the first word."""
    return source_of(row).partition(" ")[0]


BY: Mapping[str, Callable[[DecodeRow], str]] = {
    "source": source_of,
    "model": lambda row: row.model,
    "engine": lambda row: (re.match(r"[A-Za-z-]*", row.software) or [""])[0].lower(),
}
"""What is left out in turn."""


@frozen
class Known:
    """A row with what its prediction is the sum of."""

    row: DecodeRow
    measured: Measured


def taken_apart(rows: Sequence[DecodeRow], on_progress: OnProgress = lambda _done, _of: None) -> list[Known]:
    """Return what can be predicted of these rows, taken apart in a few processes."""
    cases = {row.id: case for row in rows if isinstance(case := case_of(row), Case)}
    asked = [case for case in cases.values() if isinstance(case.work, DecodeWork | KernelWork)]
    asked = sorted(asked, key=lambda case: repr(case.work.place))
    tasks: list[Task] = [
        tuple((case.row.id, case.work, case.quantity) for case in asked[i : i + TOGETHER])  # type: ignore[misc]
        for i in range(0, len(asked), TOGETHER)
    ]
    parts: dict[str, tuple[str, str, tuple[Makeup, ...]]] = {}
    for done, (_, found) in enumerate(run_in_processes(take_apart, tasks, min(n_cores(), len(tasks))), 1):
        if isinstance(found, Lost):
            raise RunError(f"rows cannot be taken apart: {found.reason}")
        parts.update(found)
        on_progress(done, len(tasks))
    return [Known(row, Measured(*parts[row.id], cases[row.id].measured)) for row in rows if row.id in parts]


def take_apart(task: Task) -> dict[str, tuple[str, str, tuple[Makeup, ...]]]:
    """Return what works are the sum of, by the row's id, without those that cannot be simulated."""
    found = {}
    for row_id, work, quantity in task:
        try:
            found[row_id] = makeups(work, quantity)
        except ChipmeshError:
            continue
    return found


def held_out(known: Sequence[Known]) -> dict[str, Any]:
    """Return the errors on what is left out, by family and for all together, and what every profile rests on.

    families: by column the errors where all rows are fitted, those on what is left out, and the worst value's.
    all: on the sources left out of all families. profiles: how many rows and sources ask for kernels or software.
    """
    families: dict[str, Any] = {}
    every: list[NDArray[np.float64]] = []
    for family, pattern in FAMILIES.items():
        mine = [one for one in known if re.match(pattern, one.measured.kernels)]
        if not mine:
            continue
        rows = Rows([one.measured for one in mine])
        whole = fitted(rows)
        families[family] = {
            "kernels": sorted({one.measured.kernels for one in mine}),
            "fitted": _figures(np.abs(np.expm1(rows.errors(whole)))),
        }
        for by, key in BY.items():
            errors = _left_out(rows, whole, np.array([key(one.row) for one in mine]))
            families[family][by] = _shown(errors)
            every += list(errors.values()) if by == "source" else []
    return {"families": families, "all": _figures(np.concatenate([np.zeros(0), *every])), "profiles": _profiles(known)}


def _profiles(known: Sequence[Known]) -> dict[str, dict[str, int]]:
    sources: dict[str, list[str]] = defaultdict(list)
    for one in known:
        for profile in {one.measured.kernels, one.measured.software} - {"ideal"}:
            sources[profile].append(site_of(one.row))
    return {name: {"rows": len(found), "sources": len(set(found))} for name, found in sorted(sources.items())}


def _left_out(rows: Rows, whole: NDArray[np.float64], values: NDArray[np.str_]) -> dict[str, NDArray[np.float64]]:
    """Return the errors on the rows of each value, by constants of all other rows."""
    names, counts = np.unique(values, return_counts=True)
    found = {}
    for name in names[(counts >= LEAST) & (counts < len(values))].tolist():
        out = values == name
        logs = fitted(rows, np.where(out, 0.0, 1.0), whole)
        found[name] = np.abs(np.expm1(rows.errors(logs)[out]))
    return found


def _shown(errors: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    worst = max(errors, key=lambda value: float(np.median(errors[value])), default=None)
    found: dict[str, Any] = {
        "values": len(errors), "held_out": _figures(np.concatenate([np.zeros(0), *errors.values()])),
    }  # fmt: skip
    return found if worst is None else {**found, "worst": worst, "worst_figures": _figures(errors[worst])}


def _figures(errors: NDArray[np.float64]) -> dict[str, float | int]:
    median, p90 = np.quantile(errors, (0.5, 0.9)) if len(errors) else (0.0, 0.0)
    return {"n": len(errors), "median": round(float(median), ROUND), "p90": round(float(p90), ROUND)}
