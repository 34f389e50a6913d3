"""The engine's compiled core. All of it is in this file: numba's cache notices changes of a function's own file alone.

Terms: a task waits (`n_before` > 0), is in its delay, sends, or has ended. What sends has one hop per link of its
route; hop h of task t is number `hop_start[t] + h`, and the hops on a link are a doubly linked list that begins at
`head[link]`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

SAME_RATE = 1e-12  # relative: rates that differ by rounding alone are the same


class Graph(NamedTuple):
    """What does not change: see `cluster.timeline.tasks.TaskGraph`; `capacity` in bytes/s per link."""

    delay_ps: Any
    size_bytes: Any
    route: Any
    succ_start: Any
    succ: Any
    route_start: Any
    route_links: Any
    route_weights: Any
    capacity: Any
    hop_start: Any
    hop_task: Any
    hop_weight: Any


class State(NamedTuple):
    """What changes: the state of tasks, the lists of active hops, the heap of events, and scratch."""

    # tasks
    n_before: Any
    start_ps: Any
    end_ps: Any
    left_bytes: Any  # at time since_ps
    rate: Any
    new_rate: Any
    since_ps: Any
    sends: Any
    # active hops
    head: Any
    after: Any
    before: Any
    # events
    heap: Any
    place: Any
    when_ps: Any
    # tasks that may start, in turn; links whose users have changed
    queue: Any
    changed: Any
    is_changed: Any
    # scratch: the component at hand
    links: Any
    tasks: Any
    in_links: Any
    in_tasks: Any
    room: Any
    load: Any
    n_open: Any


def new_state(graph: Graph, n_before: Any) -> State:
    """Return the state before anything has happened."""
    n, n_links, n_hops = len(graph.delay_ps), len(graph.capacity), len(graph.hop_task)
    return State(
        n_before.copy(), np.zeros(n, np.int64), np.zeros(n, np.int64), graph.size_bytes.copy(), np.zeros(n),
        np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.bool_),
        np.full(n_links, -1, np.int64), np.full(n_hops, -1, np.int64), np.full(n_hops, -1, np.int64),
        np.zeros(n, np.int64), np.full(n, -1, np.int64), np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n_links, np.int64), np.zeros(n_links, np.bool_),
        np.zeros(n_links, np.int64), np.zeros(n, np.int64), np.zeros(n_links, np.bool_), np.zeros(n, np.bool_),
        np.zeros(n_links), np.zeros(n_links), np.zeros(n_links, np.int64),
    )  # fmt: skip


# The functions below take arrays, not the tuples: numba counts references at every access to a field of a tuple, which
# made the whole four times slower.

# --- events: a binary heap of tasks by (time, task), with every task's place in it ---------------------------------


@njit(cache=True)
def _earlier(when_ps: Any, a: int, b: int) -> Any:
    return when_ps[a] < when_ps[b] or (when_ps[a] == when_ps[b] and a < b)


@njit(cache=True)
def _sift_up(at: int, when_ps: Any, heap: Any, place: Any) -> None:
    task = heap[at]
    while at > 0 and _earlier(when_ps, task, heap[(at - 1) // 2]):
        heap[at] = heap[(at - 1) // 2]
        place[heap[at]] = at
        at = (at - 1) // 2
    heap[at], place[task] = task, at


@njit(cache=True)
def _sift_down(at: int, when_ps: Any, heap: Any, place: Any, n: int) -> None:
    task = heap[at]
    while 2 * at + 1 < n:
        child = 2 * at + 1
        if child + 1 < n and _earlier(when_ps, heap[child + 1], heap[child]):
            child += 1
        if not _earlier(when_ps, heap[child], task):
            break
        heap[at] = heap[child]
        place[heap[at]] = at
        at = child
    heap[at], place[task] = task, at


@njit(cache=True)
def _set_event(task: int, new_ps: int, when_ps: Any, heap: Any, place: Any, n: int) -> Any:
    """Let the task's next event happen at this time, instead of when it was due before; return how many there are."""
    when_ps[task] = new_ps
    if place[task] < 0:
        heap[n], place[task] = task, n
        n += 1
    else:
        _sift_down(place[task], when_ps, heap, place, n)
    _sift_up(place[task], when_ps, heap, place)
    return n


@njit(cache=True)
def _drop_first(when_ps: Any, heap: Any, place: Any, n: int) -> Any:
    """Remove the first event; return how many are left."""
    place[heap[0]] = -1
    n -= 1
    if n > 0:
        heap[0] = heap[n]
        _sift_down(0, when_ps, heap, place, n)
    return n


# --- active hops ---------------------------------------------------------------------------------------------------


@njit(cache=True)
def _join_link(hop: int, link: int, head: Any, after: Any, before: Any) -> None:
    after[hop], before[hop] = head[link], -1
    if head[link] >= 0:
        before[head[link]] = hop
    head[link] = hop


@njit(cache=True)
def _leave_link(hop: int, link: int, head: Any, after: Any, before: Any) -> None:
    if before[hop] >= 0:
        after[before[hop]] = after[hop]
    else:
        head[link] = after[hop]
    if after[hop] >= 0:
        before[after[hop]] = before[hop]


@njit(cache=True)
def _note(link: int, changed: Any, is_changed: Any, n: int) -> Any:
    """Note that the users of a link have changed; return how many such links there are."""
    if not is_changed[link]:
        is_changed[link] = True
        changed[n] = link
        n += 1
    return n


# --- rates ---------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _component(
    seed: int, head: Any, after: Any, hop_task: Any, route: Any, route_start: Any, route_links: Any,
    links: Any, tasks: Any, in_links: Any, in_tasks: Any,
) -> Any:  # fmt: skip
    """Collect the links and tasks that share capacity with a link, directly or through others; return how many."""
    links[0] = seed
    in_links[seed] = True
    n_links, n_tasks, at = 1, 0, 0
    while at < n_links:
        hop = head[links[at]]
        at += 1
        while hop >= 0:
            task = hop_task[hop]
            if not in_tasks[task]:
                in_tasks[task] = True
                tasks[n_tasks] = task
                n_tasks += 1
                for i in range(route_start[route[task]], route_start[route[task] + 1]):
                    link = route_links[i]
                    if not in_links[link]:
                        in_links[link] = True
                        links[n_links] = link
                        n_links += 1
            hop = after[hop]
    return n_links, n_tasks


@njit(cache=True)
def _fill(
    links: Any, n_links: int, capacity: Any, head: Any, after: Any, hop_task: Any, hop_weight: Any,
    route: Any, route_start: Any, route_links: Any, route_weights: Any,
    in_tasks: Any, new_rate: Any, room: Any, load: Any, n_open: Any,
) -> None:  # fmt: skip
    """Find the rates of a component: the link with the least fair share fixes its transfers', again and again.

    `in_tasks` says which of its transfers have no rate yet; afterwards none.
    """
    for i in range(n_links):
        link = links[i]
        room[link], load[link], n_open[link] = capacity[link], 0.0, 0
        hop = head[link]
        while hop >= 0:
            load[link] += hop_weight[hop]
            n_open[link] += 1
            hop = after[hop]
    n_left = n_links
    while True:
        tightest, share, kept = -1, np.inf, 0
        for i in range(n_left):
            link = links[i]
            if n_open[link] > 0:
                links[kept] = link
                kept += 1
                if room[link] / load[link] < share:
                    tightest, share = link, room[link] / load[link]
        n_left = kept
        if tightest < 0:
            return
        hop = head[tightest]
        while hop >= 0:
            task = hop_task[hop]
            if in_tasks[task]:
                in_tasks[task] = False
                new_rate[task] = share
                for i in range(route_start[route[task]], route_start[route[task] + 1]):
                    link = route_links[i]
                    room[link] -= share * route_weights[i]
                    load[link] -= route_weights[i]
                    n_open[link] -= 1
            hop = after[hop]


@njit(cache=True)
def play_all(g: Graph, s: State, share: bool) -> int:
    """Play all tasks; return how many have ended, and leave in the state when they started and ended.

    Events of one instant are handled together, before rates are found anew.
    """
    delay_ps, size_bytes, route, succ_start, succ = g.delay_ps, g.size_bytes, g.route, g.succ_start, g.succ
    route_start, route_links, route_weights, capacity = g.route_start, g.route_links, g.route_weights, g.capacity
    hop_start, hop_task, hop_weight = g.hop_start, g.hop_task, g.hop_weight
    n_before, start_ps, end_ps, queue, sends = s.n_before, s.start_ps, s.end_ps, s.queue, s.sends
    left_bytes, since_ps, rate, new_rate = s.left_bytes, s.since_ps, s.rate, s.new_rate
    head, after, before, heap, place, when_ps = s.head, s.after, s.before, s.heap, s.place, s.when_ps
    changed, is_changed, links, tasks = s.changed, s.is_changed, s.links, s.tasks
    in_links, in_tasks, room, load, n_open = s.in_links, s.in_tasks, s.room, s.load, s.n_open
    now, n_events, n_changed, n_ended, next_in_queue, end_of_queue = 0, 0, 0, 0, 0, 0
    for task in range(len(n_before)):
        if n_before[task] == 0:
            queue[end_of_queue] = task
            end_of_queue += 1
    while True:
        while next_in_queue < end_of_queue or (n_events > 0 and when_ps[heap[0]] == now):
            if next_in_queue < end_of_queue:
                task = queue[next_in_queue]
                next_in_queue += 1
                start_ps[task] = now
                if delay_ps[task] > 0:
                    n_events = _set_event(task, now + delay_ps[task], when_ps, heap, place, n_events)
                    continue
            else:
                task = heap[0]
                n_events = _drop_first(when_ps, heap, place, n_events)
            if route[task] >= 0 and size_bytes[task] > 0:
                begin, n_hops = route_start[route[task]], route_start[route[task] + 1] - route_start[route[task]]
                if not sends[task]:
                    sends[task], since_ps[task] = True, now
                    alone = np.inf
                    for i in range(n_hops):
                        link = route_links[begin + i]
                        alone = min(alone, capacity[link] / route_weights[begin + i])
                        if share:
                            _join_link(hop_start[task] + i, link, head, after, before)
                            n_changed = _note(link, changed, is_changed, n_changed)
                    if not share:
                        ends_ps = now + round(size_bytes[task] / alone * 1e12)
                        n_events = _set_event(task, ends_ps, when_ps, heap, place, n_events)
                    continue
                if share:
                    for i in range(n_hops):
                        _leave_link(hop_start[task] + i, route_links[begin + i], head, after, before)
                        n_changed = _note(route_links[begin + i], changed, is_changed, n_changed)
            end_ps[task] = now
            n_ended += 1
            for i in range(succ_start[task], succ_start[task + 1]):
                n_before[succ[i]] -= 1
                if n_before[succ[i]] == 0:
                    queue[end_of_queue] = succ[i]
                    end_of_queue += 1
        for k in range(n_changed):
            if not is_changed[changed[k]]:
                continue  # was in the component of an earlier one
            n_links, n_tasks = _component(
                changed[k], head, after, hop_task, route, route_start, route_links, links, tasks, in_links, in_tasks
            )
            for i in range(n_links):
                in_links[links[i]] = False
                is_changed[links[i]] = False
            _fill(
                links, n_links, capacity, head, after, hop_task, hop_weight, route, route_start, route_links,
                route_weights, in_tasks, new_rate, room, load, n_open,
            )  # fmt: skip
            for i in range(n_tasks):
                task = tasks[i]
                if abs(new_rate[task] - rate[task]) <= SAME_RATE * rate[task]:
                    continue
                left_bytes[task] -= rate[task] * (now - since_ps[task]) * 1e-12
                rate[task], since_ps[task] = new_rate[task], now
                ends_ps = now + max(round(left_bytes[task] / rate[task] * 1e12), 0)
                n_events = _set_event(task, ends_ps, when_ps, heap, place, n_events)
        n_changed = 0
        if n_events == 0:
            return n_ended
        now = when_ps[heap[0]]
