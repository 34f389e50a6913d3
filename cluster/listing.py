"""What exists: the catalogue's entries and the links of a system, for people and for scripts."""

from __future__ import annotations

from typing import Any

from attrs import asdict
from rich import box
from rich.console import Console
from rich.table import Table

from collectives import ALGORITHMS
from configs.catalogue_files import catalogue_entry, catalogue_names
from configs.spec import LinkFault, SystemSpec
from configs.units import format_bandwidth, format_time_ps
from topology import Topology, bisection_bytes_per_s, build_topology, diameter_hops, islands, n_cut_off_pairs

KINDS = ("chips", "systems", "models", "experiments")


def topology_json(system: SystemSpec) -> dict[str, Any]:
    """Return the document of `chipmesh topo --json` (design section 7)."""
    topology = build_topology(system)
    links = (
        {
            "src": topology.node_name(int(src)), "dst": topology.node_name(int(dst)), "count": int(count),
            "bandwidth_bytes_per_s": float(bandwidth), "latency_s": int(latency) * 1e-12,
        }
        for src, dst, count, bandwidth, latency in zip(
            topology.link_src[::2], topology.link_dst[::2], topology.link_count[::2],
            topology.link_bandwidth_bytes_per_s[::2], topology.link_latency_ps[::2], strict=True,
        )
    )  # fmt: skip
    return {
        "schema": "chipmesh.topo.v1",
        "system": system.name,
        "kind": topology.kind,
        "dims": topology.dims,
        "axes": topology.axes,
        "n_chips": topology.n_chips,
        "n_switches": topology.n_switches,
        "n_links": topology.n_links,
        "diameter_hops": diameter_hops(topology),
        "bisection_bytes_per_s": bisection_bytes_per_s(topology),
        "faults": {
            "chips": [f"chip{chip}" for chip in system.faults.chips],
            "links": [asdict(LinkFault.of(fault)) for fault in system.faults.links],
            "n_cut_off_pairs": n_cut_off_pairs(topology),
            "islands": _islands(topology),
        },
        "links": list(links),
    }


def _islands(topology: Topology) -> list[list[str]]:
    """Return the names of the chips that can reach each other, set by set, where there is more than one set."""
    found = islands(topology)
    return [[topology.node_name(int(chip)) for chip in chips] for chips in found] if len(found) > 1 else []


def print_topology(console: Console, system: SystemSpec) -> None:
    """Print a system's shape and its distinct kinds of edges."""
    found = topology_json(system)
    shape = " × ".join(f"{axis} {n}" for axis, n in zip(found["axes"], found["dims"], strict=True))
    console.print(f"[bold]{system.name}[/]: {found['kind']} of {found['n_chips']} chips ({shape}), {system.chip.name}")
    bisection, faults, diameter = found["bisection_bytes_per_s"], found["faults"], found["diameter_hops"]
    console.print(
        f"{found['n_switches']} switches, {found['n_links']} physical links, "
        f"diameter {'infinite' if diameter is None else f'{diameter} hops'}, "
        f"bisection {'unknown' if bisection is None else format_bandwidth(bisection)} per direction"
    )
    if faults["chips"] or faults["links"]:
        dead = [*faults["chips"], *(fault["link"] for fault in faults["links"])]
        console.print(f"dead: {', '.join(dead)}")
    if faults["islands"]:
        sets = "; ".join(_some(names) for names in faults["islands"][:8])
        console.print(f"{faults['n_cut_off_pairs']} pairs of chips are cut off from each other: {sets}")
    edges: dict[tuple[int, float, float], int] = {}
    for link in found["links"]:
        kind = (link["count"], link["bandwidth_bytes_per_s"], link["latency_s"])
        edges[kind] = edges.get(kind, 0) + 1
    for (count, bandwidth, latency_s), n in sorted(edges.items()):
        console.print(
            f"{n} edges of {count} links: {format_bandwidth(bandwidth)} per direction, "
            f"{format_time_ps(latency_s * 1e12)} latency"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f", … ({len(names)} chips)" if len(names) > 8 else "")


def listing(kind: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the catalogue's entries by kind, and the algorithms by operation."""
    found: dict[str, list[dict[str, Any]]] = {
        k: [_entry(k, name) for name in catalogue_names(k)] for k in KINDS if kind in {None, k}
    }
    if kind in {None, "algorithms"}:
        found["algorithms"] = [{"name": op, "description": ", ".join(rows)} for op, rows in ALGORITHMS.items()]
    return found


def _entry(kind: str, name: str) -> dict[str, Any]:
    entry = catalogue_entry(kind, name)
    return {"name": name, "description": str(entry.get("description") or entry.get("vendor") or "")}


def print_listing(console: Console, found: dict[str, list[dict[str, Any]]]) -> None:
    """Print a table per kind."""
    for kind, entries in found.items():
        table = Table(box=box.SIMPLE_HEAD, title=kind, title_justify="left", show_header=False)
        for entry in entries:
            table.add_row(entry["name"], entry["description"])
        console.print(table)
