"""Double binary tree: an all-reduce over two trees, each with half of the buffer; the leaves of one work in the other.

Pieces follow each other up to the root, where they are whole, and down again. With n = 2^h ranks, k pieces on each
tree, latency α of a route and bandwidth B of a rank, on an idle switch:

    n > 2    (2h+k-1) α + (2h+2k-3) S/(kB)
    n = 2    (k+1) α + S/B

For many pieces that is 2 S/B, as for a ring, but with a latency that grows with log2 n.

Source: P. Sanders, J. Speck, J. L. Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan",
Parallel Computing 35 (2009); the trees are NCCL's (src/graph/trees.cc): the second is the first mirrored (n even) or
shifted by one (n odd).
"""

from __future__ import annotations

import numpy as np

from collectives.algorithms.binary_tree import PIECES, in_order_tree
from collectives.group import GroupView
from collectives.schedule import Schedule, Transfers


def all_reduce(group: GroupView, root: int = 0, *, pieces: int = PIECES) -> Schedule:
    """Return the all-reduce with so many pieces on each of the two trees."""
    del root
    n = len(group)
    return Schedule("all_reduce", "double_binary_tree", n, 2 * pieces, lambda: _transfers(n, pieces))


def _transfers(n: int, n_pieces: int) -> Transfers:
    tree, rank, pieces = in_order_tree(n), np.arange(n), np.arange(n_pieces)
    other = tree.renamed(n - 1 - rank if n % 2 == 0 else (rank + 1) % n)
    halves = ((tree, pieces), (other, n_pieces + pieces))
    return Transfers.join([way for t, half in halves for way in (t.up(half), t.down(half, t.height))])
