"""Synthesised algorithms: a schedule for whatever topology there is, broken or irregular, found by greedy matching.

Time is cut into steps. In every step each link from a chip to a neighbour is matched with a part that the neighbour
lacks and the chip held when the step began; of several, the part that the fewest chips hold. That makes an all-gather.
Played backwards it is a reduce-scatter, and both in turn make an all-reduce. Trials differ in the order in which links
are looked at (drawn from fixed seeds); the one of the fewest steps is taken. A step is the time of a part
on the slowest link; a link that is k times as fast carries up to k parts in it.

Neighbours are chips that are joined by a link, or by a path through switches alone, whose links are then shared.

With n ranks, part size m, link latency α and bandwidth B, on an idle network of equal links:

    all_gather, reduce_scatter   steps (α + m/B)      steps ≥ max(diameter, ⌈(n-1) / links of a chip⌉); ⌊n/2⌋ on a ring
    all_reduce                   2 steps (α + m/B)

Source: W. Won et al., "TACOS: Topology-aware collective algorithm synthesizer for distributed machine learning", MICRO
2024, arXiv 2304.05301 (there with slots of different length for links of different bandwidth, and random parts).
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

import numpy as np
from attrs import frozen

from collectives.compose import family, from_gather
from collectives.group import GroupView, misfit
from collectives.schedule import Schedule, Transfer, Transfers
from topology.graph import Topology

MOST_RANKS = 512
MOST_PAIRS = 2**14
MOST_PARTS_A_STEP = 16
MOST_TRIALS = 64
TRIAL_PARTS = 100_000
"""Parts that all trials together hand out: large groups get fewer trials, and at least one."""


@frozen
class Lane:
    """A way from one place of the group to another: it takes one part's room on each of these links."""

    src: int
    dst: int
    links: tuple[int, ...]


@frozen(cache_hash=True)
class Network:
    """All lanes of a group, and (link, the parts that it carries in a step)."""

    n: int
    lanes: tuple[Lane, ...]
    room: tuple[tuple[int, int], ...]


def _schedule(op: str, group: GroupView, root: int = 0) -> Schedule:
    """Return the schedule; raise ConfigError where the chips are not neighbours of each other, or too many."""
    del root
    n = len(group)
    if n > MOST_RANKS:
        raise misfit("synthesised", group, "are too many to synthesise for", f"at most {MOST_RANKS} chips")
    gather = network(group)
    if n > 1 and not _is_connected(gather):
        raise misfit("synthesised", group, "are not connected by links or switches of their own", "neighbours")
    return from_gather(op, "synthesised", n, n, partial(synthesise, gather))


all_gather, reduce_scatter, all_reduce = family(_schedule)


def network(group: GroupView) -> Network:
    """Return the lanes between all neighbours in the group, both ways."""
    place = {rank: i for i, rank in enumerate(group.ranks)}
    pairs = [(a, b) for a in group.ranks for b in _neighbours(group.topology, a) if b in place]
    if len(pairs) > MOST_PAIRS:
        raise misfit("synthesised", group, f"have {len(pairs)} neighbours", f"at most {MOST_PAIRS} in all")
    lanes = [Lane(place[a], place[b], tuple(group.topology.route(a, b).links.tolist())) for a, b in pairs]
    used = sorted({link for lane in lanes for link in lane.links})
    bandwidth = group.topology.link_bandwidth_bytes_per_s[used]
    room = np.minimum(bandwidth // bandwidth.min(initial=np.inf), MOST_PARTS_A_STEP) if used else bandwidth
    return Network(len(group), tuple(lanes), tuple(zip(used, room.astype(int).tolist(), strict=True)))


def _neighbours(topology: Topology, chip: int) -> Iterator[int]:
    """Yield the chips that are joined to a chip by a link, or by a path through switches alone; in ascending order."""
    found, seen, queue = set(), {chip}, deque([chip])
    while queue:
        for node in topology.neighbours(queue.popleft()).tolist():
            if node not in seen:
                seen.add(node)
                if node < topology.n_chips:
                    found.add(node)
                else:
                    queue.append(node)
    yield from sorted(found)


def _is_connected(net: Network) -> bool:
    near: dict[int, set[int]] = defaultdict(set)
    for lane in net.lanes:
        near[lane.src].add(lane.dst)
    seen, queue = {0}, [0]
    while queue:
        new = near[queue.pop()] - seen
        seen |= new
        queue += new
    return len(seen) == net.n


def least_steps(net: Network) -> int:
    """Return how many steps the links into some chip need for the parts of all others: no all-gather has fewer."""
    room = dict(net.room)
    into: dict[int, set[int]] = defaultdict(set)
    for lane in net.lanes:
        into[lane.dst].add(lane.links[-1])
    return max((-(-(net.n - 1) // sum(room[link] for link in links)) for links in into.values()), default=0)


@lru_cache(maxsize=16)
def synthesise(net: Network, trials: int | None = None) -> Transfers:
    """Return the shortest all-gather of several trials; none follows after one that cannot be bettered."""
    if trials is None:
        trials = max(1, min(MOST_TRIALS, TRIAL_PARTS // (net.n * net.n)))
    least, best = least_steps(net), _trial(net, random.Random(0))  # noqa: S311  no secret
    for seed in range(1, trials):
        if len(best) == least:
            break
        best = min(best, _trial(net, random.Random(seed)), key=len)  # noqa: S311  no secret
    return Transfers.of([
        Transfer(step, src, dst, tuple(parts))
        for step, sent in enumerate(best) for (src, dst), parts in sorted(sent.items())
    ])  # fmt: skip


def _trial(net: Network, draw: random.Random) -> list[dict[tuple[int, int], list[int]]]:
    """Return, for every step, the parts that each lane carries."""
    whole = (1 << net.n) - 1
    held = [1 << place for place in range(net.n)]
    holders = [1] * net.n
    order = list(net.lanes)
    steps: list[dict[tuple[int, int], list[int]]] = []
    while any(h != whole for h in held):
        order = [lane for lane in order if held[lane.dst] != whole]
        draw.shuffle(order)
        order.sort(key=lambda lane: held[lane.dst].bit_count())
        sent = _match(order, held, holders, dict(net.room))
        for (_, dst), parts in sent.items():
            for part in parts:
                held[dst] |= 1 << part
                holders[part] += 1
        steps.append(sent)
    return steps


def _match(
    lanes: Sequence[Lane], held: Sequence[int], holders: Sequence[int], room: dict[int, int]
) -> dict[tuple[int, int], list[int]]:
    """Match lanes with parts for one step, lane by lane, until nothing more fits; `held` is from before the step."""
    left, comes = room, list(held)
    sent: dict[tuple[int, int], list[int]] = {}
    while lanes:
        again = []
        for lane in lanes:
            if any(not left[link] for link in lane.links):
                continue
            news = held[lane.src] & ~comes[lane.dst]
            if not news:
                continue
            part = _rarest(news, holders)
            comes[lane.dst] |= 1 << part
            sent.setdefault((lane.src, lane.dst), []).append(part)
            for link in lane.links:
                left[link] -= 1
            again.append(lane)
        lanes = again
    return sent


def _rarest(parts: int, holders: Sequence[int]) -> int:
    """Return the part, of those in a bit mask, that the fewest chips hold; of several the first."""
    best, fewest = -1, len(holders) + 1
    while parts:
        low = parts & -parts
        part = low.bit_length() - 1
        if holders[part] < fewest:
            best, fewest = part, holders[part]
        parts ^= low
    return best
