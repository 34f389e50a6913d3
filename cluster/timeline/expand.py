"""Expand a collective into timed tasks: the schedule that the chips ran, on the links of the topology."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cluster.records import Collective
from collectives import Schedule, chunk_sizes, part_sizes
from configs.spec.communication import CommunicationSpec, ProtocolSpec
from topology import Topology


@frozen(eq=False)
class Template:
    """The tasks of one collective, numbered from 0, and how they hang between its ranks' entries and exits.

    `owner` and `peer` are the chips (or switches that help) that a task keeps busy with communication: source and
    destination of a transfer; peer is -1 for what is no transfer. A transfer's latency is added when its route is
    known.
    """

    delay_ps: NDArray[np.int64]
    size_bytes: NDArray[np.float64]
    owner: NDArray[np.int32]
    peer: NDArray[np.int32]
    edges: NDArray[np.int64]
    """(from, to) between these tasks."""
    entries: NDArray[np.int64]
    """(place of the rank in the group, task): the task waits for the rank's entry."""
    exits: NDArray[np.int64]
    """(task, place): the rank's exit waits for the task."""


def expand(call: Collective, schedule: Schedule, communication: CommunicationSpec, topology: Topology) -> Template:
    """Return the tasks of a collective: a node where a rank enters a step, and a transfer for every message."""
    protocol = protocol_of(call, communication)
    parts = part_sizes(call.op, len(call.ranks), schedule.n_chunks, call.n_elements, call.detail)
    sizes = chunk_sizes(parts, schedule.n_chunks)
    places, edges, entries, exits = _steps(schedule)
    n_nodes = len(places)
    nodes, t = np.array([*call.ranks, *schedule.helpers], np.int32), schedule.transfers
    is_rank = places < schedule.n_ranks
    src, dst = nodes[t.src], nodes[t.dst]
    far = topology.crosses(src, dst)
    sends_ps = np.where(far, protocol.network_step_ps, protocol.step_ps)
    if protocol.message_ps:
        sends_ps = sends_ps + protocol.message_ps * ordinals(t.step.astype(np.int64) * schedule.n_nodes + t.src)
    enters_ps = is_rank * communication.step_ps
    enters_ps[entries[:, 1]] += protocol.base_ps * is_rank[entries[:, 1]]
    data_bytes = schedule.sizes(sizes) * float(call.dtype.itemsize)
    return Template(
        delay_ps=np.concatenate([enters_ps, sends_ps]).astype(np.int64),
        size_bytes=np.concatenate(
            [np.zeros(n_nodes), data_bytes / np.where(far, protocol.network_payload, protocol.payload)]
        ),
        owner=np.concatenate([nodes[places], src]),
        peer=np.concatenate([np.full(n_nodes, -1, np.int32), dst]),
        edges=edges,
        entries=entries[entries[:, 0] < schedule.n_ranks],
        exits=exits[exits[:, 1] < schedule.n_ranks],
    )


def protocol_of(call: Collective, communication: CommunicationSpec) -> ProtocolSpec:
    """Return the protocol under which a call is carried out."""
    size_bytes = call.n_elements * call.dtype.itemsize
    return communication.protocol_of(call.op, call.algorithm, len(call.ranks), size_bytes)


def ordinals(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for every place, how many equal keys stand before it.

    >>> ordinals(np.array([7, 3, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(keys)])
    count = np.arange(len(keys)) - np.repeat(begins, np.diff(np.append(begins, len(keys))))
    found = np.empty(len(keys), np.int64)
    found[order] = count
    return found


def distinct(values: NDArray[np.int64], limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct values in order, and every value's place among them; all are in 0…limit-1.

    >>> distinct(np.array([5, 2, 5]), 6)
    (array([2, 5]), array([1, 0, 1]))
    """
    if limit > 16 * len(values):
        return np.unique(values, return_inverse=True)
    seen = np.zeros(limit, np.bool_)
    seen[values] = True
    place = np.cumsum(seen) - 1
    return np.flatnonzero(seen), place[values]


def _steps(schedule: Schedule) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the nodes (their rank's place), inner edges, entries and exits; transfers are numbered after the nodes.

    A node stands for a rank entering a step in which it sends or receives. It comes after the rank's node before, and
    after every transfer of that earlier step from or to the rank.
    """
    t, n_steps = schedule.transfers, max(schedule.n_steps, 1)
    sends, receives = (rank.astype(np.int64) * n_steps + t.step for rank in (t.src, t.dst))
    keys, part_of = distinct(np.concatenate([sends, receives]), schedule.n_nodes * n_steps)
    places, n, begins = keys // n_steps, len(keys), part_of[: len(t)]
    nodes, transfers = np.arange(n), n + np.arange(len(t))
    ends_rank = np.append(places[1:] != places[:-1], True)[:n]
    done = np.concatenate([np.stack([nodes, nodes]), np.stack([np.tile(transfers, 2), part_of])], axis=1)
    last = ends_rank[done[1]]
    inner = np.stack([done[0], done[1] + 1])[:, ~last]
    edges = np.concatenate([np.stack([begins, transfers]), inner], axis=1).T
    first = np.append(True, places[1:] != places[:-1])[:n]
    entries = np.stack([places[first], nodes[first]], axis=1)
    exits = np.stack([done[0][last], places[done[1][last]]], axis=1)
    return places, edges, entries, exits
