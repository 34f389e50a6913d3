"""A timeline as Chakra execution traces: one file per chip, and the groups of its collectives.

`chip.0.et`, `chip.1.et`, … and `comm_groups.json` are what ASTRA-sim takes as workload and communicator groups. Nodes
follow a chip's program: kernels (COMP), collectives (COMM_COLL), messages (COMM_SEND, COMM_RECV); each depends on what
the program has waited for before it, and on the operation before it in its lane where it was started beside.

Attributes with the names and types that ASTRA-sim reads (mlcommons/chakra@21585d8:src/feeder/et_feeder_node.cpp,
astra-sim/astra-sim@518bd51:astra-sim/workload/Workload.cc) are followed by our own, which others skip and `replay`
needs: exact times, shapes, algorithms.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import define, field

from cluster.chakra.schema import COMM_TYPES, VERSION, GlobalMetadata, Node, NodeType, attribute, write_messages
from cluster.records import Await, Collective, Communication, Compute, Mark, Receive, Record, Send, Start, Trace
from cluster.timeline import Timeline
from cluster.timeline.timeline import operation_name
from configs.errors import ConfigError

GROUPS = "comm_groups.json"
PREFIX = "chip"


def write_chakra(timeline: Timeline, folder: str | Path, about: Mapping[str, Any] | None = None) -> None:
    """Write a timeline's traces into a folder; the same timeline gives the same bytes.

    Raises ConfigError for a collective that Chakra has no name for, OSError.
    """
    folder = Path(folder)
    inputs = timeline.inputs
    lacking = sorted({op for record in inputs.records if (op := _op(record)) and _comm_type(op) is None})
    if lacking:
        known = ", ".join(COMM_TYPES)
        raise ConfigError((f"--chakra: {', '.join(lacking)} cannot be written; accepted: {known}, all_to_all_v",))
    names = [f"{PREFIX}.{trace.rank}.et" for trace in inputs.traces]
    others = sorted({path.name for path in folder.glob("*.et")}.difference(names))
    if others:
        raise ConfigError((f"--chakra: {folder}: has {others[0]} of another run; accepted: a folder without it",))
    folder.mkdir(parents=True, exist_ok=True)
    tags, groups = _Numbers(), _Numbers(1)
    sizes = _message_sizes(timeline)
    for trace, name in zip(inputs.traces, names, strict=True):
        chip = _Chip(timeline, trace, tags, groups, sizes)
        with (folder / name).open("wb") as file:
            write_messages(file, [_metadata(about or {}), *chip.nodes()])
    listed = {str(number): list(ranks) for ranks, number in groups.numbers.items()}
    (folder / GROUPS).write_text(json.dumps(listed) + "\n", encoding="ascii")


def _metadata(about: Mapping[str, Any]) -> Any:
    metadata = GlobalMetadata(version=VERSION)
    for key, value in about.items():
        attribute(metadata, key, "string", str(value))
    return metadata


@define
class _Numbers:
    """Numbers for things in the order of their first appearance."""

    first: int = 0
    numbers: dict[Any, int] = field(factory=dict)

    def __getitem__(self, thing: Any) -> int:
        return self.numbers.setdefault(thing, len(self.numbers) + self.first)


@define(eq=False)
class _Chip:
    """Turns one chip's trace into nodes.

    `waited`: the nodes that the program has waited for, as far as no later one stands for them.
    """

    timeline: Timeline
    trace: Trace
    tags: _Numbers
    groups: _Numbers
    sizes: Mapping[tuple[int, int, str, int], int]
    waited: list[int] = field(factory=list)
    lanes: dict[Any, int] = field(factory=dict)
    started: list[int] = field(factory=list)
    received: dict[tuple[int, str], int] = field(factory=dict)
    templates: dict[tuple[Record, int], Any] = field(factory=dict)
    rounding_ps: int = 0
    n: int = 0

    def nodes(self) -> Iterator[Any]:
        """Yield the nodes of the program, in its order."""
        records, places = self.timeline.inputs.records, self._layers()
        for number, layer in zip(self.trace.numbers.tolist(), places, strict=True):
            record = records[number]
            match record:
                case Mark():
                    continue
                case Await(back=back):
                    self.waited.append(self.started[-1 - back])
                case Start(operation=operation):
                    yield self._node(operation, layer, beside=True)
                    self.started.append(self.n - 1)
                case _:
                    yield self._node(record, layer, beside=False)
                    self.waited = [self.n - 1]

    def _layers(self) -> list[int]:
        starts, layers = self.trace.layers[:, 0], self.trace.layers[:, 1]
        found = np.full(len(self.trace.numbers), -1, np.int64)
        for start, layer in zip(starts.tolist(), layers.tolist(), strict=True):
            found[start:] = layer
        return found.tolist()

    def _node(self, record: Record, layer: int, *, beside: bool) -> Any:
        """Return the next node; those that others wait for in their lane are remembered."""
        node = Node()
        node.CopyFrom(self._template(record, layer))
        node.id = self.n
        needed = set(self.waited)
        lane = _lane(record) if isinstance(record, Communication) else None
        if lane is not None:
            if lane in self.lanes:
                needed.add(self.lanes[lane])
            if beside:
                self.lanes[lane] = self.n
            else:
                self.lanes.pop(lane, None)
        node.data_deps.extend(sorted(needed))
        if isinstance(record, Compute):
            node.duration_micros = self._whole_us(record.duration_ps)
        if isinstance(record, Receive):
            k = self.received.get((record.src, record.tag), 0)
            self.received[record.src, record.tag] = k + 1
            attribute(node, "comm_size", "int64", self.sizes[record.src, self.trace.rank, record.tag, k])
        self.n += 1
        return node

    def _whole_us(self, duration_ps: int) -> int:
        """Return whole microseconds; the rest is carried on to the next kernel, so that a program's sum is right."""
        exact_ps = duration_ps + self.rounding_ps
        whole_us = max(0, round(exact_ps / 1e6))
        self.rounding_ps = exact_ps - whole_us * 10**6
        return whole_us

    def _template(self, record: Record, layer: int) -> Any:
        """Return a node with all that follows from a record; of many that are alike it is made once."""
        node = self.templates.get((record, layer))
        if node is None:
            node = self.templates[record, layer] = Node(name=operation_name(record), type=NodeType.COMP)
            attribute(node, "is_cpu_op", "bool", False)
            match record:
                case Compute():
                    self._kernel(node, record)
                case Collective():
                    self._collective(node, record)
                case Send() | Receive():
                    self._message(node, record)
            if layer >= 0:
                attribute(node, "layer", "int64", layer)
        return node

    def _kernel(self, node: Any, record: Compute) -> None:
        attribute(node, "num_ops", "int64", record.flops)
        attribute(node, "tensor_size", "uint64", sum(record.moved_bytes))
        attribute(node, "duration_ps", "int64", record.duration_ps)
        attribute(node, "bound", "string", record.bound)
        attribute(node, "dtype", "string", record.dtype)
        attribute(node, "moved_bytes", "int64", list(record.moved_bytes))

    def _collective(self, node: Any, record: Collective) -> None:
        node.type = NodeType.COMM_COLL
        attribute(node, "comm_type", "int64", _comm_type(record.op))
        attribute(node, "comm_size", "int64", _size_bytes(record, self.trace.rank))
        attribute(node, "pg_name", "string", str(self.groups[record.ranks]))
        attribute(node, "op", "string", record.op)
        attribute(node, "algorithm", "string", record.algorithm)
        attribute(node, "group", "string", record.group)
        attribute(node, "shape", "int64", list(record.shape))
        attribute(node, "dtype", "string", record.dtype.name)
        attribute(node, "root", "int64", record.root)
        attribute(node, "reduction", "string", record.reduction)
        if record.op == "all_to_all_v":  # the own row; those of all members are the table
            attribute(node, "sent_rows", "int64", list(record.table[record.ranks.index(self.trace.rank)]))

    def _message(self, node: Any, record: Send | Receive) -> None:
        rank = self.trace.rank
        src, dst = (rank, record.dst) if isinstance(record, Send) else (record.src, rank)
        node.type = NodeType.COMM_SEND if isinstance(record, Send) else NodeType.COMM_RECV
        attribute(node, "comm_src", "int32", src)
        attribute(node, "comm_dst", "int32", dst)
        attribute(node, "comm_tag", "int32", self.tags[record.tag])
        if isinstance(record, Send):
            attribute(node, "comm_size", "int64", record.size_bytes)
        attribute(node, "tag", "string", record.tag)


def _op(record: Record) -> str | None:
    operation = record.operation if isinstance(record, Start | Await) else record
    return operation.op if isinstance(operation, Collective) else None


def _comm_type(op: str) -> int | None:
    return COMM_TYPES.get("all_to_all" if op == "all_to_all_v" else op)


def _lane(record: Communication) -> Any:
    """Return what decides the order of started operations: the group, or the destination; None for a receive."""
    if isinstance(record, Receive):
        return None
    return record.ranks if isinstance(record, Collective) else record.dst


def _size_bytes(call: Collective, rank: int) -> int:
    """Return the bytes of a rank's input."""
    n = call.n_elements
    if call.op == "all_to_all_v":
        n *= sum(call.table[call.ranks.index(rank)])
    return n * call.dtype.itemsize


def _message_sizes(timeline: Timeline) -> dict[tuple[int, int, str, int], int]:
    """Return the size of the k-th message by (source, destination, tag, k): its receiver has it from here."""
    sizes: dict[tuple[int, int, str, int], int] = {}
    for trace in timeline.inputs.traces:
        sent: dict[tuple[int, str], int] = {}
        for number in trace.numbers.tolist():
            record = timeline.inputs.records[number]
            record = record.operation if isinstance(record, Start) else record
            if isinstance(record, Send):
                k = sent.get((record.dst, record.tag), 0)
                sent[record.dst, record.tag] = k + 1
                sizes[trace.rank, record.dst, record.tag, k] = record.size_bytes
    return sizes
