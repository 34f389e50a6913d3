"""Which experts tokens go to when there are no values.

balanced: every expert gets equally many tokens (or one more), in every layer and step alike; a token's experts are as
far apart as can be, so that it goes to as many ranks as it ever may.
drawn: from a seed; expert number e (in an order that is drawn per layer) is chosen with a probability ∝ (e + 1)^-skew,
the k experts of a token without repetition: 0 is uniform, 1 is Zipf's law.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from attrs import frozen

from collectives import Rows
from workloads.layout import split_evenly

Counts = tuple[int, ...]


@frozen
class Traffic:
    """What the routing of one layer and step means: `rows[i][j]` tokens go from rank i to j; `loads[e]` to expert e."""

    rows: Rows
    loads: Counts


@frozen
class Choice:
    """What tokens choose: k of n experts, within `n_groups_kept` of their `n_groups` groups; copies of experts."""

    n_experts: int
    k: int
    n_groups: int = 1
    n_groups_kept: int = 1
    n_redundant: int = 0


@lru_cache(maxsize=64)
def balanced_traffic(tokens: Counts, choice: Choice) -> Traffic:
    """Return what `tokens[i]` tokens of every rank i mean if all experts are chosen alike.

    Token t of rank i begins at expert i · n/ranks + t; its groups, and its experts within a group, are evenly spaced.

    >>> balanced_traffic((2, 2), Choice(4, 2))
    Traffic(rows=((2, 2), (2, 2)), loads=(2, 2, 2, 2))
    """
    n, n_ranks, n_slots = choice.n_experts, len(tokens), choice.n_experts + choice.n_redundant
    n_turns = math.lcm(*set(np.bincount(copies(n, choice.n_redundant)).tolist()))
    # Tokens that begin at the same expert in the same turn go the same ways: a rank's first ones, until it all repeats.
    period, counts = math.lcm(n, n_turns), np.array(tokens, np.int64)
    rank = np.repeat(np.arange(n_ranks), np.minimum(counts, period))
    token = np.concatenate([np.arange(min(count, period)) for count in tokens])
    first, turn = (rank * n // n_ranks + token) % n, ((np.cumsum(counts) - counts)[rank] + token) % n_turns
    alike = counts[rank] // period + (token < counts[rank] % period)
    kinds = np.bincount((rank * n + first) * n_turns + turn, alike, n_ranks * n * n_turns).reshape(n_ranks, -1)
    first, turn = np.divmod(np.arange(n * n_turns), n_turns)
    slots = spread(evenly_spaced(first, choice), n, choice.n_redundant, turn)
    rows = kinds @ rank_masks(slots, n_slots, n_ranks)
    loads = np.bincount(slots.ravel(), np.repeat(kinds.sum(axis=0), choice.k), minlength=n_slots)
    return Traffic(Rows(map(tuple, rows.astype(np.int64).tolist())), tuple(loads.astype(np.int64).tolist()))


def evenly_spaced(first: npt.NDArray[np.integer], choice: Choice) -> npt.NDArray[np.integer]:
    """Return the experts of tokens that begin at these, [n, k]."""
    of_group, per_group = choice.n_experts // choice.n_groups, -(-choice.k // choice.n_groups_kept)
    j = np.arange(choice.k)
    group = first[:, None] // of_group + j // per_group * choice.n_groups // choice.n_groups_kept
    place = first[:, None] + j % per_group * of_group // per_group
    experts: npt.NDArray[np.integer] = group % choice.n_groups * of_group + place % of_group
    return experts


@lru_cache(maxsize=1024)
def drawn_traffic(
    seed: int, skew: float, layer: int, step: int, tokens: Counts, choice: Choice, part: int = 0
) -> Traffic:
    """Return what `tokens[i]` tokens of every rank i draw, those of one part of the rows.

    >>> drawn_traffic(0, 0.0, 0, 0, (2, 2), Choice(4, 4))
    Traffic(rows=((2, 2), (2, 2)), loads=(4, 4, 4, 4))
    >>> drawn_traffic(0, 0.0, 0, 0, (2, 2), Choice(4, 4, n_redundant=2)).loads
    (2, 4, 2, 4, 2, 2)
    """
    n_experts, k = choice.n_experts, choice.k
    order = np.random.default_rng([seed, layer]).permutation(n_experts)
    draw = np.random.default_rng([seed, layer, step + 1, part])
    weight = np.empty(n_experts)
    weight[order] = -skew * np.log(np.arange(1, n_experts + 1))
    merit = weight + draw.gumbel(size=(sum(tokens), n_experts))  # the k largest are a draw without repetition
    if choice.n_groups > 1:  # the best groups are those of the most popular expert
        groups = merit.reshape(len(merit), choice.n_groups, -1)
        best = np.argsort(-groups.max(axis=2), axis=1)[:, : choice.n_groups_kept]
        kept = np.zeros(groups.shape[:2], np.bool_)
        np.put_along_axis(kept, best, values=True, axis=1)
        merit = np.where(kept[:, :, None], groups, -np.inf).reshape(merit.shape)
    chosen = np.argpartition(-merit, k - 1, axis=1)[:, :k]
    return traffic_of(chosen, tokens, choice)


def copies(n_experts: int, n_redundant: int) -> Counts:
    """Return the expert that each slot holds: all of them, then the redundant copies, spread evenly over the experts.

    >>> copies(4, 2)
    (0, 1, 2, 3, 0, 2)
    """
    return (*range(n_experts), *(i * n_experts // n_redundant % n_experts for i in range(n_redundant)))


def spread(
    chosen: npt.NDArray[np.integer], n_experts: int, n_redundant: int, turn: npt.NDArray[np.integer] | None = None
) -> npt.NDArray[np.integer]:
    """Return the slots that tokens use, from the experts that they chose, [n, k]: tokens take turns at the copies.

    turn: the number of every token among all of them, by default its place here.
    """
    if not n_redundant:
        return chosen
    held = np.array(copies(n_experts, n_redundant))
    order = np.argsort(held, kind="stable")
    first, n_copies = np.searchsorted(held[order], np.arange(n_experts)), np.bincount(held, minlength=n_experts)
    turn = np.arange(len(chosen)) if turn is None else turn
    slots: npt.NDArray[np.integer] = order[first[chosen] + turn[:, None] % n_copies[chosen]]
    return slots


def traffic_of(chosen: npt.NDArray[np.integer], tokens: Counts, choice: Choice) -> Traffic:
    """Return the traffic of tokens [Σ tokens] and their experts [Σ tokens, k], rank by rank.

    The experts, copies included, are split evenly over the ranks.
    """
    n_ranks, n_slots = len(tokens), choice.n_experts + choice.n_redundant
    slots = spread(chosen, choice.n_experts, choice.n_redundant)
    goes = rank_masks(slots, n_slots, n_ranks)
    stops = np.cumsum(tokens)
    rows = (tuple(goes[stop - n : stop].sum(axis=0).tolist()) for n, stop in zip(tokens, stops.tolist(), strict=True))
    return Traffic(Rows(rows), tuple(np.bincount(slots.ravel(), minlength=n_slots).tolist()))


def rank_masks(chosen: npt.NDArray[np.integer], n_experts: int, n_ranks: int) -> npt.NDArray[np.bool_]:
    """Say to which ranks every token goes: those that hold one of its experts, [n, n_ranks]."""
    owner = np.repeat(np.arange(n_ranks), [len(share) for share in split_evenly(n_experts, n_ranks)])
    goes = np.zeros((len(chosen), n_ranks), np.bool_)
    np.put_along_axis(goes, owner[chosen], values=True, axis=1)
    return goes
