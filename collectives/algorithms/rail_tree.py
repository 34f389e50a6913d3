"""Trees over nodes, one for every NIC of a node: an all-reduce whose head on each node is another chip for each tree.

Tree c has the chip c of every node as its head: the heads are joined by a binary tree (every other one mirrored, so
that the leaves of one work in the other), and in each node the other chips hang on the head: in a `chain`, or on a
`switch` that adds and multicasts, which hands the sum to the head and its result to all. Each tree carries its share of
the buffer in pieces that follow each other, up as sums and down again.

On r = 2^h nodes of l chips, k pieces on each tree, latency α of a message in a node and β between nodes, a small
buffer takes about

    chain    2 (l - 1) α + 2 h β,    and k - 1 steps more for the pieces
    switch   4 α + 2 h β

Source: NVIDIA/nccl@5067397c:src/graph/trees.cc (double binary tree over nodes, chain inside), tuning.cc (its latency);
NVLSTree is the one with a switch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collectives.algorithms.binary_tree import Tree, in_order_tree
from collectives.algorithms.in_network import switches_of
from collectives.algorithms.rail_ring import nodes_of, zigzag_of
from collectives.group import GroupView
from collectives.schedule import Schedule, Transfers

NAME = "rail_tree"
PIECES = 8
INSIDE = ("chain", "switch")


def all_reduce(group: GroupView, root: int = 0, *, inside: str = "chain", pieces: int = PIECES) -> Schedule:
    """Return the all-reduce with so many pieces on each tree."""
    del root
    places = np.array(nodes_of(NAME, group))
    if len(group) == 1:
        return Schedule("all_reduce", NAME, 1, pieces, ())
    switches = _switches(group, places) if inside == "switch" else np.zeros((len(places), 0), np.int64)
    helpers = tuple(switches.reshape(-1).tolist())

    def make() -> Transfers:
        n_planes = switches.shape[1]
        return Transfers.join([way for c in range(places.shape[1]) for way in _ways(places, c, n_planes, pieces)])

    return Schedule("all_reduce", NAME, len(group), places.shape[1] * pieces, make, helpers=helpers)


def _switches(group: GroupView, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the switches of every node that add for all its chips, [node, plane]."""
    ranks = np.array(group.ranks)[places]
    return np.array([switches_of(GroupView(group.topology, tuple(row.tolist())))[0] for row in ranks])


def _ways(places: NDArray[np.int64], c: int, n_planes: int, n_pieces: int) -> list[Transfers]:
    """Return the way of tree c's pieces up and down; of a node's switches they take turns."""
    pieces = c * n_pieces + np.arange(n_pieces)
    if not n_planes:
        tree = _chained(places, c)
        return [tree.up(pieces), tree.down(pieces, tree.height)]
    found = []
    n_ranks = places.size
    for plane in range(n_planes):
        mine = np.flatnonzero((np.arange(n_pieces) + c) % n_planes == plane)
        if len(mine):
            switch = n_ranks + np.arange(len(places)) * n_planes + plane
            found += _over_switches(places, c, switch, pieces[mine], mine)
    return found


def _heads(n_nodes: int, c: int) -> Tree:
    """Return the tree of the nodes: mirrored (an even number of nodes) or shifted by one for every other c."""
    tree, node = in_order_tree(n_nodes), np.arange(n_nodes)
    if c % 2 == 0:
        return tree
    return tree.renamed(n_nodes - 1 - node if n_nodes % 2 == 0 else (node + 1) % n_nodes)


def _chained(places: NDArray[np.int64], c: int) -> Tree:
    """Return the tree of all ranks: chains that end at the heads, and the tree of the heads."""
    n_nodes, length = places.shape
    order = places[:, (c + np.array(zigzag_of(length))) % length]
    heads = _heads(n_nodes, c)
    depth = np.zeros(n_nodes, np.int64)
    depth[heads.child] = heads.depth
    links = depth[:, None] + np.arange(1, length)
    return Tree(
        np.concatenate([order[heads.child, 0], order[:, 1:].reshape(-1)]),
        np.concatenate([order[heads.parent, 0], order[:, :-1].reshape(-1)]),
        np.concatenate([heads.depth, links.reshape(-1)]),
    )


def _over_switches(
    places: NDArray[np.int64], c: int, switch: NDArray[np.int64], pieces: NDArray[np.int64], turn: NDArray[np.int64]
) -> list[Transfers]:
    """Return the way of some pieces: chips → switch → head → … → root → … → head → switch → chips.

    Piece i of all is in step s of its way in step s + i of the schedule. A switch holds the sum of its node, and what
    it gets from the head after that replaces it.
    """
    n_nodes, length = places.shape
    heads, head = _heads(n_nodes, c), places[:, c]
    height, chunk, later = heads.height, pieces[:, None], turn[:, None]
    chips, above = places.reshape(-1), np.repeat(switch, length)
    up = Transfers.single(later, chips, above, chunk, reduce=True)
    taken = Transfers.single(1 + later, switch, head, chunk)
    below, over, top = head[heads.child], head[heads.parent], 2 + height
    rising = Transfers.single(top - heads.depth + later, below, over, chunk, reduce=True)
    falling = Transfers.single(top + heads.depth - 1 + later, over, below, chunk)
    back = Transfers.single(top + height + later, head, switch, chunk)
    given = Transfers.single(top + height + 1 + later, above, chips, chunk)
    return [up, taken, rising, falling, back, given]
