"""Where the time went: by layer of the model and by operation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from bokeh.models import ColumnDataSource, NumeralTickFormatter

from cluster.report.stored import StoredRun
from cluster.report.style import BOUNDS, OTHERS, SERIES, add_hover, new_figure, plain, seconds, time_unit, whole
from cluster.timeline.accounts import OperationTime, by_name

MOST_SERIES = 8
MOST_BARS = 14


def operations_of(run: StoredRun) -> list[OperationTime]:
    """Return the accounts of the run."""
    return [OperationTime(**row) for row in run.result["operations"]]


def by_operation(run: StoredRun) -> list[OperationTime]:
    """Return the accounts over all layers, the longest first, without those that took no time."""
    return [row for row in by_name(operations_of(run)) if row.total_s > 0]


def parts(run: StoredRun) -> list[dict[str, Any]]:
    """Return what the time of a chip goes to, on average; the shares add up to one."""
    b, total_s = run.result["breakdown"], run.result["time"]["total_s"]
    rows = (
        ("compute-bound kernels", b["compute_s"], "#2f7ed8"),
        ("memory-bound kernels", b["memory_s"], "#12a594"),
        ("exposed communication", b["exposed_communication_s"], "#e8833a"),
        ("idle: waiting for other chips", b["idle_s"], "#98a2ad"),
    )
    return [
        {"name": name, "time": seconds(value), "share": value / total_s if total_s else 0.0, "color": color}
        for name, value, color in rows
    ]


def layers_figure(run: StoredRun) -> tuple[Any, list[tuple[str, str]]]:
    """Return bars of the layers, and which colour is which operation; (None, []) if no operation is in a layer."""
    rows = [row for row in operations_of(run) if row.layer is not None and row.bound != "beside" and row.total_s > 0]
    if not rows:
        return None, []
    sums: dict[str, float] = defaultdict(float)
    for row in rows:
        sums[row.name] += row.total_s
    main = sorted(sums, key=lambda name: (-sums[name], name))[:MOST_SERIES]
    layers = sorted({row.layer for row in rows if row.layer is not None})
    table: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        assert row.layer is not None
        table[row.name if row.name in main else "others"][row.layer] += row.total_s
    series = [*main, *(["others"] if "others" in table else [])]
    most_s = max(sum(table[name][layer] for name in series) for layer in layers)
    unit, size = time_unit(round(most_s * 1e12))
    colors = dict(zip(series, [*SERIES[: len(main)], OTHERS], strict=False))
    p = new_figure("layers", 320, x_axis_label="layer of the model", y_axis_label=f"mean over the chips ({unit})")
    base = dict.fromkeys(layers, 0.0)
    for name in series:
        top = {layer: base[layer] + table[name][layer] * 1e12 / size for layer in layers}
        source = ColumnDataSource(
            {"layer": layers, "bottom": list(base.values()), "top": list(top.values()),
             "takes": [seconds(table[name][layer]) for layer in layers], "operation": [plain(name)] * len(layers)}
        )  # fmt: skip
        bars = p.vbar("layer", 0.8, "top", "bottom", source=source, color=colors[name], line_color=None)
        add_hover(p, [bars], [("layer", "@layer"), ("operation", "@operation"), ("takes", "@takes")])
        base = top
    _bare(p)
    return p, list(colors.items())


def operations_figure(run: StoredRun) -> Any:
    """Return bars of the operations that took the most time."""
    rows = by_operation(run)[:MOST_BARS][::-1]
    if not rows:
        return None
    total_s = run.result["time"]["total_s"]
    unit, size = time_unit(round(rows[-1].total_s * 1e12))
    names = [_label(row) for row in rows]
    p = new_figure("operations", 26 * len(rows) + 90, y_range=names,
                   x_axis_label=f"time, mean over the chips ({unit})")  # fmt: skip
    source = ColumnDataSource({
        "operation": names, "time": [row.total_s * 1e12 / size for row in rows],
        "color": [BOUNDS[row.bound][1] for row in rows], "bound": [BOUNDS[row.bound][0] for row in rows],
        "share": [_share(row.total_s / total_s) for row in rows], "takes": [seconds(row.total_s) for row in rows],
        "count": [f"{row.count:,}" for row in rows],
    })  # fmt: skip
    bars = p.hbar("operation", 0.72, "time", source=source, color="color", line_color=None)
    add_hover(p, [bars], [("operation", "@operation"), ("", "@bound"), ("takes", "@takes"), ("of the run", "@share"),
                          ("times, all chips", "@count")])  # fmt: skip
    p.text("time", "operation", "share", source=source, x_offset=6, text_baseline="middle", text_font_size="11px",
           tags=["ink"])  # fmt: skip
    p.ygrid.grid_line_color = None
    p.x_range = whole(0, rows[-1].total_s * 1e12 / size * 1.35)  # room for a share, also on a phone
    p.xaxis.formatter = NumeralTickFormatter(format="0,0.[000]")
    return p


def _share(share: float) -> str:
    """Print a share.

    >>> _share(0.125), _share(0.00001)
    ('12.50%', '< 0.01%')
    """
    return "< 0.01%" if share < 0.0001 else f"{share:.2%}"


def _label(row: OperationTime) -> str:
    return plain(row.name) + (" (beside)" if row.bound == "beside" else "")


def _bare(p: Any) -> None:
    p.xgrid.grid_line_color = None
    p.y_range.start = 0
    p.yaxis.formatter = NumeralTickFormatter(format="0,0.[000]")


def operations_table(run: StoredRun) -> list[Mapping[str, Any]]:
    """Return the rows of the table of operations."""
    total_s = run.result["time"]["total_s"]
    return [
        {"name": row.name, "bound": BOUNDS[row.bound], "count": row.count, "total_s": row.total_s,
         "time": seconds(row.total_s), "share": row.total_s / total_s if total_s else 0.0}
        for row in by_operation(run)
    ]  # fmt: skip
