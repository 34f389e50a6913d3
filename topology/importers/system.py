"""Make a system file of what an importer has found: the closest known kind, every figure with its source.

What the file does not say is assumed, and marked `estimate`; options give it instead.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import yaml
from attrs import frozen

from configs.catalogue_files import catalogue_names
from configs.units import exact_bandwidth, exact_time
from configs.yaml_source import scalar
from topology.importers.base import Edge, Figure, Found, plain_name
from topology.importers.fit import fit

ASSUMED_CHIP = "h100-sxm"
ASSUMED_BANDWIDTH_BYTES_PER_S = 25e9
ASSUMED_LATENCY_PS = 1_000_000
_ASSUMED = "assumed: nothing says it, and no option was given"
_OPTION = "given as an option of the import"


@frozen
class Options:
    """What the user gives for what the file does not say."""

    chip: str | None = None
    link_bandwidth_bytes_per_s: float | None = None
    link_latency_ps: int | None = None


@frozen
class System:
    """A system as a mapping for its YAML file, and what a reader should know of how it came about."""

    mapping: Mapping[str, Any]
    notes: tuple[str, ...]

    def to_yaml(self) -> str:
        """Return the text of the system file."""
        text: str = yaml.dump(dict(self.mapping), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
        comments = "".join(f"# {line}\n" for note in self.notes for line in note.splitlines())
        return comments + text


class _Dumper(yaml.CSafeDumper if hasattr(yaml, "CSafeDumper") else yaml.SafeDumper):  # type: ignore[misc]
    """Quotes every text that would be read as something else, and writes lists of plain values in one line."""


def _text(dumper: Any, text: str) -> Any:
    plain = isinstance(scalar(text), str) and re.fullmatch(r"[A-Za-z0-9][\w ./+-]*", text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


def _line(dumper: Any, value: _Line) -> Any:
    return dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)


class _Line(dict[str, Any]):
    """A mapping that is written in one line."""


def _list(dumper: Any, values: list[Any]) -> Any:
    flow = not any(isinstance(value, list | dict) and not isinstance(value, _Line) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flow and bool(values))


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(_Line, _line)


def system(found: Found, file: str, form: str, options: Options) -> System:
    """Return the system that a file describes; `form` is what kind of file it is."""
    chip, notes = _chip(found, options)
    found, more = _completed(found, options)
    table = _Sources(f"the imported file {plain_name(file)}")
    topology, order = _topology(found, table)
    notes += more + found.notes
    if found.renumbered or order != tuple(range(found.n_chips)):
        names = ", ".join(found.names[chip] for chip in order)
        notes += (f"ranks 0 to {len(order) - 1} are, in the file: {names}",)
    mapping = {
        "name": _name(file),
        "description": f"imported from {plain_name(file)}, {form}",
        "chip": chip,
        "sources": table.keys,
        "topology": topology,
        "communication": "ideal",
    }
    return System(mapping, notes)


def _name(file: str) -> str:
    """Return a name of the catalogue's form.

    >>> _name("/x/T3K cluster_desc.yaml"), _name("4xP150.yaml")
    ('t3k-cluster-desc', 'system-4xp150')
    """
    name = re.sub(r"[^a-z0-9.]+", "-", Path(file).stem.lower()).strip("-.")
    return name if re.match(r"[a-z]", name) else f"system-{name}".strip("-")


def _chip(found: Found, options: Options) -> tuple[str, tuple[str, ...]]:
    """Return the chip's name, and what to say of it."""
    if options.chip is not None:
        return options.chip, ()
    if found.chip in catalogue_names("chips"):
        return found.chip, (f"chip {found.chip}: what the file says fits it (--chip gives another)",)
    why = f"the file's chip ({found.chip}) is not in the catalogue" if found.chip else "the file names no chip"
    return ASSUMED_CHIP, (f"chip {ASSUMED_CHIP} is assumed: {why} (--chip)",)


def _completed(found: Found, options: Options) -> tuple[Found, tuple[str, ...]]:
    """Return the same with all figures there, and what was assumed."""
    bandwidth, latency = options.link_bandwidth_bytes_per_s, options.link_latency_ps
    usual_bandwidth = Figure(bandwidth, _OPTION, "estimate") if bandwidth is not None else None
    usual_latency = Figure(latency, _OPTION, "estimate") if latency is not None else None
    usual_bandwidth = usual_bandwidth or Figure(ASSUMED_BANDWIDTH_BYTES_PER_S, _ASSUMED, "estimate")
    usual_latency = usual_latency or Figure(ASSUMED_LATENCY_PS, _ASSUMED, "estimate")
    notes = []
    n_bandwidth = sum(edge.bandwidth is None for edge in found.edges)
    n_latency = sum(edge.latency is None for edge in found.edges)
    if n_bandwidth and bandwidth is None:
        value = exact_bandwidth(ASSUMED_BANDWIDTH_BYTES_PER_S)
        notes.append(f"bandwidth of {n_bandwidth} edges is assumed, {value} a link (--link-bandwidth)")
    if n_latency and latency is None:
        notes.append(f"latency of {n_latency} edges is assumed, {exact_time(ASSUMED_LATENCY_PS)} (--link-latency)")
    edges = tuple(
        attrs.evolve(edge, bandwidth=edge.bandwidth or usual_bandwidth, latency=edge.latency or usual_latency)
        for edge in found.edges
    )
    return attrs.evolve(found, edges=edges), tuple(notes)


@frozen
class _Sources:
    """The table of sources as it grows: short names and citations."""

    file: str
    keys: dict[str, str] = attrs.field(factory=dict)

    def figure(self, value: Any, source: str, confidence: str) -> _Line:
        """Return a value as files write it, its source put into the table."""
        words = {self.file: "file", _ASSUMED: "assumed", _OPTION: "option"}
        known = next((key for key, citation in self.keys.items() if citation == source), None)
        n_others = sum(citation not in words for citation in self.keys.values())
        key = known or words.get(source) or f"source{n_others + 1}"
        self.keys[key] = source
        return _Line(value=value, source=key, confidence=confidence)

    def from_file(self, value: Any) -> _Line:
        """Return a value that stands in the file."""
        return self.figure(value, self.file, "secondary")

    def bandwidth(self, edge: Edge) -> _Line:
        """Return an edge's bandwidth, one link's."""
        assert edge.bandwidth is not None
        return self.figure(exact_bandwidth(edge.bandwidth.value), edge.bandwidth.source, edge.bandwidth.confidence)

    def latency(self, edge: Edge) -> _Line:
        """Return an edge's latency."""
        assert edge.latency is not None
        return self.figure(exact_time(int(edge.latency.value)), edge.latency.source, edge.latency.confidence)


def _topology(found: Found, table: _Sources) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Return the topology section, and the file's chips in the order of their ranks."""
    exact = fit(found)
    if exact is None:
        return _graph(found, table), tuple(range(found.n_chips))
    link = {"bandwidth": table.bandwidth(exact.link), "latency": table.latency(exact.link)}
    if exact.link.count > 1:
        link["count"] = table.from_file(exact.link.count)
    parameters = {key: value if key == "axes" else table.from_file(value) for key, value in exact.parameters.items()}
    return {"kind": exact.kind, **parameters, "link": link}, exact.order


def _graph(found: Found, table: _Sources) -> dict[str, Any]:
    """Return the section of explicit links: those with the commonest figures in short, the others in full."""
    usual = Counter((edge.bandwidth, edge.latency) for edge in found.edges).most_common(1)
    topology: dict[str, Any] = {"kind": "graph", "chips": table.from_file(found.n_chips)}
    if found.n_switches:
        topology["switches"] = table.from_file(found.n_switches)
    if found.dims:
        topology["dims"] = table.from_file(list(found.dims))
        topology |= {"axes": list(found.axes)} if found.axes else {}
    links: list[Any] = []
    for edge in found.edges:
        ends = [node if node < found.n_chips else f"switch{node - found.n_chips}" for node in edge.ends]
        if (edge.bandwidth, edge.latency) == usual[0][0]:
            links.append([*ends, edge.count] if edge.count > 1 else ends)
        else:
            count = {"count": edge.count} if edge.count > 1 else {}
            links.append(_Line(between=ends, **count, bandwidth=table.bandwidth(edge), latency=table.latency(edge)))
    topology["links"] = links
    if usual:
        common = Edge((0, 0), 1, *usual[0][0])
        topology["link"] = {"bandwidth": table.bandwidth(common), "latency": table.latency(common)}
    return topology
