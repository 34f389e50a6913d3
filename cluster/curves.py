"""Bandwidth curves: bus bandwidth against size, one line for each algorithm, as a plain SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from attrs import frozen

from cluster.bench import Row
from configs.units import format_bandwidth, format_size

WIDTH, HEIGHT = 860, 480
LEFT, RIGHT, TOP, BOTTOM = 84, 214, 48, 52
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f3c8d", "#6b6b6b", "#8c564b", "#b8a800",
    "#1b9e77", "#e7298a", "#3b3bb3", "#000000",
)  # fmt: skip
DASHES = ("", "7 3", "2 3")
LABEL_PX = 15


@frozen
class Axes:
    """The ranges of both axes; sizes and bandwidths stand logarithmically."""

    low_bytes: float
    high_bytes: float
    low_rate: float
    high_rate: float

    @classmethod
    def around(cls, rows: Sequence[Row]) -> Axes:
        """Return axes that hold all rows; decades of bandwidth, powers of two of sizes."""
        sizes, rates = [row.size_bytes for row in rows], [row.busbw_bytes_per_s for row in rows]
        low, high = 10 ** math.floor(math.log10(min(rates))), 10 ** math.ceil(math.log10(max(rates)))
        return cls(min(sizes), max(*sizes, 2 * min(sizes)), low, max(high, 10 * low))

    def x(self, size_bytes: float) -> float:
        """Return where a size stands, in pixels."""
        share = math.log(size_bytes / self.low_bytes) / math.log(self.high_bytes / self.low_bytes)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, rate: float) -> float:
        """Return where a bandwidth stands, in pixels from the top."""
        share = math.log(rate / self.low_rate) / math.log(self.high_rate / self.low_rate)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def bandwidth_curves(system: str, rows: Sequence[Row]) -> str:
    """Return the SVG; rows without size (a barrier) have no place in it."""
    rows = [row for row in rows if row.busbw_bytes_per_s > 0]
    first = rows[0] if rows else None
    what = f"{first.op} among {first.n_ranks} ranks, {first.dtype}" if first else "nothing has a size"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">'
    )
    body = [
        head,
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="28" font-size="15" font-weight="600">{escape(system)}: {escape(what)}</text>',
        *(_drawn(rows) if rows else ()),
        "</svg>",
    ]
    return "\n".join(body) + "\n"


def _drawn(rows: Sequence[Row]) -> list[str]:
    axes = Axes.around(rows)
    names = list(dict.fromkeys(row.algorithm for row in rows))
    curves = {name: sorted((r.size_bytes, r.busbw_bytes_per_s) for r in rows if r.algorithm == name) for name in names}
    chosen = sorted({(r.size_bytes, r.busbw_bytes_per_s) for r in rows if r.chosen})
    body = _grid(axes)
    for i, name in enumerate(names):
        style = f'stroke="{COLOURS[i % len(COLOURS)]}" stroke-dasharray="{DASHES[i // len(COLOURS) % len(DASHES)]}"'
        points = " ".join(f"{axes.x(size):.1f},{axes.y(rate):.1f}" for size, rate in curves[name])
        body.append(f'<polyline points="{points}" fill="none" stroke-width="2" {style}/>')
        size, rate = curves[name][-1]
        body.append(f'<circle cx="{axes.x(size):.1f}" cy="{axes.y(rate):.1f}" r="2.5" {style} fill="white"/>')
    body += _labels(axes, {name: curves[name][-1] for name in names})
    if len(names) > 1:
        body += [f'<circle cx="{axes.x(s):.1f}" cy="{axes.y(r):.1f}" r="4" fill="#222"/>' for s, r in chosen]
    if len(names) > 1 and chosen:
        x, y = WIDTH - RIGHT + 16, HEIGHT - 16
        body.append(
            f'<circle cx="{x}" cy="{y - 4}" r="4" fill="#222"/><text x="{x + 10}" y="{y}">what auto takes</text>'
        )
    return body


def _grid(axes: Axes) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    body = [f'<rect x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}" fill="none" stroke="#999"/>']
    for power in range(round(math.log10(axes.low_rate)), round(math.log10(axes.high_rate)) + 1):
        y = axes.y(10**power)
        body.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        body.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{format_bandwidth(10.0**power)}</text>')
    low, high = math.ceil(math.log2(axes.low_bytes)), math.floor(math.log2(axes.high_bytes))
    for power in range(low, high + 1, max(1, -(-(high - low) // 8))):
        x = axes.x(2**power)
        body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" stroke="#eee"/>')
        body.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{format_size(2**power)}</text>')
    middle = (LEFT + right) / 2
    body.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">size</text>')
    body.append(f'<text transform="translate(16 {(TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">busbw</text>')
    return body


def _labels(axes: Axes, ends: dict[str, tuple[int, float]]) -> list[str]:
    """Write every name beside the end of its curve, moved apart where they would overlap."""
    body, lowest = [], 0.0
    order = sorted(ends, key=lambda name: -ends[name][1])
    room = HEIGHT - BOTTOM - LABEL_PX * len(order)
    for place, name in enumerate(order):
        i, (size, rate) = list(ends).index(name), ends[name]
        x, y = axes.x(size), axes.y(rate)
        at = max(lowest, min(y, room + LABEL_PX * (place + 1)))
        lowest = at + LABEL_PX
        colour, label = COLOURS[i % len(COLOURS)], WIDTH - RIGHT + 16
        body.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{label - 3}" y2="{at:.1f}" stroke="{colour}" opacity="0.4"/>')
        body.append(f'<text x="{label}" y="{at + 4:.1f}" fill="{colour}">{escape(name.rpartition("/")[2])}</text>')
    return body
