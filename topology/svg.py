"""Draw a topology as SVG: links as wide as their bandwidth, coloured by their utilisation where a run gives it.

The picture needs nothing beside itself, follows the reader's light or dark theme, and stays small: beyond
`MOST_EDGES` and `MOST_NODES` it says what it leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray

from configs.units import format_bandwidth
from topology.curves import MARGIN, Canvas, canvas_of, edge_paths
from topology.graph import Topology
from topology.layout import Layout, lay_out

MOST_EDGES = 60_000
MOST_NODES = 60_000
MOST_TITLES = 1_500  # edges that say on hover what they are
MOST_NUMBERS = 512  # chips with their number
LEGEND_LINES = 5
RAMP = ((0.0, (59, 130, 246)), (0.5, (245, 158, 11)), (1.0, (220, 38, 38)))  # blue, amber, red
STYLE = """
 svg { font-family: system-ui, sans-serif; }
 .back { fill: #ffffff; } .text { fill: #1f2328; } .soft { fill: #59636e; }
 .chip { fill: #dbe7f5; stroke: #3b5f8a; } .switch { fill: #f3e3c3; stroke: #8a6a2f; }
 .number { fill: #16324f; text-anchor: middle; }
 .link { stroke: #7d8b99; fill: none; } .unused { stroke: #b4bcc5; fill: none; } .hot { fill: none; }
 @media (prefers-color-scheme: dark) {
  .back { fill: #0d1117; } .text { fill: #e6edf3; } .soft { fill: #9198a1; }
  .chip { fill: #1d3450; stroke: #7fb0e6; } .switch { fill: #43351a; stroke: #d9b36a; }
  .number { fill: #d6e6f8; } .link { stroke: #8896a5; } .unused { stroke: #414b57; }
 }
"""


def draw(topology: Topology, name: str, utilisation: Mapping[str, float] | None = None) -> str:
    """Return the picture; `utilisation` gives the share of its bandwidth that a link (`chip0→chip1`) has used."""
    layout = lay_out(topology)
    canvas = canvas_of(topology, layout)
    use = None if utilisation is None else _edge_use(topology, utilisation)
    legend, notes = _legend(topology, use, _widest(topology, canvas)), _left_out(topology)
    lines = edge_paths(topology, layout, canvas) if len(topology.link_src) // 2 <= MOST_EDGES else []
    if any("l" in line for line in lines):
        notes.append("short ends: edges round an axis, from its last chip to its first")
    width = max(canvas.width, 460)
    height = canvas.height + 22 * (len(legend) + len(notes)) + 16
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
        f"<style>{STYLE}</style>",
        '<rect class="back" width="100%" height="100%"/>',
        *_header(topology, name),
        *_links(topology, canvas, lines, use),
        *_nodes(topology, layout, canvas),
    ]
    for k, line in enumerate(legend + [_text(MARGIN, 0, "soft", 13, note) for note in notes]):
        body.append(f'<g transform="translate(0 {canvas.height + 8 + 22 * k:.0f})">{line}</g>')
    return "\n".join([*body, "</svg>\n"])


def _text(x: float, y: float, kind: str, size: float, words: str) -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}" font-size="{size:g}">{escape(words)}</text>'


def _header(topology: Topology, name: str) -> list[str]:
    grid = topology.axes != ("chips",)
    shape = " × ".join(f"{axis} {n}" for axis, n in zip(topology.axes, topology.dims, strict=True)) if grid else ""
    switches = f", {topology.n_switches} switches" if topology.n_switches else ""
    words = f"{topology.kind} {shape}".strip() + f": {topology.n_chips} chips{switches}, {topology.n_links} links"
    return [_text(MARGIN, 40, "text", 20, name), _text(MARGIN, 62, "soft", 13, words)]


def _left_out(topology: Topology) -> list[str]:
    """Say what the picture leaves out, and how long edges round a grid are drawn."""
    notes = []
    n_edges = len(topology.link_src) // 2
    if n_edges > MOST_EDGES:
        notes.append(f"left out: all {n_edges:,} edges, more than the {MOST_EDGES:,} that a picture takes")
    if topology.n_nodes > MOST_NODES:
        notes.append(f"left out: {topology.n_nodes - MOST_NODES:,} of {topology.n_nodes:,} chips and switches")
    return notes


def _edge_use(topology: Topology, utilisation: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the busier direction of every edge, NaN where the run says nothing of it."""
    use = [utilisation.get(topology.link_name(link), np.nan) for link in range(len(topology.link_src))]
    pairs = np.array(use, np.float64).reshape(-1, 2)
    return np.where(np.isnan(pairs).all(axis=1), np.nan, np.fmax(pairs[:, 0], pairs[:, 1]))


def _colour(share: float) -> str:
    """Return the ramp's colour at 0 to 1.

    >>> _colour(0.0), _colour(1.0)
    ('#3b82f6', '#dc2626')
    """
    channels = [np.interp(share, [at for at, _ in RAMP], [rgb[k] for _, rgb in RAMP]) for k in range(3)]
    return "#" + "".join(f"{round(float(channel)):02x}" for channel in channels)


def _links(topology: Topology, canvas: Canvas, lines: list[str], use: NDArray[np.float64] | None) -> list[str]:
    """Return the edges, the busiest last; those of one look are one path where there are many."""
    n_edges = len(topology.link_src) // 2
    if not lines:
        return []
    bandwidth = topology.link_bandwidth_bytes_per_s[::2]
    widths = np.round(np.maximum(_widest(topology, canvas) * np.sqrt(bandwidth / bandwidth.max()), 0.4), 1)
    top = _top(use)
    looks = [
        (f'class="{_kind(use, e)}"', f' stroke="{_colour(round(float(use[e]) / top, 2))}"' if _is_hot(use, e) else "")
        for e in range(n_edges)
    ] if use is not None else [('class="link"', "")] * n_edges  # fmt: skip
    order = np.argsort(np.nan_to_num(use, nan=-1.0), kind="stable") if use is not None else np.arange(n_edges)
    drawn: dict[tuple[str, str, float], list[str]] = {}
    out = []
    for e in order.tolist():
        kind, stroke = looks[e]
        if n_edges > MOST_TITLES:
            drawn.setdefault((kind, stroke, float(widths[e])), []).append(lines[e])
        else:
            title = escape(_title(topology, e, use))
            out.append(
                f'<path {kind}{stroke} stroke-width="{widths[e]:g}" d="{lines[e]}"><title>{title}</title></path>'
            )
    return out + [
        f'<path {kind}{stroke} stroke-width="{width:g}" d="{"".join(paths)}"/>'
        for (kind, stroke, width), paths in drawn.items()
    ]


def _widest(topology: Topology, canvas: Canvas) -> float:
    """Return the width of the edge of the most bandwidth, in pixels: less where many meet."""
    crowd = 2.5 * topology.n_nodes / max(1, len(topology.link_src) // 2)
    return max(0.4, min(5.0, max(1.0, canvas.chip / 9)) * min(1.0, crowd))


def _is_hot(use: NDArray[np.float64] | None, e: int) -> bool:
    return use is not None and not np.isnan(use[e])


def _kind(use: NDArray[np.float64] | None, e: int) -> str:
    return "hot" if _is_hot(use, e) else "unused"


def _top(use: NDArray[np.float64] | None) -> float:
    """Return the utilisation at the red end of the ramp."""
    known = use[~np.isnan(use)] if use is not None else np.zeros(0)
    return float(known.max(initial=0)) or 1.0


def _title(topology: Topology, e: int, use: NDArray[np.float64] | None) -> str:
    ends = topology.link_name(2 * e).replace("→", " to ")
    n, bandwidth = int(topology.link_count[2 * e]), float(topology.link_bandwidth_bytes_per_s[2 * e])
    used = f", {use[e]:.1%} used" if use is not None and _is_hot(use, e) else ""
    return f"{ends}: {n} link{'s' * (n > 1)}, {format_bandwidth(bandwidth)} per direction{used}"


def _nodes(topology: Topology, layout: Layout, canvas: Canvas) -> list[str]:
    """Return squares for chips and flat boxes for switches, with their numbers where there is room."""
    places = canvas.pixels(layout.places)[:MOST_NODES]
    size = canvas.chip
    out = []
    deep = len(topology.dims) > 2 and layout.form == "grid"
    order = (
        np.argsort(-topology.positions % topology.dims[2], kind="stable") if deep and len(topology.dims) == 3 else None
    )
    for is_chip, kind, wide, high in ((True, "chip", size, size), (False, "switch", size * 1.9, size * 0.72)):
        numbers = range(min(topology.n_chips, MOST_NODES)) if is_chip else range(topology.n_chips, len(places))
        nodes = order.tolist() if is_chip and order is not None and len(places) == topology.n_nodes else list(numbers)
        if len(nodes) > MOST_NUMBERS:
            d = "".join(
                f"M{places[n][0] - wide / 2:.0f} {places[n][1] - high / 2:.0f}h{wide:.0f}v{high:.0f}h{-wide:.0f}z"
                for n in nodes
            )
            out.append(f'<path class="{kind}" stroke-width="0.5" d="{d}"/>')
            continue
        text = min(13.0, size * 0.42)
        for n in nodes:
            x, y = places[n]
            out.append(
                f'<rect class="{kind}" x="{x - wide / 2:.1f}" y="{y - high / 2:.1f}" width="{wide:.1f}" '
                f'height="{high:.1f}" rx="{min(6.0, size / 6):.1f}"><title>{topology.node_name(n)}</title></rect>'
            )
            if text >= 5:
                label = topology.node_name(n).removeprefix("chip").replace("switch", "s")
                out.append(
                    f'<text class="number" x="{x:.1f}" y="{y + text * 0.36:.1f}" font-size="{text:.1f}">{label}</text>'
                )
    return out


def _legend(topology: Topology, use: NDArray[np.float64] | None, widest: float) -> list[str]:
    """Return a line for each kind of edge, and one for the colours."""
    bandwidth, count = topology.link_bandwidth_bytes_per_s[::2], topology.link_count[::2]
    kinds, numbers = np.unique(np.stack([bandwidth, count], axis=1), axis=0, return_counts=True)
    lines = []
    for (rate, n), edges in list(zip(kinds.tolist(), numbers.tolist(), strict=True))[::-1][:LEGEND_LINES]:
        width = max(widest * (rate / bandwidth.max()) ** 0.5, 0.5)
        words = (
            f"{edges} edge{'s' * (edges > 1)} of {n:.0f} link{'s' * (n > 1)}: {format_bandwidth(rate)} per direction"
        )
        line = f'<path class="link" stroke-width="{width:.1f}" d="M{MARGIN} -4h36"/>'
        lines.append(line + _text(MARGIN + 48, 0, "soft", 13, words))
    if len(kinds) > LEGEND_LINES:
        lines.append(_text(MARGIN, 0, "soft", 13, f"and {len(kinds) - LEGEND_LINES} more kinds of edges"))
    if use is not None:
        steps = "".join(
            f'<rect x="{MARGIN + 12 * k}" y="-11" width="12" height="12" fill="{_colour(k / 11)}"/>' for k in range(12)
        )
        n_unknown = int(np.isnan(use).sum())
        unknown = f"; grey: {n_unknown} edges that the run does not list" if n_unknown else ""
        lines.append(steps + _text(MARGIN + 156, 0, "soft", 13, f"utilisation, 0 to {100 * _top(use):.3g} %{unknown}"))
    return lines
