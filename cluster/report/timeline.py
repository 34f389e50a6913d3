"""The timeline: a row for every chip's program and for what goes on beside it; the page's script draws what is seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from attrs import frozen
from bokeh.layouts import column
from bokeh.models import (
    BoxAnnotation,
    ColumnDataSource,
    FixedTicker,
    NumeralTickFormatter,
    RangeTool,
    Span,
)  # fmt: skip
from numpy.typing import NDArray

from cluster.report.stored import StoredRun
from cluster.report.style import KINDS, add_hover, add_wheel, new_figure, time_unit, whole
from cluster.timeline.intervals import lanes

MOST_OPERATIONS = 600_000
"""In a page; with more, only every second chip is shown, or every third …"""
MOST_ROWS = 400
N_WINDOWS = 400
"""Of the overview."""


@frozen(eq=False)
class Row:
    """A line of the timeline: places of its operations in the table, in the order of time, none overlapping."""

    chip: int
    label: str
    places: NDArray[np.int64]


def timeline_data(run: StoredRun) -> dict[str, Any]:
    """Return rows and operations for the script: times as gaps and durations in ps, row after row."""
    rows, left_out = _rows(run.operations)
    places = np.concatenate([np.zeros(0, np.int64), *(row.places for row in rows)])
    start, end = _column(run.operations, "start_ps")[places], _column(run.operations, "end_ps")[places]
    first = np.cumsum([0, *(len(row.places) for row in rows)])[:-1]
    before = np.concatenate([[0], end[:-1]])[: len(end)]
    before[first[first < len(end)]] = 0
    names, name = _dictionary(run.operations, "operation")
    kinds, kind = _dictionary(run.operations, "kind")
    layer = run.operations["layer"].fill_null(-1).to_numpy()
    return {
        "total_ps": run.total_ps,
        "unit": time_unit(run.total_ps),
        "rows": [{"label": row.label, "chip": row.chip, "n": len(row.places)} for row in rows],
        "left_out": left_out,
        "names": names,
        "kinds": [{"name": k, "says": KINDS[k][0], "color": KINDS[k][1]} for k in kinds],
        "gap": (start - before).tolist(),
        "length": (end - start).tolist(),
        "name": name[places].tolist(),
        "kind": kind[places].tolist(),
        "layer": layer[places].tolist(),
    }


def _rows(operations: pa.Table) -> tuple[list[Row], str]:
    """Return the rows of all chips, or of every n-th where they are too many, and what is left out."""
    chip, (_, engine) = _column(operations, "chip"), _dictionary(operations, "engine")
    start, end = _column(operations, "start_ps"), _column(operations, "end_ps")
    chips = np.unique(chip)
    every = max(-(-len(chips) // MOST_ROWS), -(-len(chip) // MOST_OPERATIONS), 1)
    rows = []
    for number in chips[::every].tolist():
        own = np.flatnonzero(chip == number)
        beside = own[engine[own] == 1]
        rows.append(Row(number, f"chip {number}", own[engine[own] == 0]))
        rows += [
            Row(number, f"beside {i + 1}" if i else "beside", beside[lane])
            for i, lane in enumerate(lanes(start[beside], end[beside]))
        ]
    return rows, "" if every == 1 else f"{len(chips[::every])} of {len(chips)} chips are shown, evenly chosen"


def timeline_figure(data: dict[str, Any], overview: dict[str, NDArray[np.float64]], ttft_s: float) -> Any:
    """Return the figure, empty: the script fills its source with what is in sight; below it, the whole run."""
    name, size = data["unit"]
    total, n_rows = data["total_ps"] / size, len(data["rows"])
    source = ColumnDataSource(
        {k: [] for k in ("left", "right", "top", "bottom", "color", "row", "operation", "layer", "start", "length")},
        name="timeline-source",
    )
    p = new_figure("timeline", int(np.clip(16 * n_rows, 90, 620)) + 80, tools="xpan,xbox_zoom,reset,save",
                   x_range=whole(0, total), y_range=whole(n_rows, 0),
                   x_axis_label=f"simulated time ({name})")  # fmt: skip
    add_wheel(p, "width")
    quads = p.quad("left", "right", "top", "bottom", source=source, color="color", line_color=None)
    add_hover(p, [quads], [("operation", "@operation"), ("where", "@row"), ("layer", "@layer"), ("start", "@start"),
                           ("takes", "@length")])  # fmt: skip
    step = max(-(-n_rows * 11 // (p.height - 80)), 1)
    shown = range(0, n_rows, step)
    p.yaxis.ticker = FixedTicker(ticks=[row + 0.5 for row in shown])
    p.yaxis.major_label_overrides = {row + 0.5: data["rows"][row]["label"] for row in shown}
    p.yaxis.major_tick_line_color = p.ygrid.grid_line_color = None
    p.xaxis.formatter = NumeralTickFormatter(format="0,0.[00000]")
    p.add_layout(Span(location=ttft_s * 1e12 / size, dimension="height", line_dash="dotted", line_color="#c0504d",
                      line_width=1.5))  # fmt: skip
    return column(p, _overview(p, overview, total, name), sizing_mode="stretch_width")


def _overview(p: Any, shares: dict[str, NDArray[np.float64]], total: float, unit: str) -> Any:
    small = new_figure("overview", 92, tools="", x_range=whole(0, total), y_range=whole(0, 1),
                       x_axis_label=f"whole run ({unit}); drag the window")  # fmt: skip
    small.toolbar_location = None
    edges = np.linspace(0, total, N_WINDOWS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    base = np.zeros(N_WINDOWS)
    for kind, (_, color) in KINDS.items():
        if kind in shares:
            small.varea(x=middle, y1=base, y2=base + shares[kind], color=color)
            base = base + shares[kind]
    small.yaxis.visible = False
    small.ygrid.grid_line_color = None
    small.xaxis.formatter = NumeralTickFormatter(format="0,0.[00]")
    tool = RangeTool(x_range=p.x_range, overlay=BoxAnnotation(
        fill_color="#2f7ed8", fill_alpha=0.06, line_color="#2f7ed8", line_width=1, editable=True))  # fmt: skip
    small.add_tools(tool)
    return small


def shares_over_time(run: StoredRun) -> dict[str, NDArray[np.float64]]:
    """Return which share of the chips' time goes to every kind of operation of their programs, [window]."""
    kinds, kind = _dictionary(run.operations, "kind")
    _, engine = _dictionary(run.operations, "engine")
    start, end = _column(run.operations, "start_ps"), _column(run.operations, "end_ps")
    edges = np.linspace(0, max(run.total_ps, 1), N_WINDOWS + 1)
    n_chips = max(len(np.unique(_column(run.operations, "chip"))), 1)
    shares = {}
    for i, name in enumerate(kinds):
        own = (kind == i) & (engine == 0)
        spent = np.diff(_passed(start[own], edges) - _passed(end[own], edges))
        shares[name] = np.maximum(spent, 0) / np.diff(edges) / n_chips
    return shares


def _passed(times: NDArray[np.int64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Σ max(edge - time, 0) over the times, for every edge."""
    ordered = np.sort(times).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    n = np.searchsorted(ordered, edges)
    passed: NDArray[np.float64] = n * edges - sums[n]
    return passed


def _column(table: pa.Table, name: str) -> NDArray[np.int64]:
    column: NDArray[np.int64] = table[name].to_numpy()
    return column


def _dictionary(table: pa.Table, name: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return the words of a column and the number of each row's."""
    column = table[name].combine_chunks()
    column = column.dictionary_encode() if not isinstance(column, pa.DictionaryArray) else column
    return column.dictionary.to_pylist(), column.indices.to_numpy()
