"""A sweep's points: the table, what figures can show of it, and the Pareto front."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
from bokeh.models import ColumnDataSource, FixedTicker, NumeralTickFormatter, Range1d
from numpy.typing import NDArray

from cluster.report.stored import StoredSweep
from cluster.report.style import add_hover, add_wheel, new_figure
from cluster.sweeps.table import END_COLUMNS, RESULT_COLUMNS, SPEC_COLUMNS

USER, CHIP = "tokens_per_s_per_user", "tokens_per_s_per_chip"
CHOSEN = "#d6409f"
LEFT_OUT = ("timeline_sha256", "fingerprint", "error_kind")
FIRST = ("point", "system", "model")
FOLLOWING = ("n_chips_used", "n_chips")
DEGREES = ("tp", "pp", "dp", "ep", "cp")
MAIN = ("tpot_s", "ttft_s", "tokens_per_s", USER, CHIP)


def points_data(sweep: StoredSweep) -> dict[str, Any]:
    """Return the columns that differ between points or are results, and which column is what.

    axes: numbers that a figure can have along its x axis, each with the columns that are the same along a line.
    """
    table = sweep.table
    keys = [name for name in table.column_names if name not in {*RESULT_COLUMNS, *END_COLUMNS, "point"}]
    varied = [name for name in keys if len(set(table[name].to_pylist())) > 1]
    results = [name for name in table.column_names if name in RESULT_COLUMNS and name not in LEFT_OUT]
    results += [name for name in _more(table) if name not in results]
    columns = {name: table[name].to_pylist() for name in dict.fromkeys(["point", *keys, *results, "status", "error"])}
    independent = _independent(table, varied)
    return {
        "name": sweep.name,
        "columns": columns,
        "fingerprint": table["fingerprint"].to_pylist(),
        "axes": _axes(table, varied, independent),
        "varied": sorted(varied, key=lambda name: name not in SPEC_COLUMNS),
        "results": [name for name in results if _is_number(table[name]) and table[name].null_count < len(table)],
        "shown": _shown(varied, table),
        "front": pareto_front(_floats(table, USER), _floats(table, CHIP)).tolist(),
    }  # fmt: skip


def _independent(table: pa.Table, varied: list[str]) -> list[str]:
    """Return the columns that tell points apart: of several with the same values the first, without what follows."""
    seen: list[list[Any]] = []
    found = []
    for name in sorted(varied, key=lambda name: name in SPEC_COLUMNS):
        values = table[name].to_pylist()
        composed = any(isinstance(value, str) and value[:1] in ("{", "[") for value in values)
        if name not in FOLLOWING and not composed and values not in seen:
            found.append(name)
            seen.append(values)
    return found


def _axes(table: pa.Table, varied: list[str], independent: list[str]) -> dict[str, list[str]]:
    """Return the columns that stay the same along a line over each axis.

    Over the number of chips layouts differ, and a line goes through the best.
    """
    axes: dict[str, list[str]] = {}
    for name in [*(n for n in FOLLOWING if n in varied), *independent]:
        if _is_number(table[name]):
            moves = DEGREES if name in FOLLOWING else ()
            axes[name] = [n for n in independent if n != name and n.removeprefix("parallel.") not in moves]
    return axes


def _more(table: pa.Table) -> list[str]:
    """Return columns after the axes that this version knows no more of than that they are numbers."""
    known = {*SPEC_COLUMNS, *RESULT_COLUMNS, *END_COLUMNS}
    first = min((table.column_names.index(name) for name in RESULT_COLUMNS if name in table.column_names), default=0)
    return [name for name in table.column_names[first:] if name not in known]


def _shown(varied: list[str], table: pa.Table) -> list[str]:
    """Return the columns of the table at first: what differs, once where two columns say the same, and main results."""
    seen: list[list[Any]] = []
    distinct = []
    for name in sorted(varied, key=lambda name: (name not in ("system", "model"), name in SPEC_COLUMNS)):
        values = table[name].to_pylist()
        if values not in seen and name != "n_chips":
            seen.append(values)
            distinct.append(name)
    return ["point", *distinct, *(name for name in MAIN if name in table.column_names), "status"]


def _is_number(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_integer(column.type) or pa.types.is_floating(column.type))


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.array(table[name].to_pylist(), np.float64)  # None becomes NaN
    return values


def pareto_front(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the points that no other beats in both, by rising x; of equal ones the first. NaN is never on it.

    >>> pareto_front(np.array([1.0, 2.0, 3.0, 2.0]), np.array([5.0, 4.0, 1.0, 3.0])).tolist()
    [0, 1, 2]
    """
    known = np.flatnonzero(~np.isnan(x) & ~np.isnan(y))
    order = known[np.lexsort((known, -y[known], -x[known]))]
    best = np.maximum.accumulate(np.concatenate([[-np.inf], y[order]]))[: len(order)]
    front: NDArray[np.int64] = order[y[order] > best][::-1]
    return front


def packed_specs(sweep: StoredSweep) -> dict[str, Any]:
    """Return the specs by fingerprint, without the origins of their figures: a sweep's page would be too large."""
    return {key: _without_origins(json.loads(text)) for key, text in sweep.specs.items()}


def _without_origins(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_origins(v) for k, v in value.items() if k not in ("provenance", "class")}
    return [_without_origins(item) for item in value] if isinstance(value, list) else value


def points_figure(name: str, *, front: bool) -> Any:
    """Return a figure of points, empty: the script fills it as the reader chooses."""
    p = new_figure(name, 430, tools="pan,box_zoom,reset,save,tap", x_axis_type="log", y_axis_type="log",
                   x_range=Range1d(1, 10), y_range=Range1d(1, 10))  # fmt: skip
    add_wheel(p)
    lines = ColumnDataSource({"xs": [], "ys": [], "color": []}, name=f"{name}-lines")
    dots = ColumnDataSource(
        {k: [] for k in ("x", "y", "color", "alpha", "row", "says", "group", "xsays", "ysays")}, name=f"{name}-dots"
    )
    p.multi_line("xs", "ys", source=lines, line_color="color", line_width=2 if front else 1.5, line_alpha=0.8,
                 line_dash="solid" if not front else [6, 4])  # fmt: skip
    marks = p.scatter("x", "y", source=dots, size=9, fill_color="color", line_color="color", fill_alpha="alpha",
                      nonselection_fill_alpha="alpha", nonselection_line_alpha=1,
                      selection_fill_color=CHOSEN, selection_line_color=CHOSEN, selection_fill_alpha=1)  # fmt: skip
    add_hover(p, [marks], [("point", "@row"), ("", "@says"), ("x", "@xsays"), ("y", "@ysays")])
    for axis, grid in ((p.xaxis, p.xgrid), (p.yaxis, p.ygrid)):
        axis.ticker = grid.ticker = FixedTicker(ticks=[])  # the script finds ticks, also of less than a decade
    p.xaxis.formatter = p.yaxis.formatter = NumeralTickFormatter(format="0,0.[000000]")
    return p
