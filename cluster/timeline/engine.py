"""The timeline engine: plays a task graph over links that active transfers share max-min fairly.

Time is an integer number of picoseconds. Between two events every transfer has a constant rate; when transfers start or
end, the rates of those that share links with them, directly or through others, are found anew by progressive filling
(D. Bertsekas and R. Gallager, Data Networks, 2nd ed., section 6.5.2): the link with the smallest fair share fixes the
rates of its transfers, again and again. A transfer of rate r takes `weight` x r of a link's capacity. Transfers whose
rate does not change keep their end time, so nothing drifts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen
from numba import njit
from numpy.typing import NDArray

from cluster.timeline.heap import heap_drop, heap_push
from cluster.timeline.sharing import LINK, SAME_RATE, SIBLING, attach, component, detach, fill, grow_pool
from cluster.timeline.tasks import TaskGraph
from configs.errors import ProgramError
from configs.units import round_ps

_round_ps = njit(cache=True)(round_ps)  # the clock's one rounding, compiled


@frozen(eq=False)
class Played:
    """When every task started and ended, and the bytes that every link carried."""

    start_ps: NDArray[np.int64]
    end_ps: NDArray[np.int64]
    link_bytes: NDArray[np.float64]


def play(graph: TaskGraph, capacity_bytes_per_s: NDArray[np.float64], *, share: bool = True) -> Played:
    """Return when every task of the graph starts and ends.

    With `share` False every transfer has its links to itself (`contention: none`). Raises ProgramError if the graph
    has a cycle: chips that wait for each other for ever.
    """
    start, successors, n_before = graph.successors()
    start_ps, end_ps, n_ended = _play(
        graph.delay_ps, graph.size_bytes, graph.route, start, successors, n_before,
        graph.route_start, graph.route_links, graph.route_weights, capacity_bytes_per_s, share,
    )  # fmt: skip
    if n_ended != graph.n_tasks:
        raise ProgramError(f"{graph.n_tasks - n_ended} of {graph.n_tasks} operations wait for each other for ever")
    return Played(start_ps, end_ps, _link_bytes(graph, len(capacity_bytes_per_s)))


def _link_bytes(graph: TaskGraph, n_links: int) -> NDArray[np.float64]:
    """Return the bytes that every link carries: the sizes on every route, spread over its links."""
    n_routes = len(graph.route_start) - 1
    sent = graph.route >= 0
    on_route = np.bincount(graph.route[sent], graph.size_bytes[sent], minlength=n_routes)
    carried = np.repeat(on_route, np.diff(graph.route_start)) * graph.route_weights
    return np.bincount(graph.route_links, carried, minlength=n_links).astype(np.float64)


@njit(cache=True)
def _play(
    delay_ps: Any, size_bytes: Any, route: Any, succ_start: Any, succ: Any, n_before: Any,
    route_start: Any, route_links: Any, route_weights: Any, capacity: Any, share: bool,
) -> Any:  # fmt: skip
    n_tasks, n_links = len(delay_ps), len(capacity)
    start_ps, end_ps = np.zeros(n_tasks, np.int64), np.zeros(n_tasks, np.int64)
    # transfers: bytes left at time `since_ps`, rate, and the version of their entry in the heap (0: in their delay)
    left_bytes, since_ps = size_bytes.copy(), np.zeros(n_tasks, np.int64)
    rate, new_rate = np.zeros(n_tasks), np.zeros(n_tasks)
    version = np.zeros(n_tasks, np.int32)
    # active hops, see cluster.timeline.sharing
    pool, weights = grow_pool(np.full((512, 5), -1, np.int64), np.zeros(512))
    free = 512
    heads, task_node = np.full(n_links, -1, np.int64), np.full(n_tasks, -1, np.int64)
    in_links, in_tasks = np.zeros(n_links, np.bool_), np.zeros(n_tasks, np.bool_)
    links, tasks = np.empty(n_links, np.int64), np.empty(n_tasks, np.int64)
    room, load, open_users = np.zeros(n_links), np.zeros(n_links), np.zeros(n_links, np.int64)
    changed, is_changed, n_changed = np.empty(n_links, np.int64), np.zeros(n_links, np.bool_), 0
    # tasks that may start (each once), and events to come
    queue, queue_head, queue_tail = np.empty(n_tasks, np.int64), 0, 0
    heap, n_heap = np.empty((1024, 3), np.int64), 0
    now, n_ended = 0, 0
    for task in range(n_tasks):
        if n_before[task] == 0:
            queue[queue_tail] = task
            queue_tail += 1
    while True:
        while queue_head < queue_tail or (n_heap > 0 and heap[0, 0] == now):
            ended = -1
            if queue_head < queue_tail:
                task = queue[queue_head]
                queue_head += 1
                start_ps[task] = now
                sends = delay_ps[task] == 0
                if not sends:
                    heap = heap_push(heap, n_heap, now + delay_ps[task], task, 0)
                    n_heap += 1
            else:
                task, entry = heap[0, 1], heap[0, 2]
                heap_drop(heap, n_heap)
                n_heap -= 1
                if entry != version[task]:
                    continue  # its rate has changed since
                sends = entry == 0
                if not sends:
                    ended = task
            if sends and (route[task] < 0 or size_bytes[task] == 0):
                ended = task
            elif sends:
                version[task], since_ps[task] = 1, now
                begin, end = route_start[route[task]], route_start[route[task] + 1]
                if not share:
                    alone = np.inf
                    for i in range(begin, end):
                        alone = min(alone, capacity[route_links[i]] / route_weights[i])
                    heap = heap_push(heap, n_heap, now + _round_ps(size_bytes[task] / alone * 1e12), task, 1)
                    n_heap += 1
                    continue
                for i in range(begin, end):
                    if free < 0 or free >= len(pool):
                        free = len(pool)
                        pool, weights = grow_pool(pool, weights)
                    free = attach(task, route_links[i], route_weights[i], free, pool, weights, heads, task_node)
                    if not is_changed[route_links[i]]:
                        is_changed[route_links[i]] = True
                        changed[n_changed] = route_links[i]
                        n_changed += 1
            if ended >= 0:
                end_ps[ended] = now
                n_ended += 1
                if task_node[ended] >= 0:
                    node = task_node[ended]
                    while node >= 0:
                        if not is_changed[pool[node, LINK]]:
                            is_changed[pool[node, LINK]] = True
                            changed[n_changed] = pool[node, LINK]
                            n_changed += 1
                        node = pool[node, SIBLING]
                    free = detach(ended, free, pool, heads, task_node)
                for i in range(succ_start[ended], succ_start[ended + 1]):
                    n_before[succ[i]] -= 1
                    if n_before[succ[i]] == 0:
                        queue[queue_tail] = succ[i]
                        queue_tail += 1
        # new rates for what shares capacity with a link that has changed
        for k in range(n_changed):
            if is_changed[changed[k]]:
                n_in, n_active = component(
                    changed[k], pool, heads, task_node, in_links, in_tasks, links, tasks
                )
                for i in range(n_in):
                    in_links[links[i]] = False
                    is_changed[links[i]] = False
                fill(links, n_in, capacity, pool, weights, heads, task_node, in_tasks, new_rate, room, load, open_users)
                for i in range(n_active):
                    task = tasks[i]
                    if abs(new_rate[task] - rate[task]) <= SAME_RATE * rate[task]:
                        continue
                    left_bytes[task] -= rate[task] * (now - since_ps[task]) * 1e-12
                    rate[task], since_ps[task] = new_rate[task], now
                    version[task] += 1
                    ends = now + max(_round_ps(left_bytes[task] / rate[task] * 1e12), 0)
                    heap = heap_push(heap, n_heap, ends, task, version[task])
                    n_heap += 1
        n_changed = 0
        if n_heap == 0:
            return start_ps, end_ps, n_ended
        now = heap[0, 0]
