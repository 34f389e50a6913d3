"""tt-metal's mesh graph descriptor (MGD 2.0, `tt_metal/fabric/protobuf/mesh_graph_descriptor.proto`).

The top level instance is a mesh, or a graph of meshes whose connections name the devices they join. Devices are
numbered row-major, mesh after mesh. A connection of whole meshes, and the shorthands ALL_TO_ALL and RING, do not say
which devices are joined, and are refused.
"""

from __future__ import annotations

import math
from typing import TypeVar

from attrs import define, field, frozen

from configs.problems import shown, unknown
from topology.checks import MAX_CHIPS, MAX_EDGES, MAX_LANES
from topology.grid import effective_wraps, grid_edges, grid_n_edges
from topology.importers.base import Edge, Found, Importer, Source, join_parallel
from topology.importers.tenstorrent import BANDWIDTH, LATENCY, architecture
from topology.importers.textproto import Message, parse

MOST_INSTANCES = 10_000
ARCHITECTURES = ("WORMHOLE_B0", "BLACKHOLE")
BOARDS = {"wormhole": "wormhole-n300", "blackhole": "blackhole-p150"}
RACKS = {"wormhole": "wormhole-galaxy-module", "blackhole": "blackhole-galaxy-module"}
GALAXY_CHIPS = 32  # as many stand in a rack, fewer on cards
FIELDS = ("mesh_descriptors", "graph_descriptors", "top_level_instance")
_Value = TypeVar("_Value", str, int, Message)
_NOUNS = {str: "a word or a text", int: "a number", Message: "a message in { }"}
_Path = tuple[str, ...]


@frozen
class Mesh:
    """An instance of a mesh descriptor: its first device and their grid."""

    first: int
    dims: tuple[int, ...]
    arch: str


def read(source: Source) -> Found:
    """Return the devices of the top level instance and their links."""
    root = parse(source)
    reader = _Reader(source, root)
    reader.instance(reader.one(root, "top_level_instance", Message), (), 0)
    meshes = tuple(reader.meshes.values())
    archs = {mesh.arch for mesh in meshes}
    arch = meshes[0].arch if len(archs) == 1 else ""
    other = tuple(dict.fromkeys(found.name for found in root.fields if found.name not in FIELDS))
    n = reader.n_devices
    chip = (BOARDS if n < GALAXY_CHIPS else RACKS).get(arch, "")
    edges = [Edge(edge.ends, edge.count, BANDWIDTH.get(arch), LATENCY.get(arch)) for edge in reader.edges]
    return Found(
        tuple(f"device {k}" for k in range(n)),
        join_parallel(edges),
        dims=meshes[0].dims if len(meshes) == 1 else (),
        chip=chip,
        notes=tuple(f"left out: {name}" for name in other),
    )


@define
class _Reader:
    """Instantiates descriptors, one mesh after the other."""

    source: Source
    root: Message
    meshes: dict[_Path, Mesh] = field(factory=dict)
    edges: list[Edge] = field(factory=list)
    n_devices: int = 0
    n_instances: int = 0

    def one(self, message: Message, name: str, kind: type[_Value]) -> _Value:
        """Return the only value of a field."""
        fields = message.all(name)
        if len(fields) != 1:
            raise self.source.error(message.line, f"{name}: given {len(fields)} times; accepted: once")
        if not isinstance(fields[0].value, kind):
            raise self.source.error(fields[0].line, f"{name}: {shown(fields[0].value)}; accepted: {_NOUNS[kind]}")
        return fields[0].value

    def instance(self, ref: Message, path: _Path, depth: int) -> None:
        """Add what a reference to a mesh or a graph stands for."""
        self.n_instances += 1
        if self.n_instances > MOST_INSTANCES or depth > 16:
            raise self.source.error(ref.line, f"more than {MOST_INSTANCES:,} instances, or nested more than 16 deep")
        kind = self._kind(ref)
        inner = self.one(ref, kind, Message)
        descriptor = self._descriptor(kind, inner)
        path = (*path, self._key(kind, inner))
        if kind == "mesh":
            self._mesh(descriptor, path)
        else:
            for entry in descriptor.all("instances"):
                self.instance(self._message(entry.value, entry.line), path, depth + 1)
            self._connect(descriptor, path)

    def _kind(self, ref: Message) -> str:
        kinds = [name for name in ("mesh", "graph") if ref.all(name)]
        if len(kinds) != 1:
            raise self.source.error(ref.line, "an instance is one mesh { } or one graph { }")
        return kinds[0]

    def _key(self, kind: str, inner: Message) -> str:
        return f"{self.one(inner, f'{kind}_descriptor', str)} {self.one(inner, f'{kind}_id', int)}"

    def _descriptor(self, kind: str, inner: Message) -> Message:
        name = self.one(inner, f"{kind}_descriptor", str)
        known = [self._message(found.value, found.line) for found in self.root.all(f"{kind}_descriptors")]
        named = {self.one(descriptor, "name", str): descriptor for descriptor in known}
        if name not in named:
            raise self.source.error(inner.line, unknown(name, f"the name of a {kind} descriptor", tuple(named)))
        return named[name]

    def _message(self, value: object, line: int) -> Message:
        if not isinstance(value, Message):
            raise self.source.error(line, f"{shown(value)}; accepted: a message in {{ }}")
        return value

    def _mesh(self, descriptor: Message, path: _Path) -> None:
        if path in self.meshes:
            raise self.source.error(descriptor.line, f"{' / '.join(path)} is instantiated twice")
        arch = self.one(descriptor, "arch", str)
        if arch not in ARCHITECTURES:
            raise self.source.error(descriptor.line, unknown(arch, "an architecture", ARCHITECTURES))
        grid = self.one(descriptor, "device_topology", Message)
        dims = tuple(self._dim(found.value, found.line) for found in grid.all("dims"))
        types = [found.value for found in grid.all("dim_types") + grid.all("types")]
        wrong = [kind for kind in types if kind not in ("LINE", "RING")]
        if not dims or wrong or len(types) > len(dims):
            accepted = "dims, and a LINE or RING for each"
            raise self.source.error(
                grid.line, f"device_topology: dims {list(dims)}, types {types}; accepted: {accepted}"
            )
        wraps = effective_wraps(dims, tuple(k < len(types) and types[k] == "RING" for k in range(len(dims))))
        first, n = self.n_devices, math.prod(dims)
        if first + n > MAX_CHIPS or len(self.edges) + grid_n_edges(dims, wraps) > MAX_EDGES:
            raise self.source.error(grid.line, f"more than {MAX_CHIPS:,} devices or {MAX_EDGES:,} edges")
        count = self._count(descriptor)
        src, dst = grid_edges(dims, wraps)
        ends = [(first + a, first + b) for a, b in zip(src.tolist(), dst.tolist(), strict=True)]
        for express in descriptor.all("express_connections"):
            message = self._message(express.value, express.line)
            pair = [self._within(self.one(message, end, int), n, express.line) for end in ("src", "dst")]
            ends.append((first + pair[0], first + pair[1]))
        self.edges += [Edge(pair, count) for pair in ends]
        self.meshes[path] = Mesh(first, dims, architecture(arch))
        self.n_devices += n

    def _dim(self, value: object, line: int) -> int:
        if not isinstance(value, int) or not 1 <= value <= MAX_CHIPS:
            raise self.source.error(line, f"dims: {shown(value)}; accepted: 1 to {MAX_CHIPS:,}")
        return value

    def _count(self, message: Message) -> int:
        channels = self.one(message, "channels", Message)
        count = self.one(channels, "count", int)
        if not 1 <= count <= MAX_LANES:
            raise self.source.error(channels.line, f"channels: count: {count}; accepted: 1 to {MAX_LANES:,}")
        return count

    def _within(self, device: int, n: int, line: int) -> int:
        if not 0 <= device < n:
            raise self.source.error(line, f"device {device}; accepted: 0 to {n - 1}")
        return device

    def _connect(self, graph: Message, path: _Path) -> None:
        """Add the links among the instances of a graph."""
        for shorthand in graph.all("graph_topology"):
            if len(graph.all("instances")) > 1:
                message = f"graph_topology: {shown(shorthand.value)} does not say which devices are joined"
                raise self.source.error(shorthand.line, f"{message}; accepted: connections with a device_id")
        for found in graph.all("connections"):
            connection = self._message(found.value, found.line)
            nodes = [self._message(node.value, node.line) for node in connection.all("nodes")]
            if len(nodes) != 2:
                raise self.source.error(found.line, f"connections: {len(nodes)} nodes; accepted: two")
            ends = (self._device(nodes[0], path), self._device(nodes[1], path))
            self.edges.append(Edge(ends, self._count(connection)))

    def _device(self, ref: Message, path: _Path) -> int:
        """Return the device that a reference inside a graph leads to."""
        kind = self._kind(ref)
        inner = self.one(ref, kind, Message)
        path = (*path, self._key(kind, inner))
        if kind == "graph":
            return self._device(inner, path)
        if path not in self.meshes:
            raise self.source.error(inner.line, f"{' / '.join(path)} is not among the instances")
        if not inner.all("device_id"):
            message = "connects a whole mesh, which does not say which devices are joined; accepted: a device_id"
            raise self.source.error(inner.line, message)
        mesh = self.meshes[path]
        return mesh.first + self._within(self.one(inner, "device_id", int), math.prod(mesh.dims), inner.line)


TT_METAL = Importer(
    "a tt-metal mesh graph descriptor", lambda source: source.has(r"^\s*mesh_descriptors\s*:?\s*[{<]"), read
)
