"""How a model is spread over chips: degrees, places, experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen

from configs.fields import at_least, between, keys_of

MOST_COPIES = 10_000  # of experts


@frozen
class ParallelSpec:
    """Degrees of parallelism; their product is the number of chips in use.

    sequence: between the blocks of a layer, the ranks that share matrices have a share of the tokens each.
    tp_grid: x, y with x · y = tp: matrices are cut into x parts along the hidden size and y along the other side.
    tp_attention: on a grid, whether the ranks split attention by heads or by rows of the batch.
    """

    tp: int = field(default=1, metadata=at_least(1))
    pp: int = field(default=1, metadata=at_least(1))
    dp: int = field(default=1, metadata=at_least(1))
    ep: int = field(default=1, metadata=at_least(1))
    cp: int = field(default=1, metadata=at_least(1))
    sequence: bool = False
    tp_grid: tuple[int, int] | None = field(default=None, metadata=at_least(1))
    tp_attention: Literal["heads", "batch"] = "heads"

    @property
    def n_ranks(self) -> int:
        """Number of chips in use."""
        return self.tp * self.pp * self.dp * self.ep * self.cp


@frozen
class PlacementSpec:
    """Which chip every rank is: the one of the same number, the fastest of several orders, or along named axes.

    axes: for tp, ep, cp, pp, dp, the axes of the topology that they go along, the last one fastest.
    """

    kind: Literal["identity", "auto", "axes"] = "axes"
    axes: Mapping[str, tuple[str, ...]] = field(factory=dict, metadata=keys_of(("tp", "ep", "cp", "pp", "dp")))


IDENTITY = PlacementSpec("identity")


AUTO = PlacementSpec("auto")


@frozen
class ExpertsSpec:
    """How a mixture of experts is run.

    redundant: copies of experts beyond the first, spread evenly over the experts; tokens take turns at the copies.
    skew: without values, how unevenly experts are drawn: the e-th most popular one ∝ e^-skew (0: all alike). None draws
    nothing: every expert gets equally many tokens.
    """

    redundant: int = field(default=0, metadata=between(0, MOST_COPIES))
    skew: float | None = field(default=None, metadata=between(0, 10))
