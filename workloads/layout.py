"""How a model is spread over ranks: even splits that need not divide, and who belongs to which group."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

from attrs import evolve, frozen

from workloads.chip import Group


@lru_cache(maxsize=4096)
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
    """Where a rank stands: its replica, its pipeline stage, its expert- and its tensor-parallel index."""

    dp: int
    pp: int
    tp: int
    ep: int = 0


@frozen
class Layout:
    """Ranks as a mesh [dp, pp, ep, tp], last axis fastest: ((dp_index·pp + pp_index)·ep + ep_index)·tp + tp_index.

    The ranks of an expert-parallel group share the experts and nothing else: each has rows of the batch of its own.
    So rows are split over dp · ep replicas. `redundant_experts` are copies of experts (`workloads.routing.spread`).

    >>> Layout(tp=4, pp=8).place(13)
    Place(dp=0, pp=3, tp=1, ep=0)
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    redundant_experts: int = 0

    @property
    def n_ranks(self) -> int:
        """Number of ranks."""
        return self.tp * self.pp * self.dp * self.ep

    @property
    def n_replicas(self) -> int:
        """Number of sets of ranks that have rows of their own."""
        return self.dp * self.ep

    def replica(self, place: Place) -> int:
        """Return which rows the rank at `place` works on."""
        return place.dp * self.ep + place.ep

    def rank(self, place: Place) -> int:
        """Return the rank that stands at `place`."""
        return ((place.dp * self.pp + place.pp) * self.ep + place.ep) * self.tp + place.tp

    def place(self, rank: int) -> Place:
        """Return where `rank` stands."""
        stage, tp = divmod(rank, self.tp)
        stage, ep = divmod(stage, self.ep)
        dp, pp = divmod(stage, self.pp)
        return Place(dp, pp, tp, ep)

    def on_stage(self, rank: int, stage: int) -> int:
        """Return the rank that holds `rank`'s place on another pipeline stage."""
        return self.rank(evolve(self.place(rank), pp=stage))

    def tp_group(self, rank: int) -> Group:
        """Return the ranks that share the layers of `rank`'s stage, by tensor-parallel index."""
        place = self.place(rank)
        first = self.rank(evolve(place, tp=0))
        return Group(f"tp.{place.dp}.{place.pp}.{place.ep}", tuple(range(first, first + self.tp)))

    @lru_cache(maxsize=65536)  # noqa: B019  layouts are few and small
    def ep_group(self, rank: int) -> Group:
        """Return the ranks that share the experts of `rank`'s stage, by expert-parallel index."""
        place = self.place(rank)
        ranks = tuple(self.rank(evolve(place, ep=index)) for index in range(self.ep))
        return Group(f"ep.{place.dp}.{place.pp}.{place.tp}", ranks)

    def pp_group(self, rank: int) -> Group:
        """Return the ranks that hold `rank`'s shard of the other stages, by stage."""
        place = self.place(rank)
        ranks = tuple(self.on_stage(rank, stage) for stage in range(self.pp))
        return Group(f"pp.{place.dp}.{place.ep}.{place.tp}", ranks)

    def dp_group(self, rank: int) -> Group:
        """Return the ranks that hold the same weights as `rank`, by replica."""
        place = self.place(rank)
        ranks = tuple(self.rank(evolve(place, dp=replica)) for replica in range(self.dp))
        return Group(f"dp.{place.pp}.{place.ep}.{place.tp}", ranks)
