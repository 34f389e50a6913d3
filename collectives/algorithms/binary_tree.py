"""Binary trees over ranks; the broadcast down one, and the reduce up one, in pieces that follow each other.

The tree is in-order: ranks with a higher lowest set bit stand higher, and rank 0 above all with one child. Its height
is h = ⌈log2 n⌉.

With n = 2^h ranks, k pieces, latency α of a route and bandwidth B of a rank, on an idle switch:

    broadcast, reduce   (α + S/(kB)) + (k + h - 2) (α + 2 S/(kB))    n > 2; two children share their parent's link
    broadcast, reduce   k (α + S/(kB))                               n = 2

Source: P. Sanders, J. Speck, J. L. Träff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan",
Parallel Computing 35 (2009), section 2.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from collectives.group import GroupView
from collectives.schedule import Schedule, Transfers

PIECES = 8


@frozen(eq=False)
class Tree:
    """A tree of ranks: each of `child` hangs on `parent`, so many levels below the root."""

    child: NDArray[np.int64]
    parent: NDArray[np.int64]
    depth: NDArray[np.int64]

    @property
    def height(self) -> int:
        """Levels below the root."""
        return int(self.depth.max(initial=0))

    def renamed(self, names: NDArray[np.int64]) -> Tree:
        """Return the tree with the rank `names[r]` where r was."""
        return Tree(names[self.child], names[self.parent], self.depth)

    def down(self, pieces: NDArray[np.int64], start: int) -> Transfers:
        """Return the way of the pieces to all ranks; the first leaves the root in step `start`."""
        step = start + self.depth - 1 + np.arange(len(pieces))[:, None]
        return Transfers.single(step, self.parent, self.child, pieces[:, None])

    def up(self, pieces: NDArray[np.int64]) -> Transfers:
        """Return the way of the pieces to the root as sums; the first is there after `height` steps."""
        step = self.height - self.depth + np.arange(len(pieces))[:, None]
        return Transfers.single(step, self.child, self.parent, pieces[:, None], reduce=True)


def in_order_tree(n: int) -> Tree:
    """Return the tree of n ranks in which every rank but 0 hangs on a neighbour of its lowest set bit.

    >>> in_order_tree(4).parent.tolist()  # of 1, 2 and 3
    [2, 0, 2]
    """
    child = np.arange(1, n)
    bit = child & -child
    parent = (child ^ bit) | bit << 1
    parent = np.where(parent < n, parent, child ^ bit)
    depth, above = np.zeros(len(child), np.int64), child
    while above.any():
        depth += above > 0
        above = np.where(above > 0, parent[above - 1], 0)
    return Tree(child, parent, depth)


def broadcast(group: GroupView, root: int = 0, *, pieces: int = PIECES) -> Schedule:
    """Return the broadcast down the tree whose ranks are counted from the root."""
    n = len(group)
    return Schedule("broadcast", "binary_tree", n, pieces, lambda: _from(n, root).down(np.arange(pieces), 0))


def reduce(group: GroupView, root: int = 0, *, pieces: int = PIECES) -> Schedule:
    """Return the broadcast backwards: sums run up the tree."""
    n = len(group)
    return Schedule("reduce", "binary_tree", n, pieces, lambda: _from(n, root).up(np.arange(pieces)))


def _from(n: int, root: int) -> Tree:
    return in_order_tree(n).renamed((root + np.arange(n)) % n)
