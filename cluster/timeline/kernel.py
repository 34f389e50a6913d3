"""The engine's compiled core. All of it is in this file: numba's cache notices changes of a function's own file alone.

Terms: a task waits (`n_before` > 0), is in its delay, sends, or has ended. What sends has a slot and, for every link of
its route, a hop; the hops on a link are a doubly linked list that begins at `head[link]`. Slots and hops are used
again, so what is touched of their arrays is linear in the transfers that are active at once. Where millions of hops are
walked, what counts is how often memory is waited for: what a walk reads of a hop lies together, and is left in a row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

HOP = np.dtype([("after", np.int32), ("slot", np.int32), ("weight", np.float64)])
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


class Calls(NamedTuple):
    """Calls of collectives that are not played but looked up (`cluster.timeline.reuse`).

    Call c waits at task `first_join + c` for the entries of its members, tasks `entry[member[c]:member[c + 1]]`. The
    pattern of `kind[c]` with the same differences between them says how much later than the last of them each member
    leaves: the delay of the task in `leave` at the same place.
    """

    first_join: Any
    kind: Any
    member: Any
    entry: Any
    leave: Any
    chosen: Any  # the pattern of every call, once it is known
    first_pattern: Any  # of every kind, or -1
    next_pattern: Any  # of the same kind, or -1
    pattern_at: Any
    enters: Any
    leaves: Any


class State(NamedTuple):
    """What changes: the state of tasks, the events to come, the slots and hops of what sends, and scratch."""

    counters: Any  # the local variables of play_all, while it is away
    # tasks, and those that may start, in turn
    n_before: Any
    start_ps: Any
    end_ps: Any
    queue: Any
    # events: ends of delays (a heap), ends of transfers (a heap, with every slot's place in it)
    delay_when: Any
    delay_task: Any
    end_when: Any
    end_slot: Any
    place: Any
    # slots
    slot_task: Any
    first_hop: Any
    first_link: Any
    n_hops: Any
    left_bytes: Any  # at time since_ps
    rate: Any
    new_rate: Any
    since_ps: Any
    free_slots: Any
    # hops
    hops: Any  # of dtype HOP
    before: Any
    free_hops: Any  # by the number of hops that lie together; -1 for none
    # links, and those whose users have changed
    head: Any
    changed: Any
    is_changed: Any
    # scratch: the component at hand
    links: Any
    slots: Any
    in_links: Any
    in_slots: Any
    room: Any
    load: Any
    n_open: Any
    fair: Any
    members: Any  # the slots on every link, link by link; those of a link begin at member_start
    member_start: Any
    # what links carry over time, if asked for: every link's row or -1 (empty if not asked), [row, bin], width of a bin
    row_of: Any
    carried_bytes: Any
    bin_ps: Any


def new_state(graph: Graph, n_before: Any, row_of: Any, carried_bytes: Any, bin_ps: int) -> State:
    """Return the state before anything has happened; of what is not filled here, the system gives what is touched."""
    n, n_links = len(graph.delay_ps), len(graph.capacity)
    sends = graph.route[(graph.route >= 0) & (graph.size_bytes > 0)]
    lengths = np.diff(graph.route_start)
    n_slots, n_hops, most = len(sends), int(lengths[sends].sum()), int(lengths.max(initial=0))
    counters = np.zeros(10, np.int64)
    ready = np.flatnonzero(n_before == 0)
    queue = np.empty(n, np.int32)
    queue[: len(ready)] = ready
    counters[6] = len(ready)
    return State(
        counters, n_before, np.zeros(n, np.int64), np.zeros(n, np.int64), queue,
        np.empty(n, np.int64), np.empty(n, np.int32),
        np.empty(n_slots, np.int64), np.empty(n_slots, np.int32), np.empty(n_slots, np.int32),
        np.empty(n_slots, np.int32), np.empty(n_slots, np.int64), np.empty(n_slots, np.int64),
        np.empty(n_slots, np.int32), np.empty(n_slots), np.empty(n_slots), np.empty(n_slots),
        np.empty(n_slots, np.int64), np.empty(n_slots, np.int32),
        np.empty(n_hops, HOP), np.empty(n_hops, np.int32),
        np.full(most + 1, -1, np.int64),
        np.full(n_links, -1, np.int32), np.empty(n_links, np.int32), np.zeros(n_links, np.bool_),
        np.empty(n_links, np.int32), np.empty(n_slots, np.int32), np.zeros(n_links, np.bool_),
        np.zeros(n_slots, np.bool_), np.empty(n_links), np.empty(n_links), np.empty(n_links, np.int64),
        np.empty(n_links), np.empty(n_hops, np.int32), np.empty(n_links, np.int64),
        row_of, carried_bytes, bin_ps,
    )  # fmt: skip


# The functions below take arrays, not the tuples: numba counts references at every access to a field of a tuple, which
# made the whole four times slower.


@njit(cache=True)
def successors(n_tasks: int, edge_from: Any, edge_to: Any) -> Any:
    """Return (start, list, number before): the tasks after task i are list[start[i]:start[i + 1]], in given order."""
    start, n_before = np.zeros(n_tasks + 1, np.int64), np.zeros(n_tasks, np.int32)
    after = np.empty(len(edge_to), np.int32)
    for i in range(len(edge_from)):
        start[edge_from[i] + 1] += 1
        n_before[edge_to[i]] += 1
    for i in range(n_tasks):
        start[i + 1] += start[i]
    at = start[:-1].copy()
    for i in range(len(edge_from)):
        after[at[edge_from[i]]] = edge_to[i]
        at[edge_from[i]] += 1
    return start, after, n_before


# --- ends of delays: a binary heap of (time, task) -------------------------------------------------------------------


@njit(cache=True)
def _push_delay(new_ps: int, task: int, when: Any, tasks: Any, n: int) -> Any:
    """Add an event; return how many there are."""
    at = n
    while at > 0:
        up = (at - 1) >> 1
        if when[up] < new_ps or (when[up] == new_ps and tasks[up] < task):
            break
        when[at], tasks[at] = when[up], tasks[up]
        at = up
    when[at], tasks[at] = new_ps, task
    return n + 1


@njit(cache=True)
def _pop_delay(when: Any, tasks: Any, n: int) -> Any:
    """Remove the first event; return how many are left."""
    n -= 1
    last_ps, last = when[n], tasks[n]
    at = 0
    while 2 * at + 1 < n:
        child = 2 * at + 1
        if child + 1 < n and (
            when[child + 1] < when[child] or (when[child + 1] == when[child] and tasks[child + 1] < tasks[child])
        ):
            child += 1
        if last_ps < when[child] or (last_ps == when[child] and last < tasks[child]):
            break
        when[at], tasks[at] = when[child], tasks[child]
        at = child
    when[at], tasks[at] = last_ps, last
    return n


# --- ends of transfers: a binary heap of (time, slot), with every slot's place in it ---------------------------------


@njit(cache=True)
def _sift_up(at: int, new_ps: int, slot: int, when: Any, slots: Any, place: Any) -> Any:
    """Move a gap at a place of the heap up until the event fits, and put it there; return where that is."""
    while at > 0:
        up = (at - 1) >> 1
        if when[up] < new_ps or (when[up] == new_ps and slots[up] < slot):
            break
        when[at], slots[at] = when[up], slots[up]
        place[slots[at]] = at
        at = up
    when[at], slots[at], place[slot] = new_ps, slot, at
    return at


@njit(cache=True)
def _sift_down(at: int, new_ps: int, slot: int, when: Any, slots: Any, place: Any, n: int) -> None:
    """Move a gap down until the event fits, and put it there."""
    while 2 * at + 1 < n:
        child = 2 * at + 1
        if child + 1 < n and (
            when[child + 1] < when[child] or (when[child + 1] == when[child] and slots[child + 1] < slots[child])
        ):
            child += 1
        if new_ps < when[child] or (new_ps == when[child] and slot < slots[child]):
            break
        when[at], slots[at] = when[child], slots[child]
        place[slots[at]] = at
        at = child
    when[at], slots[at], place[slot] = new_ps, slot, at


@njit(cache=True)
def _set_end(slot: int, new_ps: int, when: Any, slots: Any, place: Any, n: int) -> Any:
    """Let the slot's transfer end at this time, instead of when it was due before; return how many events there are."""
    at = place[slot]
    if at < 0:
        at, n = n, n + 1
    if _sift_up(at, new_ps, slot, when, slots, place) == at:
        _sift_down(at, new_ps, slot, when, slots, place, n)
    return n


@njit(cache=True)
def _drop_first_end(when: Any, slots: Any, place: Any, n: int) -> Any:
    """Remove the first event; return how many are left."""
    place[slots[0]] = -1
    n -= 1
    if n > 0:
        _sift_down(0, when[n], slots[n], when, slots, place, n)
    return n


# --- hops ------------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _join_link(hop: int, link: int, head: Any, hops: Any, before: Any) -> None:
    hops[hop].after, before[hop] = head[link], -1
    if head[link] >= 0:
        before[head[link]] = hop
    head[link] = hop


@njit(cache=True)
def _leave_link(hop: int, link: int, head: Any, hops: Any, before: Any) -> None:
    after = hops[hop].after
    if before[hop] >= 0:
        hops[before[hop]].after = after
    else:
        head[link] = after
    if after >= 0:
        before[after] = before[hop]


@njit(cache=True)
def _note(link: int, changed: Any, is_changed: Any, n: int) -> Any:
    """Note that the users of a link have changed; return how many such links there are."""
    if not is_changed[link]:
        is_changed[link] = True
        changed[n] = link
        n += 1
    return n


@njit(cache=True)
def _carry(
    size_bytes: float, since: int, now: int, first: int, n: int, route_links: Any, route_weights: Any, row_of: Any,
    carried_bytes: Any, bin_ps: int,
) -> None:  # fmt: skip
    """Put what a transfer has sent at a constant rate into the bins of its links."""
    last_bin = min(max(now - 1, since) // bin_ps, carried_bytes.shape[1] - 1)
    for i in range(first, first + n):
        row = row_of[route_links[i]]
        if row < 0:
            continue
        for k in range(since // bin_ps, last_bin + 1):
            part = 1.0
            if now > since:
                part = (min(now, (k + 1) * bin_ps) - max(since, k * bin_ps)) / (now - since)
            carried_bytes[row, k] += size_bytes * route_weights[i] * part


# --- rates -----------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _component(
    seed: int, head: Any, hops: Any, first_link: Any, n_hops: Any, route_links: Any, capacity: Any, links: Any,
    slots: Any, in_links: Any, in_slots: Any, room: Any, load: Any, n_open: Any, members: Any, member_start: Any,
) -> Any:  # fmt: skip
    """Collect the links and slots that share capacity with a link, directly or through others; return how many.

    Says of every link how much room it has, and which slots, of what weight and number, which have no rate yet.
    """
    links[0] = seed
    in_links[seed] = True
    n_links, n_slots, n_members, at = 1, 0, 0, 0
    while at < n_links:
        link = links[at]
        at += 1
        hop, weight = head[link], 0.0
        member_start[link] = n_members
        while hop >= 0:
            found = hops[hop]
            weight += found.weight
            slot = found.slot
            members[n_members] = slot
            n_members += 1
            if not in_slots[slot]:
                in_slots[slot] = True
                slots[n_slots] = slot
                n_slots += 1
                for i in range(first_link[slot], first_link[slot] + n_hops[slot]):
                    other = route_links[i]
                    if not in_links[other]:
                        in_links[other] = True
                        links[n_links] = other
                        n_links += 1
            hop = found.after
        room[link], load[link], n_open[link] = capacity[link], weight, n_members - member_start[link]
    return n_links, n_slots


@njit(cache=True)
def _sift_link(at: int, links: Any, fair: Any, n: int) -> None:
    """Move the link at a place of the heap of (fair share, link) down until it fits."""
    link = links[at]
    share = fair[link]
    while 2 * at + 1 < n:
        child = 2 * at + 1
        a = links[child]
        if child + 1 < n:
            b = links[child + 1]
            if fair[b] < fair[a] or (fair[b] == fair[a] and b < a):
                child, a = child + 1, b
        if share < fair[a] or (share == fair[a] and link < a):
            break
        links[at] = a
        at = child
    links[at] = link


@njit(cache=True)
def _fill(
    links: Any, n_links: int, first_link: Any, n_hops: Any, route_links: Any, route_weights: Any, in_slots: Any,
    new_rate: Any, room: Any, load: Any, n_open: Any, fair: Any, members: Any, member_start: Any,
) -> None:  # fmt: skip
    """Find the rates of a component: the link with the least fair share fixes its transfers', again and again.

    `in_slots` says which of its transfers have no rate yet; afterwards none. A link's share grows while others are
    fixed, so the heap of links holds shares that were right once, and a link that comes up too early is put back.
    """
    n = 0
    for i in range(n_links):
        link = links[i]
        if n_open[link] > 0:
            fair[link] = room[link] / load[link]
            links[n] = link
            n += 1
    for at in range(n // 2 - 1, -1, -1):
        _sift_link(at, links, fair, n)
    while n > 0:
        link = links[0]
        if n_open[link] > 0:
            share = room[link] / load[link]
            if share > fair[link]:
                fair[link] = share
                _sift_link(0, links, fair, n)
                continue
            member = member_start[link]
            while n_open[link] > 0:
                slot = members[member]
                member += 1
                if in_slots[slot]:
                    in_slots[slot] = False
                    new_rate[slot] = share
                    for i in range(first_link[slot], first_link[slot] + n_hops[slot]):
                        other = route_links[i]
                        room[other] -= share * route_weights[i]
                        load[other] -= route_weights[i]
                        n_open[other] -= 1
        n -= 1
        links[0] = links[n]
        if n > 0:
            _sift_link(0, links, fair, n)


# --- the whole -------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _pattern(
    call: int, kind: Any, member: Any, entry: Any, end_ps: Any, now: int, first_pattern: Any, next_pattern: Any,
    pattern_at: Any, enters: Any,
) -> Any:  # fmt: skip
    """Return the pattern in which the members have entered a call, the last one now; -1 if it is new."""
    first, n = member[call], member[call + 1] - member[call]
    found = first_pattern[kind[call]]
    while found >= 0:
        same = True
        for i in range(n):
            if now - end_ps[entry[first + i]] != enters[pattern_at[found] + i]:
                same = False
                break
        if same:
            return found
        found = next_pattern[found]
    return -1


@njit(cache=True)
def play_all(g: Graph, s: State, c: Calls, share: bool) -> Any:
    """Play all tasks, and leave in the state when they started and ended; the last counter is how many have ended.

    Stops where a call's pattern is not known, and returns the call; -1 at the end. Events of one instant are handled
    together, before rates are found anew; a transfer that has all its links to itself needs no more than its own.
    """
    delay_ps, size_bytes, route, succ_start, succ = g.delay_ps, g.size_bytes, g.route, g.succ_start, g.succ
    route_start, route_links, route_weights, capacity = g.route_start, g.route_links, g.route_weights, g.capacity
    n_before, start_ps, end_ps, queue = s.n_before, s.start_ps, s.end_ps, s.queue
    delay_when, delay_task, end_when, end_slot, place = s.delay_when, s.delay_task, s.end_when, s.end_slot, s.place
    slot_task, first_hop, first_link, n_hops, free_slots = (
        s.slot_task,
        s.first_hop,
        s.first_link,
        s.n_hops,
        s.free_slots,
    )
    left_bytes, since_ps, rate, new_rate = s.left_bytes, s.since_ps, s.rate, s.new_rate
    hops, before, free_hops, members, member_start = s.hops, s.before, s.free_hops, s.members, s.member_start
    head, changed, is_changed, links, slots = s.head, s.changed, s.is_changed, s.links, s.slots
    in_links, in_slots, room, load, n_open, fair = s.in_links, s.in_slots, s.room, s.load, s.n_open, s.fair
    row_of, carried_bytes, bin_ps = s.row_of, s.carried_bytes, s.bin_ps
    first_join, kind, member, entry, leave, chosen = c.first_join, c.kind, c.member, c.entry, c.leave, c.chosen
    first_pattern, next_pattern, pattern_at, enters, leaves = (
        c.first_pattern, c.next_pattern, c.pattern_at, c.enters, c.leaves,
    )  # fmt: skip
    now, n_delays, n_ends, n_changed, next_in_queue, end_of_queue = (
        s.counters[0], s.counters[1], s.counters[2], s.counters[3], s.counters[5], s.counters[6],
    )  # fmt: skip
    n_free, slots_used, hops_used, n_ended = s.counters[7], s.counters[8], s.counters[9], s.counters[4]
    while True:
        while True:
            if next_in_queue < end_of_queue:
                task = queue[next_in_queue]
                if first_join <= task < first_join + len(kind):
                    call = task - first_join
                    found = _pattern(
                        call, kind, member, entry, end_ps, now, first_pattern, next_pattern, pattern_at, enters
                    )
                    if found < 0:
                        s.counters[:] = (
                            now, n_delays, n_ends, n_changed, n_ended, next_in_queue, end_of_queue, n_free, slots_used,
                            hops_used,
                        )  # fmt: skip
                        return call
                    chosen[call] = found
                    for i in range(member[call + 1] - member[call]):
                        delay_ps[leave[member[call] + i]] = leaves[pattern_at[found] + i]
                next_in_queue += 1
                start_ps[task] = now
                if delay_ps[task] > 0:
                    n_delays = _push_delay(now + delay_ps[task], task, delay_when, delay_task, n_delays)
                    continue
                sends = route[task] >= 0 and size_bytes[task] > 0
            elif n_ends > 0 and end_when[0] == now:
                slot = end_slot[0]
                n_ends = _drop_first_end(end_when, end_slot, place, n_ends)
                task, sends = slot_task[slot], False
                if len(row_of) > 0:
                    _carry(
                        left_bytes[slot], since_ps[slot], now, first_link[slot], n_hops[slot], route_links,
                        route_weights, row_of, carried_bytes, bin_ps,
                    )  # fmt: skip
                if share:
                    begin, first = first_hop[slot], first_link[slot]
                    for i in range(n_hops[slot]):
                        link = route_links[first + i]
                        _leave_link(begin + i, link, head, hops, before)
                        if head[link] >= 0:
                            n_changed = _note(link, changed, is_changed, n_changed)
                    hops[begin].after = free_hops[n_hops[slot]]
                    free_hops[n_hops[slot]] = begin
                free_slots[n_free] = slot
                n_free += 1
            elif n_delays > 0 and delay_when[0] == now:
                task = delay_task[0]
                n_delays = _pop_delay(delay_when, delay_task, n_delays)
                sends = route[task] >= 0 and size_bytes[task] > 0
            else:
                break
            if sends:
                if n_free > 0:
                    n_free -= 1
                    slot = free_slots[n_free]
                else:
                    slot = slots_used
                    slots_used += 1
                first = route_start[route[task]]
                n = route_start[route[task] + 1] - first
                slot_task[slot], first_link[slot], n_hops[slot] = task, first, n
                left_bytes[slot], since_ps[slot], place[slot] = size_bytes[task], now, -1
                alone, empty = np.inf, True
                for i in range(first, first + n):
                    alone = min(alone, capacity[route_links[i]] / route_weights[i])
                if share:
                    begin = free_hops[n]
                    if begin >= 0:
                        free_hops[n] = hops[begin].after
                    else:
                        begin = hops_used
                        hops_used += n
                    first_hop[slot] = begin
                    for i in range(n):
                        link, hop = route_links[first + i], begin + i
                        empty &= head[link] < 0
                        hops[hop].slot, hops[hop].weight = slot, route_weights[first + i]
                        _join_link(hop, link, head, hops, before)
                if empty:
                    rate[slot] = alone
                    ends_ps = now + round(size_bytes[task] / alone * 1e12)
                    n_ends = _set_end(slot, ends_ps, end_when, end_slot, place, n_ends)
                else:
                    rate[slot] = 0.0
                    for i in range(first, first + n):
                        n_changed = _note(route_links[i], changed, is_changed, n_changed)
                continue
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
            n_links, n_slots = _component(
                changed[k], head, hops, first_link, n_hops, route_links, capacity, links, slots, in_links, in_slots,
                room, load, n_open, members, member_start,
            )  # fmt: skip
            for i in range(n_links):
                in_links[links[i]] = False
                is_changed[links[i]] = False
            _fill(
                links, n_links, first_link, n_hops, route_links, route_weights, in_slots, new_rate, room, load, n_open,
                fair, members, member_start,
            )  # fmt: skip
            for i in range(n_slots):
                slot = slots[i]
                if abs(new_rate[slot] - rate[slot]) <= SAME_RATE * rate[slot]:
                    continue
                sent_bytes = rate[slot] * (now - since_ps[slot]) * 1e-12
                if len(row_of) > 0:
                    _carry(
                        sent_bytes, since_ps[slot], now, first_link[slot], n_hops[slot], route_links, route_weights,
                        row_of, carried_bytes, bin_ps,
                    )  # fmt: skip
                left_bytes[slot] -= sent_bytes
                rate[slot], since_ps[slot] = new_rate[slot], now
                ends_ps = now + max(round(left_bytes[slot] / rate[slot] * 1e12), 0)
                n_ends = _set_end(slot, ends_ps, end_when, end_slot, place, n_ends)
        n_changed = 0
        if n_delays == 0 and n_ends == 0:
            s.counters[4] = n_ended
            return -1
        delay_is_next = n_ends == 0 or (n_delays > 0 and delay_when[0] < end_when[0])
        now = delay_when[0] if delay_is_next else end_when[0]
