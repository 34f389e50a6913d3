"""The engine's compiled core. All of it is in this file: numba's cache notices changes of a function's own file alone.

Terms: a task waits (`n_before` > 0), is in its delay, sends, or has ended. What sends has one hop per link of its route;
hop h of task t is number `hop_start[t] + h`, and the hops on a link are a doubly linked list that begins at `head[link]`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

SAME_RATE = 1e-12  # relative: rates that differ by rounding alone are the same
N_HEAP, QUEUE_HEAD, QUEUE_TAIL, N_CHANGED, N_ENDED, N_COUNTS = range(6)


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
    """What changes, one row per line: tasks, active hops, events, tasks that may start, changed links, scratch."""

    n_before: Any; start_ps: Any; end_ps: Any; left_bytes: Any; rate: Any; new_rate: Any; since_ps: Any; sends: Any  # fmt: skip  # noqa: E702
    head: Any; after: Any; before: Any  # fmt: skip  # noqa: E702
    heap: Any; place: Any; when_ps: Any  # fmt: skip  # noqa: E702
    queue: Any
    changed: Any; is_changed: Any  # fmt: skip  # noqa: E702
    links: Any; tasks: Any; in_links: Any; in_tasks: Any; room: Any; load: Any; n_open: Any  # fmt: skip  # noqa: E702
    count: Any


def new_state(graph: Graph, n_before: Any) -> State:
    """Return the state before anything has happened."""
    n, n_links, n_hops = len(graph.delay_ps), len(graph.capacity), len(graph.hop_task)
    return State(
        n_before.copy(), np.zeros(n, np.int64), np.zeros(n, np.int64), graph.size_bytes.copy(), np.zeros(n), np.zeros(n),
        np.zeros(n, np.int64), np.zeros(n, np.bool_),
        np.full(n_links, -1, np.int64), np.full(n_hops, -1, np.int64), np.full(n_hops, -1, np.int64),
        np.zeros(n, np.int64), np.full(n, -1, np.int64), np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n_links, np.int64), np.zeros(n_links, np.bool_),
        np.zeros(n_links, np.int64), np.zeros(n, np.int64), np.zeros(n_links, np.bool_), np.zeros(n, np.bool_),
        np.zeros(n_links), np.zeros(n_links), np.zeros(n_links, np.int64),
        np.zeros(N_COUNTS, np.int64),
    )  # fmt: skip


# --- events: a binary heap of tasks by (time, task), with every task's place in it ---------------------------------


@njit(cache=True, forceinline=True)
def _earlier(when_ps: Any, a: int, b: int) -> Any:
    return when_ps[a] < when_ps[b] or (when_ps[a] == when_ps[b] and a < b)


@njit(cache=True, forceinline=True)
def _sift_up(s: State, at: int) -> None:
    heap, place, when_ps = s.heap, s.place, s.when_ps
    task = heap[at]
    while at > 0 and _earlier(when_ps, task, heap[(at - 1) // 2]):
        heap[at] = heap[(at - 1) // 2]
        place[heap[at]] = at
        at = (at - 1) // 2
    heap[at], place[task] = task, at


@njit(cache=True, forceinline=True)
def _sift_down(s: State, at: int) -> None:
    heap, place, when_ps = s.heap, s.place, s.when_ps
    task, n = heap[at], s.count[N_HEAP]
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


@njit(cache=True, forceinline=True)
def _set_event(s: State, task: int, when_ps: int) -> None:
    """Let the task's next event happen at this time, instead of when it was due before."""
    s.when_ps[task] = when_ps
    if s.place[task] < 0:
        s.heap[s.count[N_HEAP]], s.place[task] = task, s.count[N_HEAP]
        s.count[N_HEAP] += 1
    else:
        _sift_down(s, s.place[task])
    _sift_up(s, s.place[task])


@njit(cache=True, forceinline=True)
def _pop_event(s: State) -> Any:
    """Remove the first event and return its task."""
    task = s.heap[0]
    s.count[N_HEAP] -= 1
    s.place[task] = -1
    if s.count[N_HEAP] > 0:
        s.heap[0] = s.heap[s.count[N_HEAP]]
        _sift_down(s, 0)
    return task


# --- tasks ---------------------------------------------------------------------------------------------------------


@njit(cache=True, forceinline=True)
def _start(g: Graph, s: State, task: int, now: int, share: bool) -> None:
    s.start_ps[task] = now
    if g.delay_ps[task] > 0:
        _set_event(s, task, now + g.delay_ps[task])
    else:
        _delay_over(g, s, task, now, share)


@njit(cache=True, forceinline=True)
def _delay_over(g: Graph, s: State, task: int, now: int, share: bool) -> None:
    """End a task, or let it send if it is a transfer."""
    if g.route[task] < 0 or g.size_bytes[task] == 0:
        _end(g, s, task, now)
        return
    s.sends[task] = True
    s.since_ps[task] = now
    begin, end = g.route_start[g.route[task]], g.route_start[g.route[task] + 1]
    if share:
        for i in range(begin, end):
            link, hop = g.route_links[i], g.hop_start[task] + i - begin
            s.after[hop], s.before[hop] = s.head[link], -1
            if s.head[link] >= 0:
                s.before[s.head[link]] = hop
            s.head[link] = hop
            _touch(s, link)
    else:
        alone = np.inf
        for i in range(begin, end):
            alone = min(alone, g.capacity[g.route_links[i]] / g.route_weights[i])
        _set_event(s, task, now + round(g.size_bytes[task] / alone * 1e12))


@njit(cache=True, forceinline=True)
def _end(g: Graph, s: State, task: int, now: int) -> None:
    """End a task: its links have room again, and those that waited for it may start."""
    s.end_ps[task] = now
    s.count[N_ENDED] += 1
    for i in range(g.succ_start[task], g.succ_start[task + 1]):
        s.n_before[g.succ[i]] -= 1
        if s.n_before[g.succ[i]] == 0:
            s.queue[s.count[QUEUE_TAIL]] = g.succ[i]
            s.count[QUEUE_TAIL] += 1


@njit(cache=True, forceinline=True)
def _leave_links(g: Graph, s: State, task: int) -> None:
    """Take a transfer's hops out of the lists of their links."""
    hop_start = g.hop_start
    route = g.route
    route_links = g.route_links
    route_start = g.route_start
    after = s.after
    before = s.before
    head = s.head
    sends = s.sends
    sends[task] = False
    begin, end = route_start[route[task]], route_start[route[task] + 1]
    for i in range(begin, end):
        link, hop = route_links[i], hop_start[task] + i - begin
        if before[hop] >= 0:
            after[before[hop]] = after[hop]
        else:
            head[link] = after[hop]
        if after[hop] >= 0:
            before[after[hop]] = before[hop]
        _touch(s, link)


@njit(cache=True, forceinline=True)
def _touch(s: State, link: int) -> None:
    """Note that the users of a link have changed."""
    if not s.is_changed[link]:
        s.is_changed[link] = True
        s.changed[s.count[N_CHANGED]] = link
        s.count[N_CHANGED] += 1


# --- rates ---------------------------------------------------------------------------------------------------------


@njit(cache=True, forceinline=True)
def _component(g: Graph, s: State, seed: int) -> Any:
    """Collect the links and tasks that share capacity with a link, directly or through others; return how many."""
    hop_task = g.hop_task
    route = g.route
    route_links = g.route_links
    route_start = g.route_start
    after = s.after
    head = s.head
    in_links = s.in_links
    in_tasks = s.in_tasks
    links = s.links
    tasks = s.tasks
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


@njit(cache=True, forceinline=True)
def _fill(g: Graph, s: State, n_links: int) -> None:
    """Find the rates of a component: the link with the least fair share fixes its transfers', again and again."""
    links, room, load, n_open, head, after = s.links, s.room, s.load, s.n_open, s.head, s.after
    hop_weight, capacity = g.hop_weight, g.capacity
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
        _fix_users(g, s, tightest, share)


@njit(cache=True, forceinline=True)
def _fix_users(g: Graph, s: State, tightest: int, share: float) -> None:
    """Give the transfers of a link, as far as they have none yet, this rate."""
    hop_task = g.hop_task
    route = g.route
    route_links = g.route_links
    route_start = g.route_start
    route_weights = g.route_weights
    after = s.after
    head = s.head
    in_tasks = s.in_tasks
    load = s.load
    n_open = s.n_open
    new_rate = s.new_rate
    room = s.room
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


@njit(cache=True, forceinline=True)
def _refresh(g: Graph, s: State, now: int) -> None:
    """Find new rates wherever the users of a link have changed, and when the transfers will end."""
    changed = s.changed
    count = s.count
    in_links = s.in_links
    is_changed = s.is_changed
    left_bytes = s.left_bytes
    links = s.links
    new_rate = s.new_rate
    rate = s.rate
    since_ps = s.since_ps
    tasks = s.tasks
    for k in range(count[N_CHANGED]):
        if not is_changed[changed[k]]:
            continue  # was in the component of an earlier one
        n_links, n_tasks = _component(g, s, changed[k])
        for i in range(n_links):
            in_links[links[i]] = False
            is_changed[links[i]] = False
        _fill(g, s, n_links)
        for i in range(n_tasks):
            task = tasks[i]
            if abs(new_rate[task] - rate[task]) <= SAME_RATE * rate[task]:
                continue
            left_bytes[task] -= rate[task] * (now - since_ps[task]) * 1e-12
            rate[task], since_ps[task] = new_rate[task], now
            _set_event(s, task, now + max(round(left_bytes[task] / rate[task] * 1e12), 0))
    count[N_CHANGED] = 0


@njit(cache=True)
def play_all(g: Graph, s: State, share: bool) -> None:
    """Play all tasks; afterwards the state holds when they started and ended.

    Events of one instant are handled together, before rates are found anew.
    """
    now = 0
    for task in range(len(s.n_before)):
        if s.n_before[task] == 0:
            s.queue[s.count[QUEUE_TAIL]] = task
            s.count[QUEUE_TAIL] += 1
    while True:
        while True:
            if s.count[QUEUE_HEAD] < s.count[QUEUE_TAIL]:
                s.count[QUEUE_HEAD] += 1
                _start(g, s, s.queue[s.count[QUEUE_HEAD] - 1], now, share)
            elif s.count[N_HEAP] > 0 and s.when_ps[s.heap[0]] == now:
                task = _pop_event(s)
                if not s.sends[task]:
                    _delay_over(g, s, task, now, share)
                else:
                    if share:
                        _leave_links(g, s, task)
                    _end(g, s, task, now)
            else:
                break
        _refresh(g, s, now)
        if s.count[N_HEAP] == 0:
            return
        now = s.when_ps[s.heap[0]]
