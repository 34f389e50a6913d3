"""Turn references into mappings: catalogue names, paths and inline mappings become documents."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from configs.catalogue_files import catalogue_path, label
from configs.document_kinds import DOCUMENT_KINDS
from configs.errors import ConfigError
from configs.figures import FigureReader, read_sources
from configs.problems import Keys, Place, Problems, dotted, shown
from configs.spec.model import ModelSpec
from configs.spec.provenance import Provenance
from configs.yaml_source import parse_yaml, read_file

LIKE = "like"
"""The key of a document that names another one of its kind, on whose top it stands."""
FAILED: Final = object()
"""Stands for a value whose problem is already noted."""

SPECS = tuple(DOCUMENT_KINDS[kind].spec for every in DOCUMENT_KINDS.values() for kind in every.slots.values())
"""What a slot may hold already."""

ModelReader = Callable[[Path], ModelSpec]


@frozen
class Origin:
    """A document's file (None if inline), folder, the files that led to it, the sources it may cite."""

    file: str | None
    folder: Path
    chain: tuple[Path, ...] = ()
    sources: Mapping[str, str] = field(factory=dict)


class Document(dict[str, Any]):
    """The mapping of one experiment, system, chip or model, figures replaced by their values."""

    def __init__(self, kind: str, origin: Origin, mapping: Mapping[str, Any]) -> None:
        super().__init__(mapping)
        self.kind = kind
        self.origin = origin
        self.provenance: dict[str, Provenance] = {}

    def enter(self, place: Place) -> Place:
        """Return the place of this document's values."""
        return place if self.origin.file is None else place.enter(self.origin.file)

    def forget(self, keys: Keys) -> None:
        """Drop the provenance of a value that is about to be replaced."""
        path = dotted(keys)
        for known in tuple(self.provenance):
            if known == path or known.startswith((path + ".", path + "[")):
                del self.provenance[known]


@frozen
class Resolver:
    """Read what references refer to; `readers` read models in other formats, by suffix ("/" for a folder).

    folder: where relative paths in overrides begin.
    """

    problems: Problems
    readers: Mapping[str, ModelReader]
    folder: Path = Path()

    def resolve(self, kind: str, value: Any, place: Place, parent: Origin) -> Any:
        """Return the document (or the model) that a reference stands for, or FAILED."""
        if isinstance(value, (Document, *SPECS)) or value is FAILED:
            return value
        if isinstance(value, str) and value in DOCUMENT_KINDS[kind].words:
            return value
        if isinstance(value, Mapping):
            origin = Origin(None, self._folder(place, parent), parent.chain, parent.sources)
            return self._document(kind, copy.deepcopy(dict(value)), place, origin)
        if not isinstance(value, str | Path):
            self.problems.add(place, f"{shown(value)} is not a reference; accepted: {_accepted(kind)}")
            return FAILED
        try:
            return self._follow(kind, value, place, parent)
        except ConfigError as error:
            for problem in error.problems:
                self.problems.add(place, problem)
            return FAILED

    def resolve_slots(self, document: Document, place: Place) -> None:
        """Resolve all references in a document, and those in what they stand for."""
        inside = document.enter(place)
        for key, kind in DOCUMENT_KINDS[document.kind].slots.items():
            if key in document:
                document[key] = self.resolve(kind, document[key], inside.child(key), document.origin)
                if isinstance(document[key], Document):
                    self.resolve_slots(document[key], inside.child(key))
        if document.kind == "systems":
            self._resolve_nodes(document.get("topology"), inside.child("topology"), document.origin)

    def _resolve_nodes(self, topology: Any, place: Place, origin: Origin) -> None:
        """Resolve what stands under `node` in a composed topology, and in its parts, where it is a system."""
        if not isinstance(topology, dict) or isinstance(topology, Document):
            return
        if is_system(topology.get("node")):
            topology["node"] = self.resolve("systems", topology["node"], place.child("node"), origin)
            if isinstance(topology["node"], Document):
                self.resolve_slots(topology["node"], place.child("node"))
        for key in ("node", "network"):
            self._resolve_nodes(topology.get(key), place.child(key), origin)
        parts = topology.get("parts")
        for i, part in enumerate(parts if isinstance(parts, list) else ()):
            self._resolve_nodes(part, place.child("parts").child(i), origin)

    def _folder(self, place: Place, parent: Origin) -> Path:
        return parent.folder if self.problems.override_at(place) is None else self.folder

    def _follow(self, kind: str, reference: str | Path, place: Place, parent: Origin) -> Any:
        text = str(reference)
        suffix = next((s for s in self.readers if s != "/" and text.lower().endswith(s)), None)
        is_path = isinstance(reference, Path) or "/" in text or text.endswith((".yaml", ".yml"))
        if kind == "models" and (suffix or is_path):
            path = self._folder(place, parent) / expand(text)
            suffix = "/" if suffix is None and "/" in self.readers and _exists(path) and path.is_dir() else suffix
            if suffix is not None:
                return self._read_model(suffix, path)
        if not is_path:
            return self._read(kind, catalogue_path(kind, text), place, parent)
        return self._read(kind, self._folder(place, parent) / expand(text), place, parent)

    def _read_model(self, suffix: str, path: Path) -> ModelSpec:
        if not _exists(path):
            raise ConfigError((f"{path}: no such file",))
        return self.readers[suffix](path)

    def _read(self, kind: str, path: Path, place: Place, parent: Origin) -> Any:
        file = label(path)
        try:
            text = read_file(path)
        except ConfigError as error:
            at_top = file == place.file and not place.keys
            raise ConfigError(tuple(p if at_top else f"{file}: {p}" for p in error.problems)) from None
        real = path.resolve()
        if real in parent.chain:
            raise ConfigError(("a cycle: " + " → ".join(label(p) for p in (*parent.chain, real)),))
        try:
            mapping = parse_yaml(text, file)
        except ConfigError as error:
            self.problems.found.extend(error.problems)
            return FAILED
        inside = place.enter(file)
        if not isinstance(mapping, dict):
            what = "is empty" if mapping is None else f"holds {shown(mapping)} at the top"
            self.problems.add(inside, f"{what}; accepted: a mapping of keys to values")
            return FAILED
        mapping.setdefault("name", path.stem)
        return self._document(kind, mapping, inside, Origin(file, path.parent, (*parent.chain, real)))

    def _document(self, kind: str, mapping: dict[str, Any], inside: Place, origin: Origin) -> Document:
        mapping.setdefault("name", "inline")
        if kind == "experiments":
            return Document(kind, origin, mapping)
        sources = dict(origin.sources)
        if "sources" in mapping:
            sources = read_sources(mapping.pop("sources"), inside.child("sources"), self.problems)
        document = Document(kind, Origin(origin.file, origin.folder, origin.chain, sources), {})
        reader = FigureReader(sources, self.problems, document.provenance)
        slots = DOCUMENT_KINDS[kind].slots
        for key, value in mapping.items():
            document[key] = value if key in slots else reader.plain(value, inside.child(key), (key,))
        return self._on_top(document, inside) if LIKE in document else document

    def _on_top(self, document: Document, inside: Place) -> Any:
        """Return a document on top of the one that it is `like`: what it does not say, the other says."""
        base = self.resolve(document.kind, document.pop(LIKE), inside.child(LIKE), document.origin)
        if not isinstance(base, Document):
            return FAILED
        taken = _fill(document, base)
        for path, origin in base.provenance.items():
            if any(_inside(path, one) or _inside(one, path) for one in taken):
                document.provenance.setdefault(path, origin)
        return document


def _fill(mapping: dict[str, Any], base: Mapping[str, Any]) -> list[str]:
    """Put what is missing in a mapping, at any depth, into it; return the paths of what was put there."""
    taken = []
    for key, value in base.items():
        if isinstance(value, dict) and isinstance(mapping.get(key), dict):
            taken += [f"{key}.{path}" for path in _fill(mapping[key], value)]
        elif key not in mapping:
            mapping[key] = copy.deepcopy(value)
            taken.append(key)
    return taken


def _inside(path: str, outer: str) -> bool:
    return path == outer or path.startswith((f"{outer}.", f"{outer}["))


def is_system(node: Any) -> bool:
    """Tell whether a node of a composed topology is a system (or the name or path of one), not a topology."""
    return isinstance(node, str | Path) or (isinstance(node, Mapping) and "topology" in node)


def _accepted(kind: str) -> str:
    return f"a name in the catalogue of {kind}, a path that ends in .yaml or contains '/', or a mapping"


def expand(text: str) -> Path:
    """Return a path with ~ expanded, if there is such a home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
