"""Which chip every rank of a layout is: the ranks in order, along named axes of the topology, or what is fastest.

A placement is one tuple, the chip of every rank, which `workloads.layout.Layout` keeps; nothing else knows of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, permutations, product

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from configs.errors import ConfigError
from configs.problems import unknown
from configs.spec.parallel import PlacementSpec
from topology import Topology
from workloads.decode import DecodeJob
from workloads.layout import Layout

AXES = ("dp", "pp", "cp", "ep", "tp")
"""The axes of a layout, the last one fastest."""
MOST_CANDIDATES = 24
SHORT = 2  # tokens that a trial generates: a prefill and a step
MOST_SEARCHED = 256  # chips, from nearest to nearest

Chips = tuple[int, ...]
Ints = NDArray[np.int64]


def place(
    placement: PlacementSpec, topology: Topology, job: DecodeJob, total_s: Callable[[DecodeJob], float]
) -> DecodeJob:
    """Return the job with its ranks on the chips that the placement says.

    `total_s` plays a job without data and returns its simulated time. `auto` plays one and two tokens on every
    candidate and takes the least time for all tokens, the ranks' own order where nothing is faster.
    """
    if placement.kind == "identity" or job.layout.n_ranks == 1:
        return job
    if placement.kind == "axes":
        return _on(job, along_axes(placement, topology, job.layout))

    def predicted_s(chips: Chips) -> float:
        first, short = (
            total_s(_on(evolve(job, prompt_ids=None, keep_logits=False, new_tokens=n), chips))
            for n in (1, min(SHORT, job.new_tokens))
        )
        return first + (job.new_tokens - 1) * (short - first)

    return _on(job, min(candidates(topology, job.layout), key=predicted_s))


def _on(job: DecodeJob, chips: Chips) -> DecodeJob:
    return evolve(job, layout=evolve(job.layout, chips=chips))


def along_axes(placement: PlacementSpec, topology: Topology, layout: Layout) -> Chips:
    """Return the chips where each axis of the layout goes along axes of the topology, the last named one fastest.

    Axes that are not named stay at coordinate 0. Raises ConfigError unless the lengths are the degrees.
    """
    named = [(axis, name) for axis in AXES for name in placement.axes.get(axis, ())]
    problems = [
        f"placement.axes.{axis}: {unknown(name, 'an axis of the topology', topology.axes)}"
        for axis, name in named
        if name not in topology.axes
    ]
    used = [name for _, name in named]
    problems += [
        f"placement.axes: {name} is named twice; accepted: once" for name in dict.fromkeys(used) if used.count(name) > 1
    ]
    if problems:
        raise ConfigError(tuple(problems))
    length = dict(zip(topology.axes, topology.dims, strict=True))
    for axis in AXES:
        degree, along = getattr(layout, axis), placement.axes.get(axis, ())
        if math.prod(length[name] for name in along) != degree:
            has = " × ".join(f"{name} {length[name]}" for name in along) or "none"
            problems.append(f"placement.axes.{axis}: {has} for parallel.{axis} {degree}; accepted: axes of its length")
    if problems:
        raise ConfigError(tuple(problems))
    coords = np.indices([length[name] for name in used]).reshape(len(used), -1)
    grid = np.zeros((len(topology.dims), coords.shape[1]), np.int64)
    for name, coord in zip(used, coords, strict=True):
        grid[topology.axes.index(name)] = coord
    return tuple(topology.rank_of(tuple(at)) for at in grid.T.tolist())


def candidates(topology: Topology, layout: Layout) -> list[Chips]:
    """Return placements that keep ranks close which are close in number, the ranks' own order first.

    Ranks that share matrices have neighbouring numbers and talk the most (docs/parallelism.md). Orders: the grid in
    blocks of so many chips as share matrices, of all shapes; with its axes in any order; the same back and forth, so
    that neighbours in number are neighbours; and from chip to nearest chip.
    """
    orders = [tuple(range(topology.n_chips)), *_orders(topology, layout.tp), _nearest(topology)]
    cut = dict.fromkeys(order[: layout.n_ranks] for order in orders)
    return list(islice(cut, MOST_CANDIDATES))


def _orders(topology: Topology, width: int) -> Iterator[Chips]:
    """Yield orders of all chips of a grid."""
    coords = np.stack(np.unravel_index(topology.positions, topology.dims), axis=1)
    axes = range(len(topology.dims))
    for block in _blocks(topology.dims, width):
        inner, outer = coords % block, coords // block
        yield _sorted([*_snake(outer), *_snake(inner)])
    for order in islice(permutations(axes), MOST_CANDIDATES):
        columns = [coords[:, axis] for axis in order]
        yield _sorted(columns)
        yield _sorted(_snake(np.stack(columns, axis=1)))


def _blocks(dims: Sequence[int], width: int) -> Iterator[tuple[int, ...]]:
    """Yield the shapes of so many chips that tile the grid, the most compact first."""
    sides = [[side for side in range(1, length + 1) if length % side == 0 and width % side == 0] for length in dims]
    shapes = [shape for shape in product(*sides) if math.prod(shape) == width]
    yield from sorted(shapes, key=lambda shape: (sum(shape), shape))


def _snake(coords: Ints) -> list[Ints]:
    """Return sort keys by which every axis goes back and forth: the next chip differs in one coordinate by one."""
    keys, turns = [], np.zeros(len(coords), np.int64)
    for k in range(coords.shape[1]):
        back = turns % 2 == 1
        keys.append(np.where(back, -coords[:, k], coords[:, k]))
        turns = turns + coords[:, k]
    return keys


def _sorted(keys: Sequence[Ints]) -> Chips:
    return tuple(np.lexsort(list(keys)[::-1]).tolist())


def _nearest(topology: Topology) -> Chips:
    """Return the chips from nearest to nearest, from chip 0 on: by the slowest link of the way, then by its latency."""
    left, order = set(range(1, topology.n_chips)), [0]

    def distance(chip: int) -> tuple[float, int, int]:
        route = topology.route(order[-1], chip)
        slowest = float(topology.link_bandwidth_bytes_per_s[route.links].min())
        return (-slowest, route.latency_ps, chip)

    while left and topology.n_chips <= MOST_SEARCHED:
        order.append(min(left, key=distance))
        left.remove(order[-1])
    return (*order, *sorted(left))
