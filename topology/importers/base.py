"""What all importers share: the file they read, and what they find in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from configs.errors import ConfigError
from configs.input_files import decode_utf8, read_bytes
from configs.spec.provenance import Confidence

MOST_BYTES = 2**26


def plain_name(file: str) -> str:
    """Return a file's name as text that any file can hold: names can be any bytes."""
    return Path(file).name.encode(errors="backslashreplace").decode()


@frozen
class Source:
    """A file to import: its path as given, and its bytes."""

    file: str
    data: bytes

    @classmethod
    def read(cls, path: Path) -> Source:
        """Return the file; raise ConfigError if it is none, too large or empty."""
        try:
            data = read_bytes(path, "a topology file", MOST_BYTES)
        except ConfigError as error:
            raise ConfigError((f"{path}: {error}",)) from None
        if not data.strip():
            raise ConfigError((f"{path}: is empty; accepted: a topology file",))
        return cls(str(path), data)

    @property
    def text(self) -> str:
        """The file as text; raises ConfigError if it is none."""
        try:
            return decode_utf8(self.data)
        except ConfigError as error:
            raise ConfigError((f"{self.file}: {error}",)) from None

    @property
    def citation(self) -> str:
        """How a figure that stands in the file cites it."""
        return f"the imported file {plain_name(self.file)}"

    def has(self, pattern: str) -> bool:
        """Return whether the file has a place like the regular expression (lines begin with ^)."""
        return re.search(pattern.encode(), self.data, re.MULTILINE) is not None

    def figure(self, value: float) -> Figure:
        """Return a figure that stands in the file."""
        return Figure(value, self.citation, "secondary")

    def place(self, line: int) -> str:
        """Return how a message names a line of the file (0: none)."""
        return f"{self.file}:{line}" if line else self.file

    def error(self, line: int, message: str) -> ConfigError:
        """Return the error for what stands in a line (0: in none)."""
        return ConfigError((f"{self.place(line)}: {message}",))


@frozen
class Figure:
    """A number, where it comes from and how sure it is."""

    value: float
    source: str
    confidence: Confidence


@frozen
class Edge:
    """`count` parallel links between two nodes; figures of one link (bytes/s, ps), None where nothing says them."""

    ends: tuple[int, int]
    count: int = 1
    bandwidth: Figure | None = None
    latency: Figure | None = None


@frozen
class Found:
    """What a file says: nodes (chips before switches, as in `Topology`), edges, and what was left out.

    names: what the file calls the chips, then the switches.
    chip: the catalogue's name of the chips, or nothing.
    keep_ranks: the file numbers the chips, so that a known kind must not renumber them.
    renumbered: the chips are in another order than that of their names.
    """

    names: tuple[str, ...]
    edges: tuple[Edge, ...]
    n_switches: int = 0
    dims: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()
    chip: str = ""
    keep_ranks: bool = True
    renumbered: bool = False
    notes: tuple[str, ...] = ()

    @property
    def n_chips(self) -> int:
        """Number of chips."""
        return len(self.names) - self.n_switches


@frozen
class Importer:
    """A format: what it is, how it is recognised by its content, and how it is read."""

    form: str
    recognise: Callable[[Source], bool]
    read: Callable[[Source], Found]


def join_parallel(edges: list[Edge]) -> tuple[Edge, ...]:
    """Return the edges, those between the same nodes made one: counts added, figures of the first."""
    joined: dict[tuple[int, int], Edge] = {}
    for edge in edges:
        low, high = sorted(edge.ends)
        so_far = joined.get((low, high))
        count = edge.count + (so_far.count if so_far else 0)
        first = so_far or edge
        joined[low, high] = Edge(first.ends, count, first.bandwidth, first.latency)
    return tuple(joined.values())


def joins_all(edges: list[Edge], n_chips: int) -> bool:
    """Return whether the edges join all chips, directly or through other nodes."""
    near: dict[int, list[int]] = {}
    for edge in edges:
        near.setdefault(edge.ends[0], []).append(edge.ends[1])
        near.setdefault(edge.ends[1], []).append(edge.ends[0])
    reached, todo = {0}, [0]
    while todo:
        fresh = [node for node in near.get(todo.pop(), []) if node not in reached]
        reached.update(fresh)
        todo += fresh
    return all(chip in reached for chip in range(n_chips))
