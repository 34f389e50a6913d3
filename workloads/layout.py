"""How a model is spread over ranks: even splits that need not divide, and who belongs to which group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Literal

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
    """Where a rank stands: its replica, its pipeline stage, its expert-, context- and tensor-parallel index."""

    dp: int
    pp: int
    tp: int
    ep: int = 0
    cp: int = 0


@frozen
class Layout:
    """Ranks as a mesh [dp, pp, cp, ep, tp], last axis fastest.

    The ranks of an expert-parallel group share the experts and nothing else: each has rows of the batch of its own.
    So rows are split over dp · ep replicas. `redundant_experts` are copies of experts (`workloads.routing.spread`).
    The ranks of a context-parallel group have the same rows and split their KV cache along the sequence; outside of
    attention they share all matrices, so these are split over cp · tp ranks (`shard_group`).
    `sequence`: between blocks the ranks that share matrices have a share of the tokens each.
    `tp_grid`: (x, y), x · y = tp: every matrix between hidden states and a block's inside is cut along both sides, its
    hidden side into x parts and the other one into y (Pope et al., arXiv 2211.05102, section 3.2.2: E_x F_yz). The
    rank of index i has part i mod x of the hidden side and part i // x of the other; each of the tp ranks owns an even
    share of the latter as without a grid, and an even share of its part of the hidden states between the blocks.
    `tp_attention`: on a grid, what of attention each of the tp ranks has: some heads, or some rows of the batch.
    `chips`: the chip of every place, in the order of the mesh, where that is not the chip of the same number. All
    methods take and return chips' numbers; only `rank` and `place` know of the mesh's.

    >>> Layout(tp=4, pp=8).place(13)
    Place(dp=0, pp=3, tp=1, ep=0, cp=0)
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    redundant_experts: int = 0
    cp: int = 1
    sequence: bool = False
    tp_grid: tuple[int, int] | None = None
    tp_attention: Literal["heads", "batch"] = "heads"
    chips: tuple[int, ...] = ()

    @property
    def n_ranks(self) -> int:
        """Number of ranks."""
        return self.width * self.pp * self.dp * self.ep

    @property
    def ranks(self) -> tuple[int, ...]:
        """The chips in use, in the order of the mesh."""
        return self.chips or tuple(range(self.n_ranks))

    @property
    def width(self) -> int:
        """Number of ranks that share a matrix."""
        return self.cp * self.tp

    @property
    def n_replicas(self) -> int:
        """Number of sets of ranks that have rows of their own."""
        return self.dp * self.ep

    def replica(self, place: Place) -> int:
        """Return which rows the rank at `place` works on."""
        return place.dp * self.ep + place.ep

    def index(self, place: Place) -> int:
        """Return the index of the rank at `place` among those that share its matrices."""
        return place.cp * self.tp + place.tp

    def across(self, place: Place) -> range:
        """Return the indices of the ranks that have the same part of a block's inside, and other hidden parts.

        >>> layout = Layout(tp=8, tp_grid=(2, 4))
        >>> layout.across(Place(0, 0, 5)), layout.along(Place(0, 0, 5))
        (range(4, 6), range(1, 8, 2))
        """
        index, n = self.index(place), self.tp_grid[0] if self.tp_grid else 1
        return range(index - index % n, index - index % n + n)

    def along(self, place: Place) -> range:
        """Return the indices of the ranks that have the same part of the hidden side; without a grid, of all."""
        n = self.tp_grid[0] if self.tp_grid else 1
        return range(self.index(place) % n, self.width, n)

    def shares(self, n: int, place: Place) -> tuple[range, ...]:
        """Return the even shares, of n things inside of a block, of the ranks `across`."""
        across = self.across(place)
        return split_evenly(n, self.width)[across.start : across.stop]

    def hidden_shares(self, hidden: int, place: Place) -> tuple[range, ...]:
        """Return the shares of the hidden states of the ranks `along`; without a grid, each has all.

        >>> Layout(tp=4, tp_grid=(2, 2)).hidden_shares(10, Place(0, 0, 3))
        (range(6, 8), range(8, 10))
        """
        if self.tp_grid is None:
            return (range(hidden),) * self.width
        n_along = self.tp_grid[1]
        first = self.index(place) % self.tp_grid[0] * n_along
        return split_evenly(hidden, self.width)[first : first + n_along]

    def part(self, n: int, place: Place) -> range:
        """Return which of n things inside of a block the rank's matrices have: the shares of the ranks `across`."""
        shares = self.shares(n, place)
        return range(shares[0].start, shares[-1].stop)

    def hidden_part(self, hidden: int, place: Place) -> range:
        """Return the part of the hidden side that the rank's matrices have; without a grid, all."""
        shares = self.hidden_shares(hidden, place)
        return range(shares[0].start, shares[-1].stop)

    def own_hidden(self, hidden: int, place: Place) -> range:
        """Return the rank's share of the hidden states between the blocks; without a grid, all."""
        return self.hidden_shares(hidden, place)[self.along(place).index(self.index(place))]

    def rank(self, place: Place) -> int:
        """Return the rank that stands at `place`."""
        stage = (place.dp * self.pp + place.pp) * self.cp + place.cp
        number = (stage * self.ep + place.ep) * self.tp + place.tp
        return self.chips[number] if self.chips else number

    def place(self, rank: int) -> Place:
        """Return where `rank` stands."""
        stage, tp = divmod(_numbers(self.chips)[rank] if self.chips else rank, self.tp)
        stage, ep = divmod(stage, self.ep)
        stage, cp = divmod(stage, self.cp)
        dp, pp = divmod(stage, self.pp)
        return Place(dp, pp, tp, ep, cp)

    def on_stage(self, rank: int, stage: int) -> int:
        """Return the rank that holds `rank`'s place on another pipeline stage."""
        return self.rank(evolve(self.place(rank), pp=stage))

    def shard_group(self, rank: int) -> Group:
        """Return the ranks that share the matrices of `rank`'s stage, by index."""
        return self._shard_group(evolve(self.place(rank), cp=0, tp=0))

    @lru_cache(maxsize=4096)  # noqa: B019  layouts are few and small
    def _shard_group(self, place: Place) -> Group:
        ranks = (self.rank(evolve(place, cp=cp, tp=tp)) for cp in range(self.cp) for tp in range(self.tp))
        return Group(f"tp.{place.dp}.{place.pp}.{place.ep}", tuple(ranks))

    def across_group(self, rank: int) -> Group:
        """Return the ranks `across`, by their hidden part."""
        place, group = self.place(rank), self.shard_group(rank)
        indices = self.across(place)
        return Group(f"tp_x.{place.dp}.{place.pp}.{place.ep}.{indices[0]}", tuple(group.ranks[i] for i in indices))

    def along_group(self, rank: int) -> Group:
        """Return the ranks `along`, by their part of a block's inside."""
        place, group = self.place(rank), self.shard_group(rank)
        indices = self.along(place)
        return Group(f"tp_y.{place.dp}.{place.pp}.{place.ep}.{indices[0]}", tuple(group.ranks[i] for i in indices))

    def cp_group(self, rank: int) -> Group:
        """Return the ranks that split the KV cache of `rank`'s heads, by context-parallel index."""
        place = self.place(rank)
        ranks = tuple(self.rank(evolve(place, cp=index)) for index in range(self.cp))
        return Group(f"cp.{place.dp}.{place.pp}.{place.ep}.{place.tp}", ranks)

    def ep_group(self, rank: int) -> Group:
        """Return the ranks that share the experts of `rank`'s stage, by expert-parallel index."""
        return self._ep_group(evolve(self.place(rank), ep=0))

    @lru_cache(maxsize=4096)  # noqa: B019  layouts are few and small
    def _ep_group(self, place: Place) -> Group:
        ranks = tuple(self.rank(evolve(place, ep=index)) for index in range(self.ep))
        return Group(f"ep.{place.dp}.{place.pp}.{place.cp}.{place.tp}", ranks)

    def pp_group(self, rank: int) -> Group:
        """Return the ranks that hold `rank`'s shard of the other stages, by stage."""
        place = self.place(rank)
        ranks = tuple(self.on_stage(rank, stage) for stage in range(self.pp))
        return Group(f"pp.{place.dp}.{place.cp}.{place.ep}.{place.tp}", ranks)

    def dp_group(self, rank: int) -> Group:
        """Return the ranks that hold the same weights as `rank`, by replica."""
        place = self.place(rank)
        ranks = tuple(self.rank(evolve(place, dp=replica)) for replica in range(self.dp))
        return Group(f"dp.{place.pp}.{place.cp}.{place.ep}.{place.tp}", ranks)

    def group_like(self, group: Group, rank: int) -> Group:
        """Return the group of `rank` that is of the same kind as another rank's; a group of all ranks stays.

        >>> layout = Layout(tp=2, dp=3)
        >>> layout.group_like(layout.shard_group(0), 5)
        Group(name='tp.2.0.0', ranks=(4, 5))
        """
        kinds: Mapping[str, Callable[[int], Group]]
        kinds = {
            "tp": self.shard_group,
            "tp_x": self.across_group,
            "tp_y": self.along_group,
            "cp": self.cp_group,
            "ep": self.ep_group,
            "pp": self.pp_group,
            "dp": self.dp_group,
        }
        kind = group.name.partition(".")[0]
        return kinds[kind](rank) if kind in kinds else group


@lru_cache(maxsize=16)
def _numbers(chips: tuple[int, ...]) -> dict[int, int]:
    """Return the place in the mesh of every chip."""
    return {chip: number for number, chip in enumerate(chips)}
