"""Which experts tokens go to when there are no values: drawn from a seed, with a chosen skew.

Expert number e (in an order that is drawn per layer) is chosen with a probability ∝ (e + 1)^-skew, the k experts of a
token without repetition: 0 is uniform, 1 is Zipf's law.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from attrs import frozen

from workloads.layout import split_evenly

Counts = tuple[int, ...]
Table = tuple[Counts, ...]


@frozen
class Traffic:
    """What the routing of one layer and step means: `rows[i][j]` tokens go from rank i to j; `loads[e]` to expert e."""

    rows: Table
    loads: Counts


@lru_cache(maxsize=64)
def drawn_traffic(
    seed: int, skew: float, layer: int, step: int, tokens: Counts, n_experts: int, k: int, n_redundant: int = 0
) -> Traffic:
    """Return what `tokens[i]` tokens of every rank i draw; the experts are split evenly over as many ranks.

    >>> drawn_traffic(0, 0.0, 0, 0, (2, 2), 4, 4)
    Traffic(rows=((2, 2), (2, 2)), loads=(4, 4, 4, 4))
    >>> drawn_traffic(0, 0.0, 0, 0, (2, 2), 4, 4, n_redundant=2).loads
    (2, 4, 2, 4, 2, 2)
    """
    order = np.random.default_rng([seed, layer]).permutation(n_experts)
    draw = np.random.default_rng([seed, layer, step + 1])
    weight = np.empty(n_experts)
    weight[order] = -skew * np.log(np.arange(1, n_experts + 1))
    merit = weight + draw.gumbel(size=(sum(tokens), n_experts))  # the k largest are a draw without repetition
    chosen = np.argpartition(-merit, k - 1, axis=1)[:, :k]
    return traffic_of(spread(chosen, n_experts, n_redundant), tokens, n_experts + n_redundant)


def copies(n_experts: int, n_redundant: int) -> Counts:
    """Return the expert that each slot holds: all of them, then the redundant copies, spread evenly over the experts.

    >>> copies(4, 2)
    (0, 1, 2, 3, 0, 2)
    """
    return (*range(n_experts), *(i * n_experts // n_redundant % n_experts for i in range(n_redundant)))


def spread(chosen: npt.NDArray[np.integer], n_experts: int, n_redundant: int) -> npt.NDArray[np.integer]:
    """Return the slots that tokens use, from the experts that they chose, [n, k]: tokens take turns at the copies."""
    if not n_redundant:
        return chosen
    held = np.array(copies(n_experts, n_redundant))
    order = np.argsort(held, kind="stable")
    first, n_copies = np.searchsorted(held[order], np.arange(n_experts)), np.bincount(held, minlength=n_experts)
    turn = np.arange(len(chosen))[:, None] % n_copies[chosen]
    slots: npt.NDArray[np.integer] = order[first[chosen] + turn]
    return slots


def traffic_of(chosen: npt.NDArray[np.integer], tokens: Counts, n_experts: int) -> Traffic:
    """Return the traffic of tokens [Σ tokens] and their experts [Σ tokens, k], rank by rank."""
    n_ranks = len(tokens)
    goes = rank_masks(chosen, n_experts, n_ranks)
    stops = np.cumsum(tokens)
    rows = tuple(
        tuple(goes[stop - n : stop].sum(axis=0).tolist()) for n, stop in zip(tokens, stops.tolist(), strict=True)
    )
    return Traffic(rows, tuple(np.bincount(chosen.ravel(), minlength=n_experts).tolist()))


def rank_masks(chosen: npt.NDArray[np.integer], n_experts: int, n_ranks: int) -> npt.NDArray[np.bool_]:
    """Say to which ranks every token goes: those that hold one of its experts, [n, n_ranks]."""
    owner = np.repeat(np.arange(n_ranks), [len(share) for share in split_evenly(n_experts, n_ranks)])
    goes = np.zeros((len(chosen), n_ranks), np.bool_)
    np.put_along_axis(goes, owner[chosen], values=True, axis=1)
    return goes
