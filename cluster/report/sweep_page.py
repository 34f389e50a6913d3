"""What the page of a sweep shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cluster.report.points import CHIP, MAIN, USER, packed_specs, points_data, points_figure
from cluster.report.run_page import Page
from cluster.report.stored import StoredSweep
from cluster.report.style import seconds


def sweep_page(sweep: StoredSweep) -> Page:
    """Return the page of a sweep."""
    data = points_data(sweep)
    figures = {"pareto": points_figure("pareto", front=True), "scaling": points_figure("scaling", front=False)}
    columns = data["columns"]
    n_done = sum(status == "done" for status in columns["status"])
    words = {
        "title": f"sweep {sweep.name}",
        "subtitle": _subtitle(columns),
        "facts": _facts(data, n_done),
        "axes": list(data["axes"]),
        "groups": [name for name in data["shown"] if name in data["varied"]],
        "results": data["results"],
        "chosen_result": next((name for name in (MAIN[2], *data["results"]) if name in data["results"]), ""),
        "n_points": len(columns["point"]),
        "n_failed": len(columns["point"]) - n_done,
    }
    return Page(figures, {"points": data}, words, packed_specs(sweep))


def _subtitle(columns: Mapping[str, list[Any]]) -> str:
    parts = []
    for name in ("system", "model"):
        found = list(dict.fromkeys(value for value in columns[name] if value is not None))
        parts.append(", ".join(found) if len(found) <= 4 else f"{len(found)} {name}s")
    return " · ".join(part for part in parts if part)


def _facts(data: Mapping[str, Any], n_done: int) -> list[dict[str, str]]:
    columns = data["columns"]
    n_points = len(columns["point"])
    facts = [{"name": "points", "value": f"{n_done:,}", "says": f"{n_points - n_done:,} failed" if n_done < n_points
              else "none failed"}]  # fmt: skip
    best = (("tokens/s/user", USER, np.nanargmax), ("tokens/s/chip", CHIP, np.nanargmax),
            ("TTFT", "ttft_s", np.nanargmin), ("TPOT", "tpot_s", np.nanargmin))  # fmt: skip
    for name, column, choose in best:
        values = np.array(columns[column], np.float64)
        if np.isnan(values).all():
            continue
        i = int(choose(values))
        value = seconds(values[i]) if column.endswith("_s") and name in ("TTFT", "TPOT") else f"{values[i]:,.1f}"
        facts.append({"name": f"best {name}", "value": value, "says": f"point {columns['point'][i]}"})
    return [
        *facts,
        {"name": "Pareto front", "value": str(len(data["front"])), "says": "points that none beats in both"},
    ]
