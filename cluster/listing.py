"""What exists: the catalogue's entries and the links of a system, for people and for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from attrs import asdict
from rich import box
from rich.console import Console
from rich.table import Table

from cluster.vocabulary import VOCABULARY
from collectives import ALGORITHMS
from configs.catalogue_files import catalogue_entry, catalogue_names
from configs.loader import load_chip, load_model, load_system
from configs.spec.faults import LinkFault
from configs.spec.provenance import Confidence, Provenance
from configs.spec.system import SystemSpec
from configs.units import format_bandwidth, format_size, format_time_ps
from topology import (
    Topology,
    bisection_bytes_per_s,
    build_topology,
    chips_of,
    diameter_hops,
    islands,
    n_cut_off_pairs,
    node_systems,
)
from topology.kinds.ocs import Ocs
from topology.ocs import shape_name

KINDS = ("chips", "systems", "models", "experiments")
CONFIDENCES: tuple[str, ...] = get_args(Confidence)
"""From the surest to the least sure."""
Columns = Mapping[str, Callable[[dict[str, Any]], str]]


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
        "chips": dict(Counter(chip.name for chip in chips_of(system, topology))),
        "n_chips": topology.n_chips,
        "n_switches": topology.n_switches - len(system.faults.switches),
        "n_links": topology.n_links,
        "diameter_hops": diameter_hops(topology),
        "bisection_bytes_per_s": bisection_bytes_per_s(topology),
        "faults": {
            "chips": [f"chip{chip}" for chip in system.faults.chips],
            "switches": [f"switch{switch}" for switch in system.faults.switches],
            "links": [asdict(LinkFault.of(fault)) for fault in system.faults.links],
            "n_cut_off_pairs": n_cut_off_pairs(topology),
            "islands": _islands(topology),
        },
        **({"ocs": system.topology.report()} if isinstance(system.topology, Ocs) else {}),
        "links": list(links),
    }


def _chip_names(chips: Mapping[str, int]) -> str:
    """Write which chips there are, and how many of each if they differ."""
    return ", ".join(chips) if len(chips) == 1 else ", ".join(f"{n} {name}" for name, n in chips.items())


def _islands(topology: Topology) -> list[list[str]]:
    """Return the names of the chips that can reach each other, set by set, where there is more than one set."""
    found = islands(topology)
    return [[topology.node_name(int(chip)) for chip in chips] for chips in found] if len(found) > 1 else []


def print_topology(console: Console, system: SystemSpec) -> None:
    """Print a system's shape and its distinct kinds of edges."""
    found = topology_json(system)
    shape = " × ".join(f"{axis} {n}" for axis, n in zip(found["axes"], found["dims"], strict=True))
    console.print(
        f"[bold]{system.name}[/]: {found['kind']} of {found['n_chips']} chips ({shape}), {_chip_names(found['chips'])}"
    )
    bisection, faults, diameter = found["bisection_bytes_per_s"], found["faults"], found["diameter_hops"]
    console.print(
        f"{found['n_switches']} switches, {found['n_links']} physical links, "
        f"diameter {'infinite' if diameter is None else f'{diameter} hops'}, "
        f"bisection {'unknown' if bisection is None else format_bandwidth(bisection)} per direction"
    )
    if faults["chips"] or faults["switches"] or faults["links"]:
        dead = [*faults["chips"], *faults["switches"], *(fault["link"] for fault in faults["links"])]
        console.print(f"dead: {', '.join(dead)}")
    if faults["islands"]:
        sets = "; ".join(_some(names) for names in faults["islands"][:8])
        console.print(f"{faults['n_cut_off_pairs']} pairs of chips are cut off from each other: {sets}")
    if "ocs" in found:
        console.print("\n".join(_ocs_lines(found["ocs"])))
    edges: dict[tuple[int, float, float], int] = {}
    for link in found["links"]:
        kind = (link["count"], link["bandwidth_bytes_per_s"], link["latency_s"])
        edges[kind] = edges.get(kind, 0) + 1
    for (count, bandwidth, latency_s), n in sorted(edges.items()):
        console.print(
            f"{n} edges of {count} links: {format_bandwidth(bandwidth)} per direction, "
            f"{format_time_ps(latency_s * 1e12)} latency"
        )


def _ocs_lines(ocs: Mapping[str, Any]) -> Iterator[str]:
    """Say which cubes, circuits and ports a slice of a superpod takes, how its axes close, and what is rewired."""
    ports = "" if ocs["switch_ports"] is None else f" of {ocs['switch_ports']}"
    wrap = {True: "ring", False: "open", "shifted": "ring with a shift"}
    failed = ", ".join(map(str, ocs["failed_cubes"])) or "none"
    cubes = _some(list(map(str, ocs["cubes"])), "cubes")
    closes = ", ".join(f"{axis}: {wrap[closed]}" for axis, closed in ocs["wrap"].items())
    yield (
        f"slice {shape_name(ocs['slice'])}{' twisted' if ocs['twist'] else ''}: cubes {cubes} of {ocs['n_cubes']} "
        f"({shape_name(ocs['cube'])} each), {ocs['n_free_cubes']} free, failed: {failed}"
    )
    yield (
        f"{ocs['n_circuits']} circuits through {ocs['n_switches']} optical switches, at most "
        f"{ocs['ports_used_per_switch']}{ports} ports of each; {closes}"
    )
    for f in ocs["failures"]:
        yield (
            f"after token {f['after_token']} cube {f['cube']} fails and cube {f['spare']} takes its place: "
            f"{f['circuits_removed']} circuits removed, {f['circuits_added']} added, "
            f"{format_time_ps(ocs['reconfiguration_s'] * 1e12)}"
        )


def _some(names: list[str], what: str = "chips") -> str:
    return ", ".join(names[:8]) + (f", … ({len(names)} {what})" if len(names) > 8 else "")


def listing(kind: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the catalogue's entries by kind, and the algorithms by operation."""
    found: dict[str, list[dict[str, Any]]] = {
        k: [_ENTRIES.get(k, _entry)(k, name) for name in catalogue_names(k)] for k in KINDS if kind in {None, k}
    }
    if kind in {None, "algorithms"}:
        found["algorithms"] = [{"name": op, "description": ", ".join(rows)} for op, rows in ALGORITHMS.items()]
    return found


def _entry(kind: str, name: str) -> dict[str, Any]:
    return {"name": name, "description": str(catalogue_entry(kind, name).get("description") or "")}


def _chip_entry(kind: str, name: str) -> dict[str, Any]:
    del kind
    chip = load_chip(name)
    farthest = chip.memory[-1]
    return {
        "name": name,
        "description": chip.description,
        "vendor": chip.vendor,
        "status": chip.status,
        "peak_flops": dict(chip.peak_flops),
        "memory": farthest.name,
        "memory_bytes": farthest.capacity_bytes,
        "memory_bandwidth_bytes_per_s": farthest.bandwidth_bytes_per_s,
        "links_bytes_per_s": sum_known([links.sum_bytes_per_s for links in chip.links]),
        "power_w": chip.power_w,
        "price_usd": chip.price_usd,
        "confidence": lowest_confidence(chip.provenance),
    }


def _system_entry(kind: str, name: str) -> dict[str, Any]:
    del kind
    system = load_system(name, (), VOCABULARY)
    topology: Topology = build_topology(system)
    figures = dict(system.provenance)
    for i, node in enumerate(node_systems(system.topology)):
        figures |= {f"node{i}.{path}": origin for path, origin in node.provenance.items()}
    graph = {path: origin for path, origin in figures.items() if not path.endswith("latency")}
    return {
        "name": name,
        "description": system.description,
        "chip": _chip_names(Counter(chip.name for chip in chips_of(system, topology))),
        "kind": topology.kind,
        "n_chips": topology.n_chips,
        "n_switches": topology.n_switches,
        "n_links": topology.n_links,
        "bisection_bytes_per_s": bisection_bytes_per_s(topology),
        "graph_confidence": lowest_confidence(graph),
        "confidence": lowest_confidence(figures),
    }


def _model_entry(kind: str, name: str) -> dict[str, Any]:
    model = load_model(name, (), VOCABULARY)
    return {
        **_entry(kind, name),
        "family": model.family,
        "parameters": model.shape.n_parameters,
        "kv_bytes_per_token": model.shape.kv_bytes_per_token("bf16"),
        "confidence": lowest_confidence(model.provenance),
    }


_ENTRIES: Mapping[str, Callable[[str, str], dict[str, Any]]] = {
    "chips": _chip_entry,
    "systems": _system_entry,
    "models": _model_entry,
}


def lowest_confidence(provenance: Mapping[str, Provenance]) -> str | None:
    """Return the confidence of the least sure of some figures; None if there are none.

    >>> lowest_confidence({"a": Provenance("a table", "vendor"), "b": Provenance("a guess", "estimate")})
    'estimate'
    """
    return max((origin.confidence for origin in provenance.values()), key=CONFIDENCES.index, default=None)


def sum_known(figures: Sequence[float | None]) -> float | None:
    """Return the sum of figures, or None if there are none or one is unknown."""
    known = [x for x in figures if x is not None]
    return sum(known) if known and len(known) == len(figures) else None


def print_listing(console: Console, found: dict[str, list[dict[str, Any]]]) -> None:
    """Print a table per kind; of its columns the first ones, as many as the terminal has room for."""
    for kind, entries in found.items():
        table = Table(
            box=box.SIMPLE_HEAD, title=kind, title_justify="left", show_header=kind in _COLUMNS, padding=(0, 1, 0, 0)
        )
        shown = [(head, [show(entry) for entry in entries]) for head, show in columns(kind).items()]
        room = console.width - 2
        for head, texts in shown:
            room -= max(map(len, (head, *texts))) + 2 * (kind in _COLUMNS)
            if room >= 0 or kind not in _COLUMNS:
                table.add_column(head, no_wrap=kind in _COLUMNS or head == "name")
        for i in range(len(entries)):
            table.add_row(*(texts[i] for _, texts in shown[: len(table.columns)]))
        console.print(table)


def columns(kind: str) -> Columns:
    """Return the columns of the table of a kind: for each head, what it shows of an entry of `listing`."""
    return _COLUMNS.get(kind, _PLAIN_COLUMNS)


def _known(entry: dict[str, Any], key: str, form: Callable[[float], str] = "{:g}".format) -> str:
    return "unknown" if entry[key] is None else form(entry[key])


def _peak(entry: dict[str, Any]) -> str:
    """Show the dense rate in the first of these formats that has one."""
    rates = entry["peak_flops"]
    dtype = next((dtype for dtype in ("bf16", "fp16", "fp8", *rates) if dtype in rates), None)
    return "unknown" if dtype is None else f"{rates[dtype] / 1e12:g} {dtype}"


_PLAIN_COLUMNS: Columns = {"name": lambda e: e["name"], "description": lambda e: e["description"]}
_COLUMNS: Mapping[str, Columns] = {
    "chips": {
        "name": lambda e: e["name"],
        "dense TFLOPS": _peak,
        "memory": lambda e: _known(e, "memory_bytes", format_size),
        "bandwidth": lambda e: _known(e, "memory_bandwidth_bytes_per_s", format_bandwidth),
        "links": lambda e: _known(e, "links_bytes_per_s", format_bandwidth),
        "power": lambda e: _known(e, "power_w", "{:g} W".format),
        "vendor": lambda e: e["vendor"],
        "status": lambda e: e["status"],
        "confidence": lambda e: e["confidence"],
    },
    "models": {
        "name": lambda e: e["name"],
        "family": lambda e: e["family"],
        "parameters": lambda e: f"{e['parameters'] / 1e9:,.3f}B",
        "KV B/token": lambda e: f"{e['kv_bytes_per_token']:,}",
        "confidence": lambda e: e["confidence"],
        "description": lambda e: e["description"],
    },
    "systems": {
        "name": lambda e: e["name"],
        "chips": lambda e: str(e["n_chips"]),
        "links": lambda e: str(e["n_links"]),
        "bisection": lambda e: _known(e, "bisection_bytes_per_s", format_bandwidth),
        "graph": lambda e: e["graph_confidence"],
        "all": lambda e: e["confidence"],
        "chip": lambda e: e["chip"],
    },
}  # fmt: skip
