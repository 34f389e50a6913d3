"""The roofline of every sort of chip, with every kernel on it, once for each memory tier that it moves bytes of.

    attained flops/s = flops / duration        intensity = flops / bytes of the tier

(Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009; one mark per tier as in the hierarchical roofline of Yang,
Kurth, Williams, 2020.) Operations are those of the chip: padded to its tile. Launch times count as duration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from attrs import frozen
from bokeh.models import ColumnDataSource

from cluster.report.origins import walk
from cluster.report.stored import StoredRun
from cluster.report.style import SERIES, add_hover, add_wheel, new_figure, plain, seconds
from configs.dtypes import DTYPES
from configs.units import format_bandwidth, format_size

MOST_MARKS = 4_000
"""Of a chip: the kernels that took the most time."""
TIERS = SERIES[1:]


@frozen(eq=False)
class Roofline:
    """The figure of a chip; its tiers with their colours; kernels without arithmetic, and what is left out."""

    chip: str
    figure: Any
    legend: list[tuple[str, str]]
    moves: list[Mapping[str, str]]
    left_out: str


def rooflines(run: StoredRun) -> list[Roofline]:
    """Return one roofline for every sort of chip that ran kernels."""
    rows = run.kernels.to_pylist()
    specs = {node["name"]: node for _, node in walk(run.spec) if node.get("class") == "ChipSpec"}
    names = list(dict.fromkeys(row["chip_name"] for row in rows))
    return [
        _roofline(i, specs[name], [row for row in rows if row["chip_name"] == name]) for i, name in enumerate(names)
    ]


def _roofline(index: int, chip: Mapping[str, Any], rows: list[dict[str, Any]]) -> Roofline:
    n_instant = sum(not row["duration_ps"] for row in rows)
    rows = sorted((row for row in rows if row["duration_ps"]), key=lambda row: -row["duration_ps"] * row["count"])
    counting = [row for row in rows if row["flops"]]
    marks = list(_marks(chip, counting[:MOST_MARKS]))
    p = None
    if marks:
        p = new_figure(f"roofline{index}", 440, x_axis_type="log", y_axis_type="log",
                       x_axis_label="intensity: flops per byte of the tier",
                       y_axis_label="attained flops/s")  # fmt: skip
        add_wheel(p)
        _draw_roofs(p, chip, marks, {_rate(chip, row["dtype"]) for row in counting})
        _draw_marks(p, marks)
    legend = [(_tier_says(tier), TIERS[i % len(TIERS)]) for i, tier in enumerate(chip["memory"])]
    rest = len(counting) - MOST_MARKS
    return Roofline(
        chip["name"], p, legend, [_move(row) for row in rows if not row["flops"]],
        "; ".join([*([f"left out: {rest} kernels that took less time"] if rest > 0 else []),
                   *([f"left out: {n_instant} that take no time of their own"] if n_instant else [])]),
    )  # fmt: skip


def _tier_says(tier: Mapping[str, Any]) -> str:
    rate = tier["bandwidth_bytes_per_s"]
    says = f"bytes of {tier['name']}"
    return f"{says}: bandwidth unknown, not charged" if rate is None else f"{says}, {format_bandwidth(rate)}"


def _rate(chip: Mapping[str, Any], dtype: str) -> str:
    """Return the peak that operations of a dtype run at (cluster.cost)."""
    rates = DTYPES[dtype].rates if dtype in DTYPES else (dtype,)
    return next((rate for rate in rates if rate in chip["peak_flops"]), "")


def _marks(chip: Mapping[str, Any], rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    longest = max((row["duration_ps"] * row["count"] for row in rows), default=1)
    for row in rows:
        attained = row["flops"] / (row["duration_ps"] * 1e-12)
        for i, (tier, moved) in enumerate(zip(chip["memory"], row["moved_bytes"], strict=False)):
            if moved:
                peak = chip["peak_flops"].get(_rate(chip, row["dtype"]), 0)
                total = row["duration_ps"] * row["count"]
                yield {
                    "x": row["flops"] / moved, "y": attained, "size": 5 + 17 * (total / longest) ** 0.5,
                    "color": TIERS[i % len(TIERS)], "tier": plain(tier["name"]), "kernel": plain(row["name"]),
                    "flops": f"{row['flops']:.4g} ({row['dtype']})", "bytes": format_size(moved),
                    "takes": seconds(row["duration_ps"] * 1e-12), "count": f"{row['count']:,}",
                    "bound": row["bound"], "share": f"{attained / peak:.2%}" if peak else "–",
                    "rate": format_bandwidth(moved / (row["duration_ps"] * 1e-12)),
                }  # fmt: skip


def _draw_marks(p: Any, marks: list[dict[str, Any]]) -> None:
    source = ColumnDataSource({key: [mark[key] for mark in marks] for key in marks[0]}, name=f"{p.name}-source")
    dots = p.scatter("x", "y", size="size", source=source, fill_color="color", fill_alpha=0.55, line_color="color")
    add_hover(p, [dots], [
        ("kernel", "@kernel"), ("work", "@flops flops, @bytes of @tier"), ("takes", "@takes, bound by @bound"),
        ("attained", "@share of the peak, @rate"), ("times, all chips", "@count"),
    ])  # fmt: skip


def _draw_roofs(p: Any, chip: Mapping[str, Any], marks: list[dict[str, Any]], rates: set[str]) -> None:
    """Draw a slope for each tier of known bandwidth and a ceiling for each peak in use."""
    peaks = {name: rate for name, rate in chip["peak_flops"].items() if name in rates}
    top = max([*peaks.values(), *(mark["y"] for mark in marks)])
    slopes = [
        (i, tier, tier["bandwidth_bytes_per_s"] * tier["efficiency"])
        for i, tier in enumerate(chip["memory"]) if tier["bandwidth_bytes_per_s"]
    ]  # fmt: skip
    xs = [mark["x"] for mark in marks] + [top / rate for _, _, rate in slopes]
    low, high = min(xs) / 3, max(xs) * 6
    for i, _, rate in slopes:
        p.line([low, top / rate], [low * rate, top], line_color=TIERS[i % len(TIERS)], line_width=2)
    for peak in peaks.values():
        start = min([peak / rate for _, _, rate in slopes], default=low)
        p.line([max(start, low), high], [peak, peak], line_color=SERIES[0], line_width=2)
    for peak in sorted(set(peaks.values())):
        named = ", ".join(name for name, rate in peaks.items() if rate == peak)
        p.text([high], [peak], [f"{named} {_flops(peak)}"], text_align="right", text_baseline="bottom",
               y_offset=-3, text_font_size="11px", text_color=SERIES[0])  # fmt: skip
    p.x_range.start, p.x_range.end = low, high
    p.y_range.start = min(mark["y"] for mark in marks) / 3
    p.y_range.end = top * 3


def _flops(value: float) -> str:
    exponent = int(np.clip(np.floor(np.log10(max(value, 1)) / 3), 0, 5))
    return f"{value / 1000**exponent:.4g} {('', 'K', 'M', 'G', 'T', 'P')[exponent]}FLOPS"


def _move(row: dict[str, Any]) -> dict[str, str]:
    moved = sum(row["moved_bytes"])
    return {
        "name": row["name"], "bytes": format_size(moved), "takes": seconds(row["duration_ps"] * 1e-12),
        "rate": format_bandwidth(moved / (row["duration_ps"] * 1e-12)), "count": f"{row['count']:,}",
    }  # fmt: skip
