"""Topology files in and out: what `chipmesh import` and the options of `chipmesh topo` do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError, RunError
from configs.input_files import decode_utf8, read_bytes
from configs.loader import load_system
from configs.problems import shown
from configs.spec.system import SystemSpec
from configs.units import parse_bandwidth_bytes_per_s, parse_time_ps
from topology import build_topology
from topology.export import EXPORTS
from topology.importers import Options, System, import_file
from topology.svg import draw

MOST_BYTES = 2**28


def import_system(
    file: Path, form: str, *, chip: str | None, link_bandwidth: str | None, link_latency: str | None
) -> tuple[System, SystemSpec]:
    """Return the system that a file describes, as text and as a spec; raise ConfigError where it is wrong."""
    options = Options(
        str(Path(chip).absolute()) if chip and ("/" in chip or chip.endswith((".yaml", ".yml"))) else chip,
        _quantity("--link-bandwidth", link_bandwidth, parse_bandwidth_bytes_per_s),
        _quantity("--link-latency", link_latency, parse_time_ps),
    )
    system = import_file(file, form, options)
    try:
        return system, load_system(system.mapping, (), VOCABULARY)
    except ConfigError as error:
        raise ConfigError(tuple(f"{file}: {problem}" for problem in error.problems)) from None


def write_system(system: System, out: Path) -> None:
    """Write the system file."""
    _write(out, system.to_yaml(), "--out")


def export_topology(system: SystemSpec, path: Path) -> None:
    """Write the topology in the format that the file's ending names."""
    if path.suffix not in EXPORTS:
        accepted = "a file that ends in .json (networkx node-link) or in .yml (ASTRA-sim)"
        raise ConfigError((f"--export: {path}; accepted: {accepted}",))
    _write(path, EXPORTS[path.suffix](build_topology(system)), "--export")


def draw_topology(system: SystemSpec, path: Path, run: Path | None) -> None:
    """Write a picture of the topology, its links coloured by a run's utilisation if there is one."""
    utilisation = None if run is None else read_utilisation(run)
    topology = build_topology(system)
    if utilisation is not None:
        names = {topology.link_name(link) for link in range(len(topology.link_src))}
        unknown = next((name for name in utilisation if name not in names), None)
        if unknown is not None:
            raise ConfigError((f"--run: {run}: {shown(unknown)} is no link of {system.name}; accepted: a run of it",))
    _write(path, draw(topology, system.name, utilisation), "--svg")


def read_utilisation(run: Path) -> dict[str, float]:
    """Return the links' utilisation by name: of all in a run's folder, or the busiest in its JSON document."""
    path = run / "links.json" if run.is_dir() else run
    try:
        document = json.loads(decode_utf8(read_bytes(path, "the JSON document of a run", MOST_BYTES)))
    except ConfigError as error:
        raise ConfigError((f"--run: {path}: {error}",)) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError((f"--run: {path}: is not JSON: {error}",)) from None
    links = document.get("links") if isinstance(document, dict) else None
    if not isinstance(links, list) or not all(_is_use(link) for link in links):
        accepted = "what `chipmesh run --json` prints, or the folder of its --out"
        raise ConfigError((f"--run: {path}: links: {shown(links)}; accepted: {accepted}",))
    return {link["name"]: float(link["utilisation"]) for link in links}


def _is_use(link: object) -> bool:
    if not isinstance(link, Mapping) or not isinstance(link.get("name"), str):
        return False
    use: Any = link.get("utilisation")
    return isinstance(use, int | float) and not isinstance(use, bool) and 0 <= use <= 1 + 1e-6


def _quantity(option: str, text: str | None, parse: Callable[[object], Any]) -> Any:
    try:
        return None if text is None else parse(text)
    except ConfigError as error:
        raise ConfigError((f"{option}: {error}",)) from None


def _write(path: Path, text: str, option: str) -> None:
    if path.is_dir() or not path.parent.is_dir():
        why = "is a folder" if path.is_dir() else "its folder does not exist"
        raise ConfigError((f"{option}: {path}: {why}; accepted: a file in a folder that can be written",))
    try:
        path.write_bytes(text.encode(errors="backslashreplace"))  # names of files can be any bytes
    except OSError as error:
        raise RunError(f"{option}: {path}: cannot be written: {error.strerror}") from None
