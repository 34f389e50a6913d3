"""How a model is spread over ranks: even splits that need not divide, and who belongs to which group."""

from __future__ import annotations

from itertools import pairwise

from attrs import frozen

from workloads.chip import Group


def split_evenly(n: int, parts: int) -> tuple[range, ...]:
    """Return `parts` consecutive ranges that cover range(n), larger shares first.

    >>> [len(share) for share in split_evenly(9, 4)]
    [3, 2, 2, 2]
    >>> split_evenly(5, 2)
    (range(0, 3), range(3, 5))
    """
    share, larger = divmod(n, parts)
    starts = [i * share + min(i, larger) for i in range(parts + 1)]
    return tuple(range(a, b) for a, b in pairwise(starts))


@frozen
class Place:
    """Where a rank stands: its replica, its pipeline stage, its tensor-parallel index."""

    dp: int
    pp: int
    tp: int


@frozen
class Layout:
    """Ranks as a mesh [dp, pp, tp], last axis fastest: rank = (dp_index·pp + pp_index)·tp + tp_index.

    >>> Layout(tp=4, pp=8).place(13)
    Place(dp=0, pp=3, tp=1)
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1

    @property
    def n_ranks(self) -> int:
        """Number of ranks."""
        return self.tp * self.pp * self.dp

    def rank(self, place: Place) -> int:
        """Return the rank that stands at `place`."""
        return (place.dp * self.pp + place.pp) * self.tp + place.tp

    def place(self, rank: int) -> Place:
        """Return where `rank` stands."""
        stage, tp = divmod(rank, self.tp)
        dp, pp = divmod(stage, self.pp)
        return Place(dp=dp, pp=pp, tp=tp)

    def tp_group(self, rank: int) -> Group:
        """Return the ranks that share the layers of `rank`'s stage, by tensor-parallel index."""
        place = self.place(rank)
        first = self.rank(Place(place.dp, place.pp, 0))
        return Group(f"tp.{place.dp}.{place.pp}", tuple(range(first, first + self.tp)))

    def pp_group(self, rank: int) -> Group:
        """Return the ranks that hold `rank`'s shard of the other stages, by stage."""
        place = self.place(rank)
        ranks = tuple(self.rank(Place(place.dp, stage, place.tp)) for stage in range(self.pp))
        return Group(f"pp.{place.dp}.{place.tp}", ranks)

    def dp_group(self, rank: int) -> Group:
        """Return the ranks that hold the same weights as `rank`, by replica."""
        place = self.place(rank)
        ranks = tuple(self.rank(Place(replica, place.pp, place.tp)) for replica in range(self.dp))
        return Group(f"dp.{place.pp}.{place.tp}", ranks)
