"""The topology with its links' utilisation: over the whole run, or in a window of time that the reader chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, DataRange1d, FixedTicker, NumeralTickFormatter, Span
from numpy.typing import NDArray

from cluster.report.stored import StoredRun
from cluster.report.style import add_hover, add_wheel, new_figure, plain, time_unit, whole
from configs.units import format_bandwidth

MOST_ROWS = 32
"""Links of the picture over time: the busiest."""
MOST_OVER_TIME = 400_000
"""Links times windows in a page; the busiest links come first."""
CURVE = np.linspace(0, 1, 9)


def links_data(run: StoredRun) -> dict[str, Any]:
    """Return every edge's use per window, in 1/10000 of its capacity: of its busier direction, and of both.

    Windows are numbers of `edges_ps`; an edge's list is empty where it was not used, or is not among the busiest.
    """
    edges_ps = _edges_ps(run)
    n = len(edges_ps) - 1
    use, total = _use(run, edges_ps), run.utilisation
    kept = set(sorted(use, key=lambda name: (-total[name], name))[: max(MOST_OVER_TIME // max(n, 1), MOST_ROWS)])
    edges = run.picture["edges"]

    def series(names: list[str]) -> list[list[int]]:
        return [_parts(use[name]) if name in use and name in kept else [] for name in names]

    return {
        "edges_ps": edges_ps.tolist(),
        "there": series(edges["link"]),
        "back": series(edges["back"]),
        "whole_there": [_part(total.get(name)) for name in edges["link"]],
        "whole_back": [_part(total.get(name)) for name in edges["back"]],
        "unit": time_unit(run.total_ps),
    }


def _parts(values: NDArray[np.float64]) -> list[int]:
    parts: list[int] = np.round(values * 10_000).astype(int).tolist()
    return parts


def _part(value: float | None) -> int:
    return 0 if value is None else max(round(value * 10_000), 1 if value > 0 else 0)


def _edges_ps(run: StoredRun) -> NDArray[np.int64]:
    """Return where the windows of the loads begin and end."""
    start, end = (run.loads[name].to_numpy() for name in ("start_ps", "end_ps"))
    width = int((end - start).max(initial=0)) or max(run.total_ps, 1)
    return np.append(np.arange(0, run.total_ps, width), run.total_ps).astype(np.int64)


def _use(run: StoredRun, edges_ps: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return the utilisation of every used link in every window."""
    column = run.loads["link"].combine_chunks()
    window = np.searchsorted(edges_ps, run.loads["start_ps"].to_numpy())
    table = np.zeros((len(column.dictionary), max(len(edges_ps) - 1, 1)))
    table[column.indices.to_numpy(), window] = run.loads["utilisation"].to_numpy()
    return dict(zip(column.dictionary.to_pylist(), table, strict=True))


def topology_figure(run: StoredRun) -> Any:
    """Return the picture of the topology; the script colours its links."""
    nodes, edges = run.picture["nodes"], run.picture["edges"]
    places = np.array(nodes["place"], np.float64).reshape(-1, 2)
    low, high = places.min(axis=0), places.max(axis=0)
    span = np.maximum(high - low, run.picture["chip_size"] * 2)
    height = int(np.clip(1000 * span[1] / span[0], 240, 560))
    p = new_figure("topology", height, tools="pan,box_zoom,reset,save", match_aspect=True,
                   x_range=DataRange1d(range_padding=0.08),
                   y_range=DataRange1d(range_padding=0.08, flipped=True))  # fmt: skip
    add_wheel(p)
    p.axis.visible = False
    p.xgrid.grid_line_color = p.ygrid.grid_line_color = None
    p.tags = [{"shape": float(span[1] / span[0]), "most": height}]
    lines = [_line(pieces) for pieces in edges["pieces"]]
    bandwidth = np.array(edges["bandwidth_bytes_per_s"], np.float64)
    widest = float(np.clip(2.5 * len(places) / max(len(lines), 1), 0.3, 1.0)) * 5
    names = [f"{plain(a)}" for a in edges["link"]]
    source = ColumnDataSource(
        {
            "xs": [line[0] for line in lines], "ys": [line[1] for line in lines],
            "edge": [name.replace("→", " – ") for name in names],
            "width": np.maximum(widest * np.sqrt(bandwidth / bandwidth.max(initial=1.0)), 0.6),
            "color": ["#98a2ad"] * len(lines),
            "bandwidth": [f"{n} × links, {format_bandwidth(rate)} per direction in all" if n > 1 else
                          f"{format_bandwidth(rate)} per direction"
                          for n, rate in zip(edges["count"], edges["bandwidth_bytes_per_s"], strict=True)],
            "there": [""] * len(lines), "back": [""] * len(lines),
        },
        name="topology-source",
    )  # fmt: skip
    drawn = p.multi_line("xs", "ys", source=source, line_color="color", line_width="width")
    add_hover(p, [drawn], [("link", "@edge"), ("bandwidth", "@bandwidth"), ("there", "@there"), ("back", "@back")],
              line_policy="interp")  # fmt: skip
    _draw_nodes(p, run, places, float(span[0] * 1.2))
    return p


def _draw_nodes(p: Any, run: StoredRun, places: NDArray[np.float64], width: float) -> None:
    """Draw squares for chips and diamonds for switches, with their numbers where there is room."""
    n_chips, size = run.picture["n_chips"], run.picture["chip_size"]
    names = [plain(name) for name in run.picture["nodes"]["name"]]
    source = ColumnDataSource({
        "x": places[:, 0], "y": places[:, 1], "name": names,
        "w": [size * (1 if i < n_chips else 1.7) for i in range(len(names))],
        "h": [size * (1 if i < n_chips else 0.7) for i in range(len(names))],
        "color": ["#5b7ea6" if i < n_chips else "#b08a3e" for i in range(len(names))],
        "label": [name.removeprefix("chip").replace("switch", "s") for name in names],
    })  # fmt: skip
    squares = p.rect("x", "y", "w", "h", source=source, fill_color="color", line_color=None, border_radius=3)
    add_hover(p, [squares], [("", "@name")])
    apart = 1000 * size / 0.46 / width  # pixels from chip to chip where the picture is a thousand wide
    if apart > 18:
        p.text("x", "y", "label", source=source, text_align="center", text_baseline="middle",
               text_font_size="11px" if apart > 60 else "8px", text_color="#ffffff")  # fmt: skip


def _line(pieces: list[list[list[float]]]) -> tuple[list[float], list[float]]:
    """Return the points of an edge; NaN lifts the pen between its pieces."""
    xs: list[float] = []
    ys: list[float] = []
    for piece in pieces:
        points = np.array(piece)
        if len(points) == 4:
            t = CURVE[:, None]
            a, b, c, d = points
            points = a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t**2 * (1 - t) + d * t**3
        xs += [*([float("nan")] if xs else []), *np.round(points[:, 0], 1).tolist()]
        ys += [*([float("nan")] if ys else []), *np.round(points[:, 1], 1).tolist()]
    return xs, ys


def busiest_figure(run: StoredRun) -> Any:
    """Return the busiest links over time: a row for each, darker where it is busier; None if nothing is known."""
    edges_ps = _edges_ps(run)
    use = _use(run, edges_ps)
    if not use:
        return None
    names = sorted(use, key=lambda name: (-run.utilisation[name], name))[:MOST_ROWS]
    unit, size = time_unit(run.total_ps)
    table = np.stack([use[name] for name in names])
    row, window = np.nonzero(table)
    values = table[row, window]
    p = new_figure("busiest", 16 * len(names) + 90, tools="xpan,xbox_zoom,reset,save,tap",
                   x_range=whole(0, run.total_ps / size), y_range=whole(len(names), 0),
                   x_axis_label=f"simulated time ({unit})")  # fmt: skip
    add_wheel(p, "width")
    source = ColumnDataSource(
        {
            "left": edges_ps[window] / size, "right": edges_ps[window + 1] / size, "top": row + 0.06,
            "bottom": row + 0.94, "window": window, "link": [plain(names[i]) for i in row],
            "alpha": 0.12 + 0.88 * np.sqrt(values / values.max()), "use": [f"{value:.2%}" for value in values],
        },
        name="busiest-source",
    )  # fmt: skip
    quads = p.quad("left", "right", "top", "bottom", source=source, fill_color="#e8833a", fill_alpha="alpha",
                   line_color=None, nonselection_fill_alpha="alpha", selection_line_color=None)  # fmt: skip
    add_hover(p, [quads], [("link", "@link"), ("used", "@use"), ("from", f"@left {unit}"), ("to", f"@right {unit}")])
    p.yaxis.ticker = FixedTicker(ticks=[i + 0.5 for i in range(len(names))])
    p.yaxis.major_label_overrides = {i + 0.5: plain(name) for i, name in enumerate(names)}
    p.yaxis.major_label_text_font_size = "10px"
    p.yaxis.major_tick_line_color = p.ygrid.grid_line_color = None
    p.xaxis.formatter = NumeralTickFormatter(format="0,0.[000]")
    p.add_layout(Span(name="cursor", dimension="height", line_color="#2f7ed8", line_width=2, visible=False))
    return p
