"""Where the nodes of a topology stand in a picture, in units of the distance between two neighbours.

Chips with coordinates form their grid: axis 0 to the right, axis 1 down, axis 2 into the depth, further axes as blocks
side by side. Chips that are joined to switches alone stand in rows, others in a circle. Switches stand in rows above
them, a row for each number of links to the nearest chip.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from topology.graph import Topology

Points = NDArray[np.float64]

ROW_CHIPS = 80
DEPTH = (0.86, -0.62)  # how far the farthest layer of a third axis is moved


@frozen(eq=False)
class Layout:
    """Places of all nodes, [n_nodes, 2], y downwards.

    form: how chips stand.
    axes: for a grid, the vector of one step along each axis.
    """

    form: Literal["grid", "circle", "rows"]
    places: Points
    axes: Points


def lay_out(topology: Topology) -> Layout:
    """Return the places of chips and switches."""
    alone = topology.n_switches > 0 and not _joined(topology).any()
    grid = topology.axes != ("chips",) and not alone
    axes = np.zeros((0, 2))
    form: Literal["grid", "circle", "rows"] = "rows" if topology.n_switches else "circle"
    if grid and not (len(topology.dims) == 1 and topology.wraps[0] and not topology.n_switches):
        form = "grid"
        axes = _steps(topology.dims)
        chips = np.stack(np.unravel_index(topology.positions, topology.dims), axis=1) @ axes
    elif topology.n_switches:
        chips = _rows(topology.n_chips)
    else:
        chips = _circle(topology.n_chips)
    return Layout(form, np.concatenate([chips, _switches(topology, chips)]), axes)


def _joined(topology: Topology) -> NDArray[np.bool_]:
    """Return which edges join two chips."""
    joined: NDArray[np.bool_] = np.maximum(topology.link_src[::2], topology.link_dst[::2]) < topology.n_chips
    return joined


def _steps(dims: tuple[int, ...]) -> Points:
    """Return the vector of one step along each axis."""
    layers = dims[2] if len(dims) > 2 else 1
    steps = [(1.0, 0.0), (0.0, 1.0), (DEPTH[0] / layers, DEPTH[1] / layers)]
    width = float(dims[0])
    for length in dims[3:]:
        steps.append((width + 0.6, 0.0))
        width = (width + 0.6) * length
    return np.array(steps[: len(dims)])


def _rows(n: int) -> Points:
    wide = n if n <= ROW_CHIPS else min(n, max(64, math.ceil(math.sqrt(2 * n))))
    row, column = np.divmod(np.arange(n), wide)
    return np.stack([column, row], axis=1).astype(np.float64)


def _circle(n: int) -> Points:
    """Return places round a circle, the first at the top, one unit apart."""
    radius = 0.5 / math.sin(math.pi / n) if n > 2 else 0.5
    angle = 2 * math.pi * np.arange(n) / n - math.pi / 2
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _switches(topology: Topology, chips: Points) -> Points:
    """Return the switches' places: rows above the chips, in each sorted by the mean place of what they join."""
    n, n_nodes = topology.n_chips, topology.n_nodes
    places = np.zeros((n_nodes, 2))
    places[:n] = chips
    tier = _tiers(topology)
    left, right = (chips[:, 0].min(), chips[:, 0].max()) if n else (0.0, 0.0)
    height = chips[:, 1].min() if n else 0.0
    for level in range(1, int(tier.max(initial=0)) + 1):
        members = np.flatnonzero(tier == level)
        means = _means(topology, places[:, 0], tier < level, members)
        order = members[np.lexsort((members, means))]
        span = max(right - left, len(order) * 1.0)
        middle = (left + right) / 2
        step = span / len(order)
        height -= max(1.6, 0.15 * span)
        places[order, 0] = middle - span / 2 + step * (np.arange(len(order)) + 0.5)
        places[order, 1] = height
    return places[n:]


def _tiers(topology: Topology) -> NDArray[np.int64]:
    """Return the links from every node to the nearest chip; those that reach none stand at the top."""
    tier = np.full(topology.n_nodes, -1)
    tier[: topology.n_chips] = 0
    level = 0
    while True:
        reached = np.zeros(topology.n_nodes, bool)
        reached[topology.link_dst[tier[topology.link_src] == level]] = True
        fresh = reached & (tier < 0)
        if not fresh.any():
            break
        level += 1
        tier[fresh] = level
    tier[tier < 0] = level + 1
    return tier


def _means(topology: Topology, x: Any, placed: NDArray[np.bool_], members: NDArray[np.int64]) -> Any:
    """Return the mean place of the nodes below that each member is joined to."""
    use = placed[topology.link_src]
    sums = np.bincount(topology.link_dst[use], x[topology.link_src[use]], topology.n_nodes)
    counts = np.bincount(topology.link_dst[use], minlength=topology.n_nodes)
    return sums[members] / np.maximum(counts[members], 1)
