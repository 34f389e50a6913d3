"""Recursive doubling: in every step, each rank exchanges all that it has with a rank twice as far away as before.

With n ranks, part size m = S/n, latency α of a route and bandwidth B of a rank, on an idle switch:

    all_gather, n a power of two   log2 n α + (n-1) m/B
    all_gather, any other n        at least (⌊log2 n⌋ + 2) α + 2 (n-1) m/B
    all_reduce, n a power of two   log2 n (α + S/B)
    all_reduce, any other n        at least (⌊log2 n⌋ + 2) (α + S/B)

Any number of ranks: with p the largest power of two up to n, the first 2(n-p) ranks form pairs; the odd one of a pair
gives its data to the even one first and gets the result last. The other ranks do not wait for that: their messages
share the links of those that still receive, so an all-reduce takes its least time only where none are shared.
Source: R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations in MPICH",
IJHPCA 19 (2005), sections 3.1 and 3.5.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from collectives.compose import from_gather
from collectives.group import GroupView
from collectives.schedule import Schedule, Transfers


def all_gather(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-gather; a rank always holds the parts of a block of ranks."""
    del root
    n = len(group)
    return from_gather("all_gather", "recursive_doubling", n, n, lambda: gather(n))


def all_reduce(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-reduce in which partners exchange and add whole buffers."""
    del root
    n = len(group)
    return Schedule("all_reduce", "recursive_doubling", n, 1, lambda: _exchange_all(n))


@frozen(eq=False)
class Fold:
    """`n` ranks on a power of two of places: of the first pairs of ranks only the even one has a place."""

    n: int

    @property
    def n_places(self) -> int:
        """The largest power of two that is at most n."""
        return 1 << (self.n.bit_length() - 1)

    @property
    def folded(self) -> NDArray[np.int64]:
        """The ranks without a place; each is folded into the rank before it."""
        return 2 * np.arange(self.n - self.n_places) + 1

    def first_rank(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rank at each place, which is also the first of the block of ranks that begins there."""
        return place + np.minimum(place, self.n - self.n_places)

    def partners(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (step, place, partner's place) of the exchanges, as columns that broadcast."""
        step = np.arange(self.n_places.bit_length() - 1)[:, None]
        place = np.arange(self.n_places)[None, :]
        return step, place, place ^ (1 << step)

    def into(self, pool: NDArray[np.int64]) -> Transfers:
        """Return the transfers, as sums, of the whole pool from the folded ranks to those before them."""
        return Transfers.runs(0, self.folded, self.folded - 1, 0, len(pool), pool=pool, reduce=True)

    def out(self, pool: NDArray[np.int64]) -> Transfers:
        """Return the transfers that give the folded ranks the whole pool."""
        return Transfers.runs(0, self.folded - 1, self.folded, 0, len(pool), pool=pool)


def gather(n: int) -> Transfers:
    """Return the all-gather of n chunks among n ranks."""
    fold, chunks = Fold(n), np.arange(n)
    step, place, partner = fold.partners()
    first, end = (fold.first_rank((place >> step) + more << step) for more in (0, 1))
    exchange = Transfers.runs(
        step, fold.first_rank(place), fold.first_rank(partner), first, np.minimum(end, n) - first, pool=chunks
    )
    into = Transfers.single(0, fold.folded, fold.folded - 1, fold.folded)
    before = Transfers.runs(0, fold.folded - 1, fold.folded, 0, fold.folded, pool=chunks)
    after = Transfers.runs(0, fold.folded - 1, fold.folded, fold.folded + 1, n - 1 - fold.folded, pool=chunks)
    return into.then(exchange).then(Transfers.join([before, after]))


def _exchange_all(n: int) -> Transfers:
    fold, all_chunks = Fold(n), np.zeros(1, np.int64)
    step, place, partner = fold.partners()
    exchange = Transfers.single(step, fold.first_rank(place), fold.first_rank(partner), 0, reduce=True)
    return fold.into(all_chunks).then(exchange).then(fold.out(all_chunks))
