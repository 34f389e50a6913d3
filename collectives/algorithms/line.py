"""Line algorithms: every part walks from neighbour to neighbour to both ends of a line; nothing wraps round.

With n ranks, part size m = S/n, hop latency α and link bandwidth B per direction, on an idle line of neighbours:

    all_gather, reduce_scatter   (n-1) (α + m/B)
    all_reduce                   2 (n-1) (α + m/B)
    broadcast, reduce, k pieces  (h + k-1) (α + S/(kB))    h = hops from the root to the farther end

The parts cross every link once in each direction, so no algorithm on a line needs less than (n-1) m/B.
Source: E. Chan, M. Heimlich, A. Purkayastha, R. van de Geijn, "Collective communication: theory, practice, and
experience", Concurrency and Computation 19 (2007), section 3 (linear arrays).
"""

from __future__ import annotations

import numpy as np

from collectives.compose import family, from_gather
from collectives.group import GroupView, misfit
from collectives.schedule import Schedule, Transfers
from topology.rings import hamiltonian_path

PIECES = 8


def broadcast(group: GroupView, root: int = 0, *, pieces: int = PIECES) -> Schedule:
    """Return the broadcast in which the pieces leave the root one after the other, both ways."""
    return Schedule("broadcast", "line", len(group), pieces, _from(group, root, pieces))


def reduce(group: GroupView, root: int = 0, *, pieces: int = PIECES) -> Schedule:
    """Return the broadcast backwards."""
    return Schedule("reduce", "line", len(group), pieces, _from(group, root, pieces).reversed())


def _from(group: GroupView, root: int, n_pieces: int) -> Transfers:
    line = np.array(_line(group))
    at = int(np.flatnonzero(line == root)[0])
    up, down = np.arange(at, len(line) - 1), np.arange(at, 0, -1)
    src, dst = np.concatenate([up, down]), np.concatenate([up + 1, down - 1])
    piece = np.arange(n_pieces)[:, None]
    return Transfers.single(np.abs(src - at) + piece, line[src], line[dst], piece)


def _schedule(op: str, group: GroupView, root: int = 0) -> Schedule:
    """Return the all-gather in which every rank hands on both ways what it received, or what it makes."""
    del root
    n, line = len(group), _line(group)
    return from_gather(op, "line", n, n, lambda: _gather(line))


all_gather, reduce_scatter, all_reduce = family(_schedule)


def _gather(line: tuple[int, ...]) -> Transfers:
    """In step s, place i sends part i-s up and part i+s down, as far as there are such."""
    n, rank = len(line), np.array(line)
    step, way, place = np.meshgrid(np.arange(n - 1), [1, -1], np.arange(n), indexing="ij")
    part, dst = place - way * step, place + way
    there = (part >= 0) & (part < n) & (dst >= 0) & (dst < n)
    return Transfers.single(step[there], rank[place[there]], rank[dst[there]], rank[part[there]])


def _line(group: GroupView) -> tuple[int, ...]:
    """Return the places in the order of the line; raise ConfigError where none is known."""
    path = hamiltonian_path(group.topology, group.ranks)
    if path is None:
        accepted = "chips each next to the following one, or all chips of a block of a grid"
        raise misfit("line", group, "form no line of neighbours that is known", accepted)
    return group.places(path)
