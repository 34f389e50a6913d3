"""The commands `topo` and `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cluster.commands.options import AsJson, Overrides
from cluster.commands.output import console_of, print_json, say
from configs.errors import ConfigError


def topo(
    system: str,
    /,
    *,
    set_: Overrides = (),
    svg: Annotated[Path | None, Parameter(help="Draw the topology.")] = None,
    run: Annotated[
        Path | None, Parameter(help="Colour the picture's links by this run: its JSON or --out folder.")
    ] = None,
    export: Annotated[Path | None, Parameter(help="Write it for networkx (.json) or ASTRA-sim (.yml).")] = None,
    json_: AsJson = False,
) -> None:
    """Show what connects the chips of a system."""
    from cluster.listing import print_topology, topology_json
    from cluster.vocabulary import VOCABULARY
    from configs.loader import load_system

    spec = load_system(system, set_, VOCABULARY)
    if svg is not None or export is not None or run is not None:
        _topology_files(spec, svg, run, export)
    if json_:
        print_json(topology_json(spec))
    else:
        print_topology(console_of(), spec)


def import_(
    file: Path,
    /,
    *,
    format_: Annotated[
        str, Parameter(name="--format", help="auto, or the name of a format (docs/import.md).")
    ] = "auto",
    out: Annotated[Path | None, Parameter(help="Write the system file; by default it is printed.")] = None,
    chip: Annotated[str | None, Parameter(help="The chip: a catalogue name, or the path of its YAML file.")] = None,
    link_bandwidth: Annotated[str | None, Parameter(help="Of links that the file says none for.")] = None,
    link_latency: Annotated[str | None, Parameter(help="Of links that the file says none for.")] = None,
    json_: AsJson = False,
) -> None:
    """Make a system of a topology file: NCCL, RCCL, nvidia-smi, tt-umd, tt-metal, ASTRA-sim or networkx."""
    from cluster.listing import print_topology, topology_json
    from cluster.topology_files import import_system, write_system

    system, spec = import_system(file, format_, chip=chip, link_bandwidth=link_bandwidth, link_latency=link_latency)
    if out is not None:
        write_system(system, out)
    if out is not None or json_:
        for note in system.notes:
            say(note)
    if json_:
        print_json(topology_json(spec))
    elif out is not None:
        print_topology(console_of(), spec)
    else:
        print(system.to_yaml(), end="")  # noqa: T201  the file itself


def _topology_files(spec: Any, svg: Path | None, run: Path | None, export: Path | None) -> None:
    from cluster.topology_files import draw_topology, export_topology

    if run is not None and svg is None:
        raise ConfigError(("--run: colours the links of a picture; accepted: together with --svg",))
    if svg is not None:
        draw_topology(spec, svg, run)
    if export is not None:
        export_topology(spec, export)
