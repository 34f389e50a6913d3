"""Expand a collective into timed tasks: the schedule that the chips ran, on the links of the topology."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from cluster.records import Collective
from collectives import OPERATIONS, Schedule, chunk_sizes, cut
from configs.spec import CommunicationSpec
from topology import Topology


@define(eq=False)
class RouteTable:
    """Numbers for the routes in use, and their links in one flat list."""

    topology: Topology
    latency_ps: list[int] = field(factory=list)
    _numbers: dict[tuple[int, int], int] = field(factory=dict)
    _links: list[NDArray[np.int32]] = field(factory=list)
    _weights: list[NDArray[np.float64]] = field(factory=list)

    def number(self, src: int, dst: int) -> int:
        """Return the number of the route from chip `src` to chip `dst`."""
        if (src, dst) not in self._numbers:
            route = self.topology.route(src, dst)
            self._numbers[src, dst] = len(self.latency_ps)
            self.latency_ps.append(route.latency_ps)
            self._links.append(route.links)
            self._weights.append(route.weights)
        return self._numbers[src, dst]

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
        """Return (start, links, weights) of all routes, as in `TaskGraph`."""
        start = np.cumsum([0, *(len(links) for links in self._links)], dtype=np.int64)
        links = np.concatenate([np.zeros(0, np.int32), *self._links]).astype(np.int32)
        return start, links, np.concatenate([np.zeros(0), *self._weights])


@frozen(eq=False)
class Template:
    """The tasks of one collective, numbered from 0, and how they hang between its ranks' entries and exits.

    `owner` and `peer` are the chips that a task keeps busy with communication (peer -1: only the owner).
    """

    delay_ps: NDArray[np.int64]
    size_bytes: NDArray[np.float64]
    route: NDArray[np.int32]
    owner: NDArray[np.int32]
    peer: NDArray[np.int32]
    edges: NDArray[np.int64]
    """(from, to) between these tasks."""
    entries: NDArray[np.int64]
    """(place of the rank in the group, task): the task waits for the rank's entry."""
    exits: NDArray[np.int64]
    """(task, place): the rank's exit waits for the task."""


def part_sizes(op: str, n_ranks: int, n_elements: int) -> list[int]:
    """Return the sizes of the operation's parts, from the size of a rank's input."""
    if op == "all_gather":
        return [n_elements] * n_ranks
    if op == "reduce_scatter":
        return cut(n_elements, n_ranks)
    return cut(n_elements, n_ranks) * n_ranks if OPERATIONS[op].parts == "pairs" else [n_elements]


def expand(call: Collective, schedule: Schedule, routes: RouteTable, communication: CommunicationSpec) -> Template:
    """Return the tasks of a collective: a node where a rank enters a step, and a transfer for every message."""
    sizes = chunk_sizes(part_sizes(call.op, len(call.ranks), call.n_elements), schedule.n_chunks)
    nodes, edges, entries, exits = _steps(schedule)
    n_nodes, n_transfers = len(nodes), len(schedule.transfers)
    src = np.array([call.ranks[t.src] for t in schedule.transfers], np.int32)
    dst = np.array([call.ranks[t.dst] for t in schedule.transfers], np.int32)
    route = np.array([routes.number(int(a), int(b)) for a, b in zip(src, dst, strict=True)], np.int32)
    latency_ps = np.array([routes.latency_ps[r] for r in route], np.int64)
    return Template(
        delay_ps=np.concatenate([np.full(n_nodes, communication.step_ps, np.int64), latency_ps]),
        size_bytes=np.concatenate([np.zeros(n_nodes), schedule.sizes(sizes) * float(call.dtype.itemsize)]),
        route=np.concatenate([np.full(n_nodes, -1, np.int32), route]),
        owner=np.concatenate([np.array([call.ranks[place] for place in nodes], np.int32), src]),
        peer=np.concatenate([np.full(n_nodes, -1, np.int32), dst]),
        edges=_pairs(edges),
        entries=_pairs(entries),
        exits=_pairs(exits),
    ) if n_transfers else _nothing()


def _steps(
    schedule: Schedule,
) -> tuple[list[int], list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the nodes (their rank's place), inner edges, entries and exits; transfers are numbered after the nodes."""
    node_of = {
        (place, step): -1
        for t in schedule.transfers
        for place, step in ((t.src, t.step), (t.dst, t.step))
    }
    keys = sorted(node_of)
    node_of = {key: i for i, key in enumerate(keys)}
    edges: list[tuple[int, int]] = []
    begun: list[list[int]] = [[] for _ in keys]
    for i, t in enumerate(schedule.transfers, start=len(keys)):
        edges.append((node_of[t.src, t.step], i))
        begun[node_of[t.src, t.step]].append(i)
        begun[node_of[t.dst, t.step]].append(i)
    entries, exits = [], []
    for i, (place, _) in enumerate(keys):
        if i == 0 or keys[i - 1][0] != place:
            entries.append((place, i))
        else:
            edges += [(before, i) for before in (i - 1, *begun[i - 1])]
        if i + 1 == len(keys) or keys[i + 1][0] != place:
            exits += [(last, place) for last in (i, *begun[i])]
    return [place for place, _ in keys], edges, entries, exits


def _pairs(pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(pairs, np.int64).reshape(-1, 2)


def _nothing() -> Template:
    """Return the template of a collective without transfers (a group of one)."""
    none = np.zeros(0, np.int32)
    return Template(np.zeros(0, np.int64), np.zeros(0), none, none, none, _pairs(()), _pairs(()), _pairs(()))
