"""Which node every chip's actor goes to: groups that talk most stay together, shares by free cores, room by memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from attrs import field, frozen

from configs.errors import ConfigError
from configs.units import format_size

ACTOR_BYTES = 90_000_000
"""Memory of an actor beyond its chips' shards."""


@frozen
class Node:
    """A machine for actors.  id: Ray's; "" for this machine alone.  cpus: free ones.  memory_bytes: None: unknown."""

    id: str
    ip: str
    cpus: float
    memory_bytes: int | None = None


@frozen
class ActorPlace:
    """An actor's node and chips.  cpus: its share of the node's."""

    node: Node
    ranks: tuple[int, ...]
    cpus: float = field(default=0.0, eq=False)


def name_chips(ranks: Sequence[int]) -> str:
    """Return chips in words.

    >>> name_chips([4]), name_chips([0, 1, 2]), name_chips([0, 8, 16])
    ('chip 4', 'chips 0-2', 'chips 0, 8, 16')
    """
    if len(ranks) == 1:
        return f"chip {ranks[0]}"
    if list(ranks) == list(range(ranks[0], ranks[0] + len(ranks))):
        return f"chips {ranks[0]}-{ranks[-1]}"
    return "chips " + ", ".join(map(str, ranks))


def place_actors(
    groups: Iterable[Sequence[int]], nodes: Sequence[Node], chips_per_actor: int | None, chip_bytes: int = 0
) -> tuple[ActorPlace, ...]:
    """Return the actors of all chips of the groups, which are placed in this order.

    Nodes get shares of the chips in proportion to their free cores, as far as their memory goes; the border between two
    nodes is moved to that of the nearest group. chips_per_actor None: 1, or as many more (2, 4, 8, …) as it takes to
    fit. chip_bytes: memory of a chip's shard on the host.

    Raises ConfigError if they do not fit.

    >>> nodes = [Node("a", "10.0.0.1", cpus=4), Node("b", "10.0.0.2", cpus=2)]
    >>> [(place.node.id, place.ranks) for place in place_actors([(0, 1), (2, 3), (4, 5)], nodes, 2)]
    [('a', (0, 1)), ('a', (2, 3)), ('b', (4, 5))]
    """
    units = [tuple(group) for group in groups]
    order = [rank for unit in units for rank in unit]
    k = _packing(len(order), nodes, chips_per_actor, chip_bytes)
    borders = _borders(units, nodes, [room(node, k, chip_bytes) for node in nodes])
    places: list[ActorPlace] = []
    for node, (start, end) in zip(nodes, pairwise([0, *borders]), strict=True):
        n_actors = -(-(end - start) // k)
        cpus = int(min(1.0, node.cpus / max(n_actors, 1)) * 1e4) / 1e4  # as fine as Ray counts
        places += [ActorPlace(node, tuple(order[i : min(i + k, end)]), cpus) for i in range(start, end, k)]
    return tuple(places)


def room(node: Node, chips_per_actor: int, chip_bytes: int) -> int | None:
    """Return how many chips a node has memory for; None if that is unknown."""
    if node.memory_bytes is None:
        return None
    return node.memory_bytes // (ACTOR_BYTES + chips_per_actor * chip_bytes) * chips_per_actor


def _packing(n_chips: int, nodes: Sequence[Node], asked: int | None, chip_bytes: int) -> int:
    """Return the chips of an actor; raise ConfigError if the chips fit nowhere."""
    tried = [asked] if asked is not None else [1 << i for i in range(max(1, n_chips.bit_length() + 1))]
    for k in tried:
        rooms = [room(node, k, chip_bytes) for node in nodes]
        if any(space is None for space in rooms) or sum(space or 0 for space in rooms) >= n_chips:
            return k
    n_actors = -(-n_chips // tried[-1])
    needed = n_actors * ACTOR_BYTES + n_chips * chip_bytes
    free = sum(node.memory_bytes or 0 for node in nodes)
    more = "" if asked is None else "more --chips-per-actor, "
    short = f"need {format_size(needed)} of memory, {len(nodes)} nodes have {format_size(free)} free"
    raise ConfigError((f"{n_chips} chips in {n_actors} actors {short}; accepted: {more}fewer chips, more nodes",))


def _borders(units: Sequence[Sequence[int]], nodes: Sequence[Node], rooms: Sequence[int | None]) -> list[int]:
    """Return, for every node, up to which chip of the order the chips are on it or an earlier one."""
    n_chips = sum(map(len, units))
    edges = list(accumulate(map(len, units), initial=0))
    borders: list[int] = []
    for i, node in enumerate(nodes):
        done = borders[-1] if borders else 0
        later = sum(other.cpus for other in nodes[i:])
        share = (n_chips - done) * (node.cpus / later if later else 1 / (len(nodes) - i))
        most = _least(rooms[i], n_chips - done)
        others = sum(_least(space, n_chips) for space in rooms[i + 1 :])
        least = max(0, n_chips - done - others)
        near = min(edges, key=lambda edge: (abs(edge - done - share), edge))
        count = near - done if least <= near - done <= most else min(max(round(share), least), most)
        borders.append(done + count)
    return borders


def _least(space: int | None, n_chips: int) -> int:
    return n_chips if space is None else min(space, n_chips)
