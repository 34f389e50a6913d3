"""What all figures have in common: colours, sizes, tools; the page's script adds the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bokeh.models import HoverTool, Range1d, Toolbar, WheelZoomTool
from bokeh.plotting import figure

from configs.units import format_time_ps

KINDS: Mapping[str, tuple[str, str]] = {
    "compute": ("kernel bound by arithmetic", "#2f7ed8"),
    "memory": ("kernel bound by memory", "#12a594"),
    "collective": ("collective", "#e8833a"),
    "send": ("send", "#d6409f"),
    "receive": ("receive: waiting for another chip", "#98a2ad66"),
    "wait": ("wait for what was started", "#b9a55a"),
    "pause": ("stopped", "#b03030"),
}
"""Kinds of operations in `operations.parquet`: what the legend says, and the colour, readable on light and dark."""
BOUNDS: Mapping[str, tuple[str, str]] = {
    "compute": ("bound by arithmetic", "#2f7ed8"),
    "memory": ("bound by memory", "#12a594"),
    "communication": ("communication, waiting included", "#e8833a"),
    "beside": ("started, beside the program", "#8a63d2"),
    "pause": ("stopped", "#b03030"),
}
SERIES = ("#2f7ed8", "#e8833a", "#12a594", "#d6409f", "#8a63d2", "#b9a55a", "#c0504d", "#5b9aa0", "#7f7f7f")
OTHERS = "#98a2ad"


def plain(text: object) -> str:
    r"""Return text that a figure draws letter by letter: between double dollars it would be read as mathematics.

    >>> plain("$$x$$")
    '$\u200b$x$\u200b$'
    """
    return str(text).replace("$$", "$\u200b$")


def new_figure(name: str, height: int, *, tools: str = "pan,box_zoom,reset,save", **options: Any) -> figure:
    """Return an empty figure as wide as the page, known to the page's script by its name."""
    p = figure(name=name, height=height, sizing_mode="stretch_width", tools=tools, toolbar_location="above",
               background_fill_color=None, border_fill_color=None, outline_line_color=None, min_border_right=12,
               lod_threshold=None, **options)  # fmt: skip
    toolbar: Toolbar = p.toolbar
    toolbar.logo = None
    p.xgrid.grid_line_alpha = p.ygrid.grid_line_alpha = 0.35
    p.axis.axis_label_text_font_style = "normal"
    p.axis.minor_tick_line_color = None
    return p


def add_wheel(p: figure, dimensions: Any = "both") -> None:
    """Let Ctrl and the wheel zoom; the wheel alone scrolls the page."""
    wheel = WheelZoomTool(dimensions=dimensions, modifiers="ctrl")
    p.add_tools(wheel)
    p.toolbar.active_scroll = wheel


def add_hover(p: figure, renderers: list[Any], tooltips: list[tuple[str, str]], **options: Any) -> None:
    """Say on hover what a mark is."""
    p.add_tools(HoverTool(renderers=renderers, tooltips=tooltips, **options))


def time_unit(total_ps: int) -> tuple[str, int]:
    """Return the unit in which a time is a number from 1 to 1000, and its picoseconds.

    >>> time_unit(12_600_000_000), time_unit(0)
    (('ms', 1000000000), ('ps', 1))
    """
    units = (("s", 10**12), ("ms", 10**9), ("us", 10**6), ("ns", 10**3), ("ps", 1))
    return next(((name, size) for name, size in units if total_ps >= size), units[-1])


def whole(low: float, high: float) -> Range1d:
    """Return a range that ends where the data do."""
    return Range1d(low, high, bounds=(min(low, high), max(low, high)))


def seconds(value: float | None) -> str:
    """Print a simulated time."""
    return "–" if value is None else format_time_ps(value * 1e12)
