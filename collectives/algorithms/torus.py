"""The multi-axis bucket algorithm: on all axes and in both directions of a mesh or torus at once.

Every part is cut into lanes, one for each axis and direction (one for each axis if nothing wraps). A lane gathers along
its own axis first, then along the following ones, handing on all that it has gathered before; so in every phase the
lanes use different links. A lane goes one way round a wrapped axis, and both ways along one that is not.

With n = L^k chips on k axes of length L, part size m = S/n, hop latency α and link bandwidth B per direction, idle:

    all_gather, reduce_scatter   k (L-1) α + (n-1) m/(2kB)      on a torus, L > 2
                                 k (L-1) α + (n-1) m/(kB)       on a mesh
    all_reduce                   twice that

Source: N. Jain and Y. Sabharwal, "Optimal bucket algorithms for large MPI collectives on torus interconnects",
ICS 2010.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from collectives.compose import family, from_gather, uniform
from collectives.group import Block, GroupView, misfit
from collectives.schedule import Schedule, Transfers, Uniform
from topology.rings import is_path

_Hop = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""(sender, receiver, bundle) of the transfers of a step."""


def _schedule(op: str, group: GroupView, root: int = 0) -> Schedule:
    del root
    block = group.block
    if block is None or not _joined(group, block):
        raise misfit("torus", group, "do not fill a block of neighbours", "all chips of a block of a mesh or torus")
    lanes = _lanes(block)
    n = len(group)
    return from_gather(
        op, "torus", n, n * max(1, len(lanes)), lambda: _gather(block, lanes), lambda dims: _uniform(block, lanes, dims)
    )  # fmt: skip


all_gather, reduce_scatter, all_reduce = family(_schedule)


def _joined(group: GroupView, block: Block) -> bool:
    """Return whether chips that follow each other on an axis are neighbours in the topology."""
    topology, ranks = group.topology, np.array(group.ranks)[block.places]
    links = topology.link_src.astype(np.int64) * topology.n_nodes + topology.link_dst
    lines = [np.moveaxis(ranks, axis, -1) for axis in range(ranks.ndim)]
    if all(np.isin(line[..., :-1] * topology.n_nodes + line[..., 1:], links).all() for line in lines):
        return True
    return all(is_path(topology, tuple(row)) for line in lines for row in line.reshape(-1, line.shape[-1]).tolist())


def _lanes(block: Block) -> list[tuple[int, int]]:
    """Return (first axis, direction) of every lane."""
    return [(axis, way) for axis in range(len(block.lengths)) for way in ((1, -1) if any(block.wraps) else (1,))]


def _gather(block: Block, lanes: list[tuple[int, int]]) -> Transfers:
    return Transfers.join([p for i, lane in enumerate(lanes) for p in _lane_gather(block, *lane, i, len(lanes))])


def _phases(lengths: tuple[int, ...], first_axis: int) -> Iterator[tuple[int, int, list[int]]]:
    """Yield (first step, axis, axes gathered along before) of the phases of a lane."""
    n_steps, done = 0, list[int]()
    for k in range(len(lengths)):
        axis = (first_axis + k) % len(lengths)
        yield n_steps, axis, done
        n_steps += lengths[axis] - 1
        done = [*done, axis]


def _lane_gather(block: Block, first_axis: int, way: int, lane: int, n_lanes: int) -> Iterator[Transfers]:
    """Yield the phases of one lane; its piece of part p is chunk p·n_lanes + lane.

    What moves in a phase are bundles: the pieces that a chip has gathered along the axes before.
    """
    lengths, places = block.lengths, block.places
    for first_step, axis, done in _phases(lengths, first_axis):
        ahead = [a for a in range(len(lengths)) if a not in done]
        size = int(np.prod([lengths[a] for a in done], dtype=np.int64))
        pool = (np.transpose(places, ahead + done).reshape(-1) * n_lanes + lane).astype(np.int32)
        shape = [lengths[a] if a in ahead else 1 for a in range(len(lengths))]
        bundle = np.broadcast_to(np.arange(len(pool) // size).reshape(shape), lengths)
        hops = _round(places, bundle, axis, way) if block.wraps[axis] else _along(places, bundle, axis)
        steps = [Transfers.runs(first_step + s, src, dst, b * size, size, pool=pool[:0]) for s, (src, dst, b) in hops]
        yield evolve(Transfers.join(steps), chunks=pool)


def _uniform(block: Block, lanes: list[tuple[int, int]], dims: tuple[int, ...]) -> Uniform | None:
    """Return what every chip does in the all-gather, if the block is a whole torus in the order of the ranks."""
    lengths, n = block.lengths, block.places.size
    closed = all(wrap or length == 2 for wrap, length in zip(block.wraps, lengths, strict=True))
    if dims != lengths or not closed or (block.places.reshape(-1) != np.arange(n)).any():
        return None
    rows = []
    for lane, (first_axis, way) in enumerate(lanes):
        for first_step, axis, done in _phases(lengths, first_axis):
            stride = int(np.prod(lengths[axis + 1 :], dtype=np.int64))
            size = int(np.prod([lengths[a] for a in done], dtype=np.int64))
            rows += [(first_step + s, way % lengths[axis] * stride, size, lane) for s in range(lengths[axis] - 1)]
    return uniform(dims, rows)


def _round(places: NDArray[np.int64], bundle: NDArray[np.int64], axis: int, way: int) -> Iterator[tuple[int, _Hop]]:
    """Yield the steps round a wrapped axis: every chip hands on the bundle that started s chips behind it."""
    for s in range(places.shape[axis] - 1):
        yield s, (places, np.roll(places, -way, axis), np.roll(bundle, way * s, axis))


def _along(places: NDArray[np.int64], bundle: NDArray[np.int64], axis: int) -> Iterator[tuple[int, _Hop]]:
    """Yield the steps along an axis that does not wrap: bundles move both ways until they are at the ends."""
    length = places.shape[axis]
    up, carried_up = np.moveaxis(places, axis, 0), np.moveaxis(bundle, axis, 0)
    for line, carried in ((up, carried_up), (up[::-1], carried_up[::-1])):
        for s in range(length - 1):
            yield s, (line[s:-1], line[s + 1 :], carried[: length - 1 - s])
