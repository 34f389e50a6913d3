"""Which transfers are active on which links, and their max-min fair rates.

Every hop of an active transfer is a node in the doubly linked list of its link, taken from a pool with a free list; so
memory is linear in the transfers that are active. Pool columns: task, link, next, previous (in the link's list),
sibling (the task's next hop). `heads[link]` is the first node of a link, `task_node[task]` the first hop of a task.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

TASK, LINK, NEXT, PREVIOUS, SIBLING = range(5)
SAME_RATE = 1e-12  # relative: rates that differ by rounding alone are the same


@njit(cache=True)
def grow_pool(pool: Any, weights: Any) -> Any:
    """Return the pool and the hops' weights in arrays of twice the length, new nodes chained as free by NEXT."""
    n = len(pool)
    larger = np.full((2 * n, 5), -1, np.int64)
    larger[:n] = pool
    larger[n:, NEXT] = np.arange(n + 1, 2 * n + 1)
    larger[-1, NEXT] = -1
    larger_weights = np.zeros(2 * n)
    larger_weights[:n] = weights
    return larger, larger_weights


@njit(cache=True)
def attach(task: int, link: int, weight: float, free: int, pool: Any, weights: Any, heads: Any, task_node: Any) -> Any:
    """Put a hop of the task into the link's list, in the free node; return the next free node."""
    next_free = pool[free, NEXT]
    pool[free, TASK], pool[free, LINK] = task, link
    pool[free, NEXT], pool[free, PREVIOUS] = heads[link], -1
    pool[free, SIBLING] = task_node[task]
    if heads[link] >= 0:
        pool[heads[link], PREVIOUS] = free
    heads[link] = free
    task_node[task] = free
    weights[free] = weight
    return next_free


@njit(cache=True)
def detach(task: int, free: int, pool: Any, heads: Any, task_node: Any) -> int:
    """Take all hops of the task out of their links' lists; return the next free node."""
    node = task_node[task]
    while node >= 0:
        before, after = pool[node, PREVIOUS], pool[node, NEXT]
        if before >= 0:
            pool[before, NEXT] = after
        else:
            heads[pool[node, LINK]] = after
        if after >= 0:
            pool[after, PREVIOUS] = before
        pool[node, NEXT] = free
        free, node = node, pool[node, SIBLING]
    task_node[task] = -1
    return free


@njit(cache=True)
def component(seed: int, pool: Any, heads: Any, task_node: Any, in_links: Any, in_tasks: Any, links: Any, tasks: Any) -> Any:
    """Collect the links and tasks that share capacity with link `seed`; return how many of each."""
    links[0] = seed
    in_links[seed] = True
    n_links, n_tasks, at = 1, 0, 0
    while at < n_links:
        node = heads[links[at]]
        at += 1
        while node >= 0:
            task = pool[node, TASK]
            if not in_tasks[task]:
                in_tasks[task] = True
                tasks[n_tasks] = task
                n_tasks += 1
                hop = task_node[task]
                while hop >= 0:
                    link = pool[hop, LINK]
                    if not in_links[link]:
                        in_links[link] = True
                        links[n_links] = link
                        n_links += 1
                    hop = pool[hop, SIBLING]
            node = pool[node, NEXT]
    return n_links, n_tasks


@njit(cache=True)
def fill(links: Any, n_links: int, capacity: Any, pool: Any, weights: Any, heads: Any, task_node: Any, in_tasks: Any,
         rates: Any, room: Any, load: Any, open_users: Any) -> None:  # fmt: skip
    """Progressive filling of one component; clears `in_tasks` of every task whose rate it has fixed."""
    for i in range(n_links):
        link = links[i]
        room[link], load[link], open_users[link] = capacity[link], 0.0, 0
        node = heads[link]
        while node >= 0:
            load[link] += weights[node]
            open_users[link] += 1
            node = pool[node, NEXT]
    n_open = n_links
    while True:
        tightest, share, kept = -1, np.inf, 0
        for i in range(n_open):
            link = links[i]
            if open_users[link] > 0:
                links[kept] = link
                kept += 1
                if room[link] / load[link] < share:
                    tightest, share = link, room[link] / load[link]
        n_open = kept
        if tightest < 0:
            return
        node = heads[tightest]
        while node >= 0:
            task = pool[node, TASK]
            if in_tasks[task]:
                in_tasks[task] = False
                rates[task] = share
                hop = task_node[task]
                while hop >= 0:
                    link = pool[hop, LINK]
                    room[link] -= share * weights[hop]
                    load[link] -= weights[hop]
                    open_users[link] -= 1
                    hop = pool[hop, SIBLING]
            node = pool[node, NEXT]
