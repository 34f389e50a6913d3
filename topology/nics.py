"""The NICs of a node: what they are part of, and how chips get to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from configs.errors import ConfigError
from topology.edges import Edges
from topology.graph import Topology
from topology.members import members_of
from topology.routing import ShortestPathRouter
from topology.routing.composed import Doors
from topology.ways import Ways

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from configs.spec.topology import LinkSpec


Wanted = int | str | tuple[int | str, ...]
"""What a NIC is part of, or several things that it serves."""


@frozen(eq=False)
class Nics:
    """A node with its NICs: NIC i is part of the chip or switch `members[i]`, which may be a switch that it is itself.

    are_even: whether every chip has as many as any other.
    """

    node: Topology
    members: NDArray[np.int64]
    are_even: bool

    @property
    def n_nics(self) -> int:
        """Number of NICs."""
        return len(self.members)


def place_nics(inside: Topology, nics: int | str | Sequence[Wanted], link: LinkSpec | None) -> Nics:
    """Return a node with its NICs; raise ConfigError where they do not fit it.

    With a `link` each NIC is a node of its own, joined by such a link to all that it serves.
    """
    served = _served(inside, nics, shared=link is not None)
    ends = np.concatenate(served)
    even = len(set(np.bincount(ends, minlength=inside.n_nodes)[: inside.n_chips].tolist())) == 1
    even &= bool((ends < inside.n_chips).all()) and all(len(one) == 1 for one in served)
    if link is None:
        if any(len(one) > 1 for one in served):
            raise ConfigError(("nics: one NIC serves several chips; accepted: a nic_link that joins them",))
        if 0 < (ends < inside.n_chips).sum() < len(ends):
            raise ConfigError(("nics: some are chips' and some are switches'; accepted: all of one kind",))
        return Nics(inside, ends, even)
    own = inside.n_nodes + np.repeat(np.arange(len(served)), [len(one) for one in served])
    inner = Edges(
        inside.link_src[::2], inside.link_dst[::2], inside.link_bandwidth_bytes_per_s[::2],
        inside.link_latency_ps[::2], inside.link_count[::2],
    )  # fmt: skip
    node = Topology.from_edges(
        inside.kind, Edges.joined(inner, Edges.uniform(link, ends, own)), n_chips=inside.n_chips,
        n_switches=inside.n_switches + len(served), router=ShortestPathRouter(),
    )  # fmt: skip
    return Nics(node, inside.n_nodes + np.arange(len(served)), even)


def _served(inside: Topology, nics: int | str | Sequence[Wanted], *, shared: bool) -> list[NDArray[np.int64]]:
    """Return the members that each NIC serves."""
    if isinstance(nics, int):
        n = inside.n_chips
        if nics < 1 or (n % nics and nics % n):
            raise ConfigError((f"nics: {nics} cannot be dealt out evenly among {n} chips; accepted: a list",))
        if nics < n and not shared:
            why = "several chips share one; accepted: a nic_link that joins them, or a list of the chips that have one"
            raise ConfigError((f"nics: {nics} for {n} chips: {why}",))
        chips = np.arange(max(nics, n)) * n // max(nics, n)
        return list(chips.reshape(nics, -1))
    names = _named(inside, nics) if isinstance(nics, str) else nics
    served, problems = [], []
    for i, name in enumerate(names):
        try:
            some = [members_of(inside, one) for one in (name if isinstance(name, tuple) else (name,))]
            served.append(np.concatenate(some))
        except ConfigError as error:
            problems += [f"nics[{i}]: {problem}" for problem in error.problems]
        except ValueError:
            problems.append(f"nics[{i}]: is empty; accepted: at least one chip or switch")
    if not served and not problems:
        problems.append("nics: is empty; accepted: at least one")
    if problems:
        raise ConfigError(tuple(problems))
    return served


def _named(inside: Topology, name: str) -> list[str]:
    try:
        return [inside.node_name(member) for member in members_of(inside, name).tolist()]
    except ConfigError as error:
        raise ConfigError(tuple(f"nics: {problem}" for problem in error.problems)) from None


def find_doors(nics: Nics, bandwidth_bytes_per_s: NDArray[np.float64], *, every: bool) -> Doors:
    """Return the doors of a node; its NIC i has that bandwidth to the network.

    every: find the ways to all NICs, not to the nearest alone.
    """
    node, members = nics.node, nics.members
    are_switches = bool((members >= node.n_chips).all())
    nics_of = {member: np.flatnonzero(members == member).tolist() for member in set(members.tolist())}
    rows: list[tuple[int, int, float]] = []
    paths: list[tuple[int, list[int]]] = []
    for chip in range(node.n_chips):
        level = -1
        for member, path in _search(node, chip, nics_of, every=every and are_switches):
            level = len(path) if level < 0 else level
            narrowest = float(node.link_bandwidth_bytes_per_s[path].min(initial=np.inf))
            for nic in nics_of[member]:
                paths.append((nic * node.n_chips + chip, path))
                if len(path) == level:
                    rows.append((chip, nic, min(narrowest, float(bandwidth_bytes_per_s[nic]))))
    rows.sort()
    chip_of = np.array([row[0] for row in rows], np.int64)
    bandwidths = np.array([row[2] for row in rows])
    total = np.bincount(chip_of, bandwidths, minlength=node.n_chips)[chip_of]
    share = bandwidths / np.where(total > 0, total, 1)  # NICs without a link lead nowhere
    start = np.searchsorted(chip_of, np.arange(node.n_chips + 1))
    far = sorted(paths) if are_switches else []
    back = [(key, [link ^ 1 for link in reversed(path)]) for key, path in far]
    return Doors(start, np.array([row[1] for row in rows], np.int64), share, _table(far), _table(back))


def _search(node: Topology, chip: int, wanted: dict[int, list[int]], *, every: bool) -> list[tuple[int, list[int]]]:
    """Return the nearest of the wanted nodes (or all that can be reached), each with the links of a path there."""
    paths: dict[int, list[int]] = {chip: []}
    level, found = [chip], [(chip, list[int]())] if chip in wanted else []
    while level and (every or not found):
        reached = []
        for here in level:
            for link in node.out_links(here).tolist():
                there = int(node.link_dst[link])
                if there not in paths:
                    paths[there] = [*paths[here], link]
                    reached.append(there)
        found += [(there, paths[there]) for there in sorted(reached) if there in wanted]
        level = reached
    return found


def _table(paths: Sequence[tuple[int, list[int]]]) -> Ways:
    """Return ways of one path for each key, in ascending order."""
    lengths = np.array([len(path) for _, path in paths], np.int64)
    links = np.array([link for _, path in paths for link in path], np.int64)
    keys = np.array([key for key, _ in paths], np.int64)
    return Ways(keys, np.ones(len(paths)), np.concatenate([[0], np.cumsum(lengths)]), links)
