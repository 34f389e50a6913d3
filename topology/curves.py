"""The lines of a picture: its scale, and the path of every edge in pixels."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from topology.graph import Topology
from topology.layout import Layout

MARGIN = 48
HEADER = 62
MOST_WIDTH = 1_500  # of the drawing, in pixels
MOST_ROUND = 16  # chips that a line is drawn round; longer ones end short
ARC = 0.3  # how far an edge within a row is drawn out, of its length


@frozen(eq=False)
class Canvas:
    """The scale of a picture: pixels of a unit, the size of a chip, and where the units' origin lies."""

    unit: float
    chip: float
    origin: NDArray[np.float64]
    width: float
    height: float

    def pixels(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return places in pixels."""
        return (places - self.origin) * self.unit + (MARGIN, MARGIN + HEADER)


def canvas_of(topology: Topology, layout: Layout) -> Canvas:
    """Return the scale at which a layout fits."""
    low, high = layout.places.min(axis=0), layout.places.max(axis=0)
    above, below = _room(topology, layout)
    low, high = low - np.array([0.3, 0.3 + above]), high + np.array([0.3, 0.3 + below])
    span = np.maximum(high - low, 0.5)
    unit = float(np.clip(MOST_WIDTH / span.max(), 5, 84))
    if len(topology.dims) > 2 and layout.form == "grid":
        unit = float(np.clip(MOST_WIDTH / span.max(), 24, 150))
        chip = unit * min(0.34, 0.75 / topology.dims[2])
    else:
        chords_pass = 1.6 * np.pi / topology.n_chips if layout.form == "circle" else 1.0  # beside the chips between
        chip = unit * min(0.46, max(0.25, chords_pass))
    size = span * unit + 2 * MARGIN
    return Canvas(unit, max(chip, 2), low, float(size[0]), float(size[1]) + HEADER)


Piece = tuple[tuple[float, float], ...]
"""Two points of a straight line, or the four of a cubic Bézier curve."""


def edge_pieces(topology: Topology, layout: Layout, canvas: Canvas) -> list[tuple[Piece, ...]]:
    """Return what every edge is drawn of: a straight line, one beside the straight one, or two short ends."""
    src, dst = topology.link_src[::2], topology.link_dst[::2]
    beside, stub = _ways(topology, layout, canvas)
    ends = np.concatenate([canvas.pixels(layout.places[src]), canvas.pixels(layout.places[dst])], axis=1)
    pieces: list[tuple[Piece, ...]] = []
    for e, (ax, ay, bx, by) in enumerate(ends.tolist()):
        wx, wy = stub[e].tolist()
        a, b = (ax, ay), (bx, by)
        if wx or wy:
            pieces.append(((a, (ax - wx, ay - wy)), (b, (bx + wx, by + wy))))
        elif beside[e]:
            controls = _beside(ax, ay, bx, by, canvas.unit) if layout.form == "grid" else _arc(ax, bx, ay, beside[e])
            pieces.append(((a, *controls, b),))
        else:
            pieces.append(((a, b),))
    return pieces


def edge_paths(topology: Topology, layout: Layout, canvas: Canvas) -> list[str]:
    """Return the path of every edge; only short ends have relative lines."""
    return ["".join(_path(piece, len(pieces)) for piece in pieces) for pieces in edge_pieces(topology, layout, canvas)]


def _path(piece: Piece, n_pieces: int) -> str:
    (ax, ay), *rest = piece
    if n_pieces > 1:
        ((bx, by),) = rest
        return f"M{ax:.0f} {ay:.0f}l{bx - ax:.0f} {by - ay:.0f}"
    points = " ".join(f"{x:.0f} {y:.0f}" for x, y in rest)
    return f"M{ax:.0f} {ay:.0f}{'C' if len(rest) > 1 else 'L'}{points}"


def _ways(topology: Topology, layout: Layout, canvas: Canvas) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return on which side edges pass by what is between their ends (or 0), and which end short, going which way."""
    src, dst = topology.link_src[::2], topology.link_dst[::2]
    chips = (src < topology.n_chips) & (dst < topology.n_chips)
    stub = np.zeros((len(src), 2))
    side = _sides(topology, layout)
    if layout.form != "grid":
        return side, stub
    coords = np.stack(np.unravel_index(topology.positions, topology.dims), axis=1)
    step = np.zeros((len(src), len(topology.dims)), np.int64)
    step[chips] = coords[dst[chips]] - coords[src[chips]]
    far = chips & (np.abs(step).sum(axis=1) != 1)
    if len(topology.dims) <= 2 and max(topology.dims) <= MOST_ROUND:
        return np.where(far, 1, side), stub
    round_axis = far & ((step != 0).sum(axis=1) == 1)
    lengths = np.hypot(layout.axes[:, 0], layout.axes[:, 1])
    short = layout.axes * (np.maximum(0.3 * lengths, canvas.chip / canvas.unit) / lengths)[:, None] * canvas.unit
    stub[round_axis] = np.sign(step[round_axis]) @ short
    return side, stub


def _beside(ax: float, ay: float, bx: float, by: float, unit: float) -> Piece:
    """Return the control points of a line beside the straight one, above or right of it, never a whole unit away."""
    dx, dy = bx - ax, by - ay
    length = max((dx * dx + dy * dy) ** 0.5, 1.0)
    ex, ey = dx / length * unit * 0.5, dy / length * unit * 0.5
    nx, ny = (ey, -ex) if (ey > 0 or (ey == 0 and ex > 0)) else (-ey, ex)
    return (ax + nx + ex, ay + ny + ey), (bx + nx - ex, by + ny - ey)


def _arc(ax: float, bx: float, y: float, side: int) -> Piece:
    """Return the control points of a line below (1) or above (-1) a row, the farther the longer it is."""
    far = y + side * ARC * abs(bx - ax)
    return (ax, far), (bx, far)


def _sides(topology: Topology, layout: Layout) -> NDArray[np.int64]:
    """Return 1 for edges within a row of chips, -1 for those within a row of switches, 0 for all others."""
    src, dst = topology.link_src[::2], topology.link_dst[::2]
    switches = np.minimum(src, dst) >= topology.n_chips
    level = np.isclose(layout.places[src, 1], layout.places[dst, 1])
    within_chips = (layout.form == "rows") & (np.maximum(src, dst) < topology.n_chips)
    return np.where(within_chips & level, 1, np.where(switches & level, -1, 0))


def _room(topology: Topology, layout: Layout) -> tuple[float, float]:
    """Return the room, in units, that edges within rows take above and below."""
    side = _sides(topology, layout)
    ends = layout.places[np.stack([topology.link_src[::2], topology.link_dst[::2]]), 0]
    out = 0.75 * ARC * np.abs(ends[1] - ends[0])
    return float(out[side < 0].max(initial=0)), float(out[side > 0].max(initial=0))
