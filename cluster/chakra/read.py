"""Chakra execution traces from files: the nodes of every rank, in an order in which they can run."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attrs import frozen

from cluster.chakra.schema import NodeType, attributes, read_messages
from cluster.chakra.write import GROUPS
from configs.errors import ConfigError
from configs.problems import shown

T = TypeVar("T")
_FILE = re.compile(r"(.*)\.(\d{1,7})\.et")
_KINDS = frozenset(kind.value for kind in NodeType)
_ACCEPTED = "a folder with NAME.0.et, NAME.1.et, … of one NAME, a file for every rank"


@frozen(eq=False)
class TraceNode:
    """A node; `needs` are the ids of the nodes that it waits for, `file` is for messages."""

    file: str
    id: int
    name: str
    kind: NodeType
    needs: frozenset[int]
    duration_micros: int
    attributes: Mapping[str, Any]

    def get(self, name: str, cls: type[T], default: T | None = None) -> T:
        """Return an attribute; raises ConfigError if it is missing without a default, or of another type."""
        value = self.attributes.get(name, default)
        if isinstance(value, cls) and (cls is bool or not isinstance(value, bool)):
            return value
        what = "missing" if name not in self.attributes else f"{shown(value)} is no {cls.__name__}"
        raise ConfigError((f"{self.where}: {name}: {what}; accepted: an attribute of type {cls.__name__}",))

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"{self.file}: node {self.id} ({self.name})"


@frozen(eq=False)
class Execution:
    """The nodes of every rank, the communicator groups by name, and what the first file says of its origin."""

    ranks: tuple[tuple[TraceNode, ...], ...]
    groups: Mapping[str, tuple[int, ...]]
    about: Mapping[str, Any]


def read_chakra(folder: str | Path, groups: str | Path | None = None) -> Execution:
    """Return the traces in a folder; `groups` is the file of the communicator groups, by default the folder's own.

    Raises ConfigError for what is no such folder, a file that cannot be read, nodes that need each other for ever.
    """
    folder = Path(folder)
    files = _files(folder)
    read = [_nodes(path) for path in files]
    given = Path(groups) if groups is not None else folder / GROUPS
    named = _groups(given, len(files)) if groups is not None or given.exists() else {}
    return Execution(tuple(nodes for _, nodes in read), named, read[0][0])


def _files(folder: Path) -> list[Path]:
    """Return the files, rank by rank."""
    try:
        found = [(match, path) for path in folder.iterdir() if (match := _FILE.fullmatch(path.name))]
    except OSError as error:
        raise ConfigError((f"{folder}: {error.strerror}; accepted: {_ACCEPTED}",)) from None
    prefixes = sorted({match[1] for match, _ in found})
    if len(prefixes) != 1:
        why = f"files of several traces, {', '.join(prefixes)}" if prefixes else "no file NAME.RANK.et"
        raise ConfigError((f"{folder}: {why}; accepted: {_ACCEPTED}",))
    by_rank = {int(match[2]): path for match, path in found}
    missing = next((rank for rank in range(len(found)) if rank not in by_rank), None)
    if missing is not None:
        raise ConfigError((f"{folder}: rank {missing} is missing of {len(found)}; accepted: {_ACCEPTED}",))
    return [by_rank[rank] for rank in range(len(found))]


def _nodes(path: Path) -> tuple[dict[str, Any], tuple[TraceNode, ...]]:
    """Return the metadata and the nodes of a file, in an order in which they can run."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError((f"{path}: {error.strerror}; accepted: a file that can be read",)) from None
    if not data:
        raise ConfigError((f"{path}: is empty; accepted: a Chakra execution trace, which begins with its metadata",))
    messages = read_messages(data, str(path))
    metadata = next(messages)
    about = {"version": metadata.version, **attributes(metadata)}
    alike: dict[bytes, Mapping[str, Any]] = {}
    return about, tuple(in_order([_node(message, str(path), alike) for message in messages]))


def _node(message: Any, file: str, alike: dict[bytes, Mapping[str, Any]]) -> TraceNode:
    """Return a node; nodes with the same attributes share them."""
    if message.type not in _KINDS:
        raise ConfigError((f"{file}: node {message.id}: type {message.type}; accepted: 0 to {max(_KINDS)}",))
    number, duration_micros = message.id, message.duration_micros
    needs = frozenset((*message.data_deps, *message.ctrl_deps))
    for name in ("id", "duration_micros", "data_deps", "ctrl_deps"):
        message.ClearField(name)
    rest = message.SerializeToString()
    if rest not in alike:
        alike[rest] = attributes(message)
    return TraceNode(file, number, message.name, NodeType(message.type), needs, duration_micros, alike[rest])


def in_order(nodes: Sequence[TraceNode]) -> Iterator[TraceNode]:
    """Yield nodes after all that they need, of several possible ones that of the lowest id."""
    by_id: dict[int, TraceNode] = {}
    for node in nodes:
        if by_id.setdefault(node.id, node) is not node:
            raise ConfigError((f"{node.where}: there are two of this id; accepted: an id of its own",))
    n_open, after = {node.id: len(node.needs) for node in nodes}, dict[int, list[int]]()
    for node in nodes:
        for needed in node.needs:
            if needed not in by_id:
                raise ConfigError((f"{node.where}: needs node {needed}; accepted: nodes of the same file",))
            after.setdefault(needed, []).append(node.id)
    ready = [number for number, n in n_open.items() if not n]
    heapq.heapify(ready)
    n_done = 0
    while ready:
        number = heapq.heappop(ready)
        n_done += 1
        yield by_id[number]
        for following in after.get(number, ()):
            n_open[following] -= 1
            if not n_open[following]:
                heapq.heappush(ready, following)
    if n_done < len(nodes):
        stuck = next(node for node in nodes if n_open[node.id])
        raise ConfigError((f"{stuck.where}: waits for itself, through others; accepted: nodes without a cycle",))


def _groups(path: Path, n_ranks: int) -> dict[str, tuple[int, ...]]:
    """Return the groups of a file as ASTRA-sim takes it: {"1": [0, 1, 2, 3], …}."""
    accepted = 'a JSON file such as {"1": [0, 1, 2, 3]}'
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError((f"{path}: {error.strerror}; accepted: {accepted}",)) from None
    except ValueError as error:
        raise ConfigError((f"{path}: {error}; accepted: {accepted}",)) from None
    if not isinstance(found, dict):
        raise ConfigError((f"{path}: {shown(found)}; accepted: {accepted}",))
    for name, ranks in found.items():
        right = isinstance(ranks, list) and ranks and all(type(r) is int and 0 <= r < n_ranks for r in ranks)
        if not right or len(set(ranks)) != len(ranks):
            raise ConfigError((f"{path}: {name}: {shown(ranks)}; accepted: ranks from 0 to {n_ranks - 1}, each once",))
    return {name: tuple(ranks) for name, ranks in found.items()}
