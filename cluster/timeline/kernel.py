"""The engine's compiled core. All of it is in this file: numba's cache notices changes of a function's own file alone.

Terms: a task waits (`n_before` > 0), is in its delay, sends, or has ended. What sends has a slot and, for every link of
its route, a hop; the hops on a link are a doubly linked list that begins at `head` of the link. Slots and hops are used
again, so what is touched of their arrays is linear in the transfers that are active at once. Where millions of hops are
walked, what counts is how often memory is waited for: what is read of a thing lies together, and is left in a row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

SAME_RATE = 1e-12  # relative: rates that differ by rounding alone are the same

EVENT = np.dtype([("when_ps", np.int64), ("what", np.int32)], align=True)
HOP = np.dtype([("after", np.int32), ("slot", np.int32), ("weight", np.float64)])

# left_bytes: at time since_ps. first_leg: where its route begins. is_open: in the component at hand, with no rate yet.
SLOT = np.dtype(
    [
        ("rate", np.float64), ("new_rate", np.float64), ("left_bytes", np.float64), ("since_ps", np.int64),
        ("first_leg", np.int64), ("first_hop", np.int32), ("n_hops", np.int32), ("task", np.int32),
        ("is_open", np.bool_),
    ],
    align=True,
)  # fmt: skip

# head: its first hop, or -1. is_near: in the component at hand.
LINK = np.dtype(
    [("capacity", np.float64), ("head", np.int32), ("is_changed", np.bool_), ("is_near", np.bool_)], align=True
)

# Of a link in the component at hand: what is left to share, among how many, of what weight; where its slots begin.
SHARE = np.dtype(
    [
        ("room", np.float64), ("load", np.float64), ("fair", np.float64), ("n_open", np.int64),
        ("first_member", np.int64),
    ],
)  # fmt: skip

# How many tasks, events, links, slots and hops there are; of slots and hops, how many were ever used.
_COUNTED = (
    "now_ps", "ended", "next_in_queue", "end_of_queue", "delays", "ends", "changed", "slots", "free_slots", "hops",
)  # fmt: skip
COUNTS = np.dtype([(name, np.int64) for name in _COUNTED])


class Graph(NamedTuple):
    """What does not change: see `cluster.timeline.tasks.TaskGraph`."""

    delay_ps: Any
    size_bytes: Any
    route: Any
    succ_start: Any
    succ: Any
    route_start: Any
    route_links: Any
    route_weights: Any


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

    counts: Any  # one, of dtype COUNTS
    # tasks, and those that may start, in turn
    n_before: Any
    start_ps: Any
    end_ps: Any
    queue: Any
    # heaps of events: delays of tasks, transfers of slots
    delays: Any
    ends: Any
    place: Any  # of every slot's end, or -1
    # what sends
    slots: Any
    free_slots: Any
    hops: Any
    before: Any  # the hop before every hop
    free_hops: Any  # by the number of hops that lie together; -1 for none
    # links, and those whose users have changed
    links: Any
    changed: Any
    # scratch: the component at hand, the links' shares, and the slots on every link of it, link by link
    near_links: Any
    near_slots: Any
    shares: Any
    members: Any
    # what links carry over time, if asked for: every link's row or -1 (empty if not asked), [row, bin], width of a bin
    row_of: Any
    carried_bytes: Any
    bin_ps: Any


def new_state(graph: Graph, capacity: Any, n_before: Any, row_of: Any, carried_bytes: Any, bin_ps: int) -> State:
    """Return the state before anything has happened; of what is not filled here, the system gives what is touched.

    capacity: of every link, in bytes/s.
    """
    n, n_links = len(graph.delay_ps), len(capacity)
    sends = graph.route[(graph.route >= 0) & (graph.size_bytes > 0)]
    lengths = np.diff(graph.route_start)
    n_slots, n_hops, most = len(sends), int(lengths[sends].sum()), int(lengths.max(initial=0))
    ready = np.flatnonzero(n_before == 0)
    counts, queue, links = np.zeros(1, COUNTS), np.empty(n, np.int32), np.zeros(n_links, LINK)
    queue[: len(ready)] = ready
    counts["end_of_queue"] = len(ready)
    links["capacity"], links["head"] = capacity, -1
    return State(
        counts, n_before, np.zeros(n, np.int64), np.zeros(n, np.int64), queue,
        np.empty(n, EVENT), np.empty(n_slots, EVENT), np.empty(n_slots, np.int32),
        np.empty(n_slots, SLOT), np.empty(n_slots, np.int32), np.empty(n_hops, HOP), np.empty(n_hops, np.int32),
        np.full(most + 1, -1, np.int64),
        links, np.empty(n_links, np.int32),
        np.empty(n_links, np.int32), np.empty(n_slots, np.int32), np.empty(n_links, SHARE),
        np.empty(n_hops, np.int32),
        row_of, carried_bytes, bin_ps,
    )  # fmt: skip


# The functions below take arrays, not the tuples: numba counts references at every access to a field of a tuple, which
# made the whole four times slower. It counts them in a function, too, that may or may not use an array: so what is done
# for every task is in functions without such branches, and `play_all` chooses. In all of them `n` is the record of
# counts.


# --- ends of delays: a binary heap of (time, task) -------------------------------------------------------------------


@njit(cache=True)
def _push_delay(when_ps: int, task: int, delays: Any, n: Any) -> None:
    """Add an event."""
    at = n.delays
    n.delays += 1
    while at > 0:
        up = (at - 1) >> 1
        if delays[up].when_ps < when_ps or (delays[up].when_ps == when_ps and delays[up].what < task):
            break
        delays[at].when_ps, delays[at].what = delays[up].when_ps, delays[up].what
        at = up
    delays[at].when_ps, delays[at].what = when_ps, task


@njit(cache=True)
def _pop_delay(delays: Any, n: Any) -> Any:
    """Remove the first event and return its task."""
    first = delays[0].what
    n.delays -= 1
    size = n.delays
    when_ps, task = delays[size].when_ps, delays[size].what
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and (
            delays[child + 1].when_ps < delays[child].when_ps
            or (delays[child + 1].when_ps == delays[child].when_ps and delays[child + 1].what < delays[child].what)
        ):
            child += 1
        if when_ps < delays[child].when_ps or (when_ps == delays[child].when_ps and task < delays[child].what):
            break
        delays[at].when_ps, delays[at].what = delays[child].when_ps, delays[child].what
        at = child
    delays[at].when_ps, delays[at].what = when_ps, task
    return first


# --- ends of transfers: a binary heap of (time, slot), with every slot's place in it ---------------------------------


@njit(cache=True)
def _sift_up(at: int, when_ps: int, slot: int, ends: Any, place: Any) -> Any:
    """Move a gap at a place of the heap up until the event fits, and put it there; return where that is."""
    while at > 0:
        up = (at - 1) >> 1
        if ends[up].when_ps < when_ps or (ends[up].when_ps == when_ps and ends[up].what < slot):
            break
        ends[at].when_ps, ends[at].what = ends[up].when_ps, ends[up].what
        place[ends[at].what] = at
        at = up
    ends[at].when_ps, ends[at].what, place[slot] = when_ps, slot, at
    return at


@njit(cache=True)
def _sift_down(at: int, when_ps: int, slot: int, ends: Any, place: Any, size: int) -> None:
    """Move a gap down until the event fits, and put it there."""
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and (
            ends[child + 1].when_ps < ends[child].when_ps
            or (ends[child + 1].when_ps == ends[child].when_ps and ends[child + 1].what < ends[child].what)
        ):
            child += 1
        if when_ps < ends[child].when_ps or (when_ps == ends[child].when_ps and slot < ends[child].what):
            break
        ends[at].when_ps, ends[at].what = ends[child].when_ps, ends[child].what
        place[ends[at].what] = at
        at = child
    ends[at].when_ps, ends[at].what, place[slot] = when_ps, slot, at


@njit(cache=True)
def _set_end(slot: int, when_ps: int, ends: Any, place: Any, n: Any) -> None:
    """Let the slot's transfer end at this time, instead of when it was due before."""
    at = place[slot]
    if at < 0:
        at = n.ends
        n.ends += 1
    if _sift_up(at, when_ps, slot, ends, place) == at:
        _sift_down(at, when_ps, slot, ends, place, n.ends)


@njit(cache=True)
def _pop_end(ends: Any, place: Any, n: Any) -> Any:
    """Remove the first event and return its slot."""
    first = ends[0].what
    place[first] = -1
    n.ends -= 1
    if n.ends > 0:
        _sift_down(0, ends[n.ends].when_ps, ends[n.ends].what, ends, place, n.ends)
    return first


# --- slots and hops --------------------------------------------------------------------------------------------------


@njit(cache=True)
def _take_slot(
    slot: int, task: int, size_bytes: float, first_leg: int, n_hops: int, slots: Any, place: Any, n: Any
) -> None:
    """Give a slot to a transfer that begins now, on no link yet."""
    one = slots[slot]
    one.task, one.first_leg, one.n_hops, one.is_open = task, first_leg, n_hops, False
    place[slot] = -1
    one.left_bytes, one.since_ps, one.rate = size_bytes, n.now_ps, 0.0


@njit(cache=True)
def _join_links(slot: int, slots: Any, route_links: Any, route_weights: Any, hops: Any, before: Any, links: Any) -> Any:
    """Put a transfer on the links of its route; return whether no other is on them."""
    one = slots[slot]
    begin = one.first_hop
    empty = True
    for i in range(one.n_hops):
        link, hop = links[route_links[one.first_leg + i]], begin + i
        empty &= link.head < 0
        hops[hop].slot, hops[hop].weight = slot, route_weights[one.first_leg + i]
        hops[hop].after, before[hop] = link.head, -1
        if link.head >= 0:
            before[link.head] = hop
        link.head = hop
    return empty


@njit(cache=True)
def _send_alone(
    slot: int, slots: Any, route_links: Any, route_weights: Any, links: Any, ends: Any, place: Any, n: Any
) -> None:
    """Send at the rate of a transfer that has its links to itself."""
    one = slots[slot]
    rate = np.inf
    for i in range(one.first_leg, one.first_leg + one.n_hops):
        rate = min(rate, links[route_links[i]].capacity / route_weights[i])
    one.rate = rate
    _set_end(slot, n.now_ps + round(one.left_bytes / rate * 1e12), ends, place, n)


@njit(cache=True)
def _leave_links(
    slot: int, slots: Any, route_links: Any, hops: Any, before: Any, free_hops: Any, links: Any, changed: Any, n: Any
) -> None:
    """Take a transfer off its links, and note those that others are on."""
    one = slots[slot]
    begin = one.first_hop
    for i in range(one.n_hops):
        number, hop = route_links[one.first_leg + i], begin + i
        after = hops[hop].after
        if before[hop] >= 0:
            hops[before[hop]].after = after
        else:
            links[number].head = after
        if after >= 0:
            before[after] = before[hop]
        if links[number].head >= 0:
            _note(number, links, changed, n)
    hops[begin].after = free_hops[one.n_hops]
    free_hops[one.n_hops] = begin


@njit(cache=True)
def _note(link: int, links: Any, changed: Any, n: Any) -> None:
    """Note that the users of a link have changed."""
    if not links[link].is_changed:
        links[link].is_changed = True
        changed[n.changed] = link
        n.changed += 1


@njit(cache=True)
def _carry(
    size_bytes: float, one: Any, now_ps: int, route_links: Any, route_weights: Any, row_of: Any,
    carried_bytes: Any, bin_ps: int,
) -> None:  # fmt: skip
    """Put what a transfer has sent at a constant rate, since its rate changed, into the bins of its links."""
    since = one.since_ps
    last_bin = min(max(now_ps - 1, since) // bin_ps, carried_bytes.shape[1] - 1)
    for i in range(one.first_leg, one.first_leg + one.n_hops):
        row = row_of[route_links[i]]
        if row < 0:
            continue
        for k in range(since // bin_ps, last_bin + 1):
            part = 1.0
            if now_ps > since:
                part = (min(now_ps, (k + 1) * bin_ps) - max(since, k * bin_ps)) / (now_ps - since)
            carried_bytes[row, k] += size_bytes * route_weights[i] * part


# --- rates -----------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _component(
    seed: int, hops: Any, slots: Any, route_links: Any, links: Any, shares: Any, near_links: Any, near_slots: Any,
    members: Any,
) -> Any:  # fmt: skip
    """Collect the links and slots that share capacity with a link, directly or through others; return how many.

    Says of every link how much room it has, and which slots, of what weight and number, which have no rate yet.
    """
    near_links[0] = seed
    links[seed].is_near = True
    n_links, n_slots, n_members, at = 1, 0, 0, 0
    while at < n_links:
        link, share = links[near_links[at]], shares[near_links[at]]
        at += 1
        hop, weight = link.head, 0.0
        share.first_member = n_members
        while hop >= 0:
            found = hops[hop]
            weight += found.weight
            members[n_members] = found.slot
            n_members += 1
            one = slots[found.slot]
            if not one.is_open:
                one.is_open = True
                near_slots[n_slots] = found.slot
                n_slots += 1
                for i in range(one.first_leg, one.first_leg + one.n_hops):
                    other = route_links[i]
                    if not links[other].is_near:
                        links[other].is_near = True
                        near_links[n_links] = other
                        n_links += 1
            hop = found.after
        share.room, share.load, share.n_open = link.capacity, weight, n_members - share.first_member
    return n_links, n_slots


@njit(cache=True)
def _sift_link(at: int, heap: Any, shares: Any, size: int) -> None:
    """Move the link at a place of the heap of (fair share, link) down until it fits."""
    link = heap[at]
    fair = shares[link].fair
    while 2 * at + 1 < size:
        child = 2 * at + 1
        a = heap[child]
        if child + 1 < size:
            b = heap[child + 1]
            if shares[b].fair < shares[a].fair or (shares[b].fair == shares[a].fair and b < a):
                child, a = child + 1, b
        if fair < shares[a].fair or (fair == shares[a].fair and link < a):
            break
        heap[at] = a
        at = child
    heap[at] = link


@njit(cache=True)
def _fill(heap: Any, n_links: int, slots: Any, route_links: Any, route_weights: Any, shares: Any, members: Any) -> None:
    """Find the rates of a component: the link with the least fair share fixes its transfers', again and again.

    Its transfers are open before, afterwards none. A link's share grows while others are fixed, so the heap of links
    (which takes the place of their list) holds shares that were right once, and a link that comes up too early is put
    back.
    """
    size = 0
    for i in range(n_links):
        share = shares[heap[i]]
        if share.n_open > 0:
            share.fair = share.room / share.load
            heap[size] = heap[i]
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sift_link(at, heap, shares, size)
    while size > 0:
        share = shares[heap[0]]
        if share.n_open > 0:
            fair = share.room / share.load
            if fair > share.fair:
                share.fair = fair
                _sift_link(0, heap, shares, size)
                continue
            _fix(share, fair, slots, route_links, route_weights, shares, members)
        size -= 1
        heap[0] = heap[size]
        if size > 0:
            _sift_link(0, heap, shares, size)


@njit(cache=True)
def _fix(share: Any, fair: float, slots: Any, route_links: Any, route_weights: Any, shares: Any, members: Any) -> None:
    """Give the open transfers of a link its fair share, and take that from all of their links."""
    member = share.first_member
    while share.n_open > 0:
        one = slots[members[member]]
        member += 1
        if one.is_open:
            one.is_open = False
            one.new_rate = fair
            for i in range(one.first_leg, one.first_leg + one.n_hops):
                other = shares[route_links[i]]
                other.room -= fair * route_weights[i]
                other.load -= route_weights[i]
                other.n_open -= 1


@njit(cache=True)
def _set_rate(slot: int, sent_bytes: float, slots: Any, ends: Any, place: Any, n: Any) -> None:
    """Go on at the new rate, after so many bytes at the one before."""
    one = slots[slot]
    one.left_bytes -= sent_bytes
    one.rate, one.since_ps = one.new_rate, n.now_ps
    _set_end(slot, n.now_ps + max(round(one.left_bytes / one.rate * 1e12), 0), ends, place, n)


@njit(cache=True)
def _find_rates(
    changed: Any, hops: Any, slots: Any, route_links: Any, route_weights: Any, links: Any, shares: Any,
    near_links: Any, near_slots: Any, members: Any, ends: Any, place: Any, row_of: Any, carried_bytes: Any,
    bin_ps: int, n: Any,
) -> None:  # fmt: skip
    """Find the rates of all that shares capacity with a changed link; what keeps its rate keeps its end."""
    for k in range(n.changed):
        if not links[changed[k]].is_changed:
            continue  # was in the component of an earlier one
        n_links, n_slots = _component(
            changed[k], hops, slots, route_links, links, shares, near_links, near_slots, members
        )
        for i in range(n_links):
            links[near_links[i]].is_near = False
            links[near_links[i]].is_changed = False
        _fill(near_links, n_links, slots, route_links, route_weights, shares, members)
        for i in range(n_slots):
            one = slots[near_slots[i]]
            if abs(one.new_rate - one.rate) > SAME_RATE * one.rate:
                sent_bytes = one.rate * (n.now_ps - one.since_ps) * 1e-12
                if len(row_of) > 0:
                    _carry(sent_bytes, one, n.now_ps, route_links, route_weights, row_of, carried_bytes, bin_ps)
                _set_rate(near_slots[i], sent_bytes, slots, ends, place, n)
    n.changed = 0


# --- the whole -------------------------------------------------------------------------------------------------------


@njit(cache=True)
def _pattern(call: int, c: Calls, end_ps: Any, now_ps: int) -> Any:
    """Return the pattern in which the members have entered a call, the last one now; -1 if it is new."""
    first, size = c.member[call], c.member[call + 1] - c.member[call]
    entry, enters = c.entry, c.enters
    found = c.first_pattern[c.kind[call]]
    while found >= 0:
        at, same = c.pattern_at[found], True
        for i in range(size):
            if now_ps - end_ps[entry[first + i]] != enters[at + i]:
                same = False
                break
        if same:
            return found
        found = c.next_pattern[found]
    return -1


@njit(cache=True)
def _look_up(call: int, c: Calls, end_ps: Any, delay_ps: Any, now_ps: int) -> Any:
    """Let the members of a call leave as its pattern says; return whether it has one."""
    found = _pattern(call, c, end_ps, now_ps)
    if found < 0:
        return False
    c.chosen[call] = found
    at, first, leave, leaves = c.pattern_at[found], c.member[call], c.leave, c.leaves
    for i in range(c.member[call + 1] - first):
        delay_ps[leave[first + i]] = leaves[at + i]
    return True


@njit(cache=True)
def _end(task: int, end_ps: Any, succ_start: Any, succ: Any, n_before: Any, queue: Any, n: Any) -> None:
    """End a task, and queue what waited for it alone."""
    end_ps[task] = n.now_ps
    n.ended += 1
    for i in range(succ_start[task], succ_start[task + 1]):
        n_before[succ[i]] -= 1
        if n_before[succ[i]] == 0:
            queue[n.end_of_queue] = succ[i]
            n.end_of_queue += 1


@njit(cache=True)
def play_all(g: Graph, s: State, c: Calls, share: bool) -> Any:
    """Play all tasks, and leave in the state when they started and ended, and how many have ended.

    Stops where a call's pattern is not known, and returns the call; -1 at the end. Events of one instant are handled
    together, before rates are found anew; a transfer that has all its links to itself needs no more than its own.
    """
    delay_ps, size_bytes, route, succ_start, succ = g.delay_ps, g.size_bytes, g.route, g.succ_start, g.succ
    route_start, route_links, route_weights = g.route_start, g.route_links, g.route_weights
    n_before, start_ps, end_ps, queue = s.n_before, s.start_ps, s.end_ps, s.queue
    delays, ends, place = s.delays, s.ends, s.place
    slots, free_slots, hops, before, free_hops = s.slots, s.free_slots, s.hops, s.before, s.free_hops
    links, changed, near_links, near_slots, members = s.links, s.changed, s.near_links, s.near_slots, s.members
    shares = s.shares
    row_of, carried_bytes, bin_ps = s.row_of, s.carried_bytes, s.bin_ps
    first_join, n_calls = c.first_join, len(c.kind)
    n = s.counts[0]
    while True:
        while True:
            if n.next_in_queue < n.end_of_queue:
                task = queue[n.next_in_queue]
                call = task - first_join
                if 0 <= call < n_calls and not _look_up(call, c, end_ps, delay_ps, n.now_ps):
                    return call
                n.next_in_queue += 1
                start_ps[task] = n.now_ps
                if delay_ps[task] > 0:
                    _push_delay(n.now_ps + delay_ps[task], task, delays, n)
                    continue
                sends = route[task] >= 0 and size_bytes[task] > 0
            elif n.ends > 0 and ends[0].when_ps == n.now_ps:
                slot = _pop_end(ends, place, n)
                task, sends = slots[slot].task, False
                if len(row_of) > 0:
                    _carry(
                        slots[slot].left_bytes, slots[slot], n.now_ps, route_links, route_weights, row_of,
                        carried_bytes, bin_ps,
                    )  # fmt: skip
                if share:
                    _leave_links(slot, slots, route_links, hops, before, free_hops, links, changed, n)
                free_slots[n.free_slots] = slot
                n.free_slots += 1
            elif n.delays > 0 and delays[0].when_ps == n.now_ps:
                task = _pop_delay(delays, n)
                sends = route[task] >= 0 and size_bytes[task] > 0
            else:
                break
            if not sends:
                _end(task, end_ps, succ_start, succ, n_before, queue, n)
                continue
            first = route_start[route[task]]
            n_hops = route_start[route[task] + 1] - first
            if n.free_slots > 0:
                n.free_slots -= 1
                slot = free_slots[n.free_slots]
            else:
                slot = n.slots
                n.slots += 1
            _take_slot(slot, task, size_bytes[task], first, n_hops, slots, place, n)
            if share:
                begin = free_hops[n_hops]
                if begin >= 0:
                    free_hops[n_hops] = hops[begin].after
                else:
                    begin = n.hops
                    n.hops += n_hops
                slots[slot].first_hop = begin
            if not share or _join_links(slot, slots, route_links, route_weights, hops, before, links):
                _send_alone(slot, slots, route_links, route_weights, links, ends, place, n)
            else:
                for i in range(first, first + n_hops):
                    _note(route_links[i], links, changed, n)
        if n.changed > 0:
            _find_rates(
                changed, hops, slots, route_links, route_weights, links, shares, near_links, near_slots, members, ends,
                place, row_of, carried_bytes, bin_ps, n,
            )  # fmt: skip
        if n.delays == 0 and n.ends == 0:
            return -1
        delay_is_next = n.ends == 0 or (n.delays > 0 and delays[0].when_ps < ends[0].when_ps)
        n.now_ps = delays[0].when_ps if delay_is_next else ends[0].when_ps
