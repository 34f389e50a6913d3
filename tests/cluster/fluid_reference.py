"""A slow fluid model in exact arithmetic, to hold against the timeline engine.

Rates are fractions; the clock is whole picoseconds: an end is rounded once, to even, each time its rate changes.
Everything is looked up anew at every event; nothing is kept but what a transfer has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from attrs import frozen

from cluster.timeline.tasks import TaskGraph

PS = 10**12


@frozen
class Task:
    """A delay, and then `size` bytes over links {link: weight}; begins when `after` have ended."""

    delay_ps: int = 0
    size: int = 0
    links: tuple[tuple[int, float], ...] = ()
    after: tuple[int, ...] = ()


def fair_rates(active: dict[int, Task], capacity: Sequence[float]) -> dict[int, Fraction]:
    """Return max-min fair rates: all grow alike; who meets a full link stops; and so on until all have stopped."""
    uses = {i: {} for i in active}
    for i, task in active.items():
        for link, weight in task.links:
            uses[i][link] = uses[i].get(link, Fraction(0)) + Fraction(weight)
    rates: dict[int, Fraction] = {}
    level = Fraction(0)
    while len(rates) < len(active):
        growing = [i for i in active if i not in rates]
        full_at = {}
        for link in {link for i in growing for link in uses[i]}:
            taken = sum((rates[i] * uses[i].get(link, 0) for i in rates), Fraction(0))
            per_level = sum(uses[i].get(link, 0) for i in growing)
            full_at[link] = (Fraction(capacity[link]) - taken) / per_level
        level = min(full_at.values())
        for i in growing:
            if any(full_at[link] == level for link in uses[i]):
                rates[i] = level
    _assert_fair(active, uses, rates, capacity)
    return rates


def _assert_fair(active, uses, rates, capacity) -> None:
    """Check the definition: no link is overfull, and everybody has a full link on which nobody is faster."""
    load = {}
    for i in active:
        for link, use in uses[i].items():
            load[link] = load.get(link, Fraction(0)) + rates[i] * use
    assert all(load[link] <= Fraction(capacity[link]) for link in load)
    for i in active:
        assert any(
            load[link] == Fraction(capacity[link]) and all(rates[j] <= rates[i] for j in active if link in uses[j])
            for link in uses[i]
        )


def simulate(tasks: Sequence[Task], capacity: Sequence[float], *, share: bool = True) -> list[tuple[int, int]]:
    """Return (start, end) of every task in ps."""
    start: dict[int, int] = {}
    end: dict[int, int] = {}
    left: dict[int, Fraction] = {}  # of the transfers under way
    rate: dict[int, Fraction] = {}
    since: dict[int, int] = {}
    now = 0
    while len(end) < len(tasks):
        settled = False
        while not settled:  # everything that happens at this moment
            settled = True
            for i, task in enumerate(tasks):
                if i not in start and all(j in end for j in task.after):
                    start[i], settled = now, False
                if i in start and i not in end and i not in left and start[i] + task.delay_ps == now:
                    settled = False
                    if task.size and task.links:
                        left[i] = Fraction(task.size)
                    else:
                        end[i] = now
                if i in rate and since[i] + round(left[i] / rate[i] * PS) <= now:
                    end[i], settled = now, False
                    del left[i], rate[i], since[i]
        active = {i: tasks[i] for i in left}
        alone = {i: fair_rates({i: tasks[i]}, capacity)[i] for i in active}
        for i, new in (fair_rates(active, capacity) if share else alone).items():
            if rate.get(i) != new:
                if i in rate:
                    left[i] -= rate[i] * Fraction(now - since[i], PS)
                rate[i], since[i] = new, now
        coming = [start[i] + tasks[i].delay_ps for i in start if i not in end and i not in left]
        coming += [max(now, since[i] + round(left[i] / rate[i] * PS)) for i in rate]
        if coming:
            now = min(coming)
        else:
            assert len(end) == len(tasks), "the tasks wait for each other"
    return [(start[i], end[i]) for i in range(len(tasks))]


def graph_of(tasks: Sequence[Task]) -> TaskGraph:
    """Return the same tasks as the engine's flat arrays, one route for each."""
    links = [link for t in tasks for link, _ in t.links]
    weights = [weight for t in tasks for _, weight in t.links]
    edges = np.array([(j, i) for i, t in enumerate(tasks) for j in t.after], np.int64).reshape(-1, 2)
    return TaskGraph(
        np.array([t.delay_ps for t in tasks], np.int64),
        np.array([t.size for t in tasks], np.float64),
        np.array([i if t.links else -1 for i, t in enumerate(tasks)], np.int32),
        edges[:, 0],
        edges[:, 1],
        np.cumsum([0, *(len(t.links) for t in tasks)], dtype=np.int64),
        np.array(links, np.int32),
        np.array(weights, np.float64),
    )
