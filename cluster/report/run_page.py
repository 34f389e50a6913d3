"""What the page of a run shows, in the order of the questions: how fast, why, where, from which figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from cluster.report.links import busiest_figure, links_data, topology_figure
from cluster.report.memory import memory_figures
from cluster.report.origins import sources, spec_tree
from cluster.report.roofline import rooflines
from cluster.report.stored import StoredRun
from cluster.report.style import KINDS, seconds
from cluster.report.timeline import shares_over_time, timeline_data, timeline_figure
from cluster.report.times import by_operation, layers_figure, operations_figure, operations_table, parts
from configs.units import format_size


@frozen(eq=False)
class Page:
    """Figures by name, data for the script, words for the template, and data that it unpacks when it is asked for."""

    figures: Mapping[str, Any]
    data: Mapping[str, Any]
    words: Mapping[str, Any]
    later: Mapping[str, Any] = field(factory=dict)


def run_page(run: StoredRun) -> Page:
    """Return the page of a run."""
    timeline = timeline_data(run)
    layers, layer_legend = layers_figure(run)
    memories, roofs = memory_figures(run), rooflines(run)
    figures = {
        "timeline": timeline_figure(timeline, shares_over_time(run), run.result["time"]["ttft_s"]),
        "topology": topology_figure(run),
        "busiest": busiest_figure(run),
        "layers": layers,
        "operations": operations_figure(run),
        **{f"roofline{i}": roof.figure for i, roof in enumerate(roofs)},
        **{f"memory{i}": figure for i, (_, figure) in enumerate(memories)},
    }
    result = run.result
    steps = {"ttft_s": result["time"]["ttft_s"], "tpot_s": result["time"]["tpot_s"]}
    words = {
        "title": f"{run.spec['model']['name']} on {run.spec['system']['name']}",
        "subtitle": _subtitle(run),
        "facts": _facts(run),
        "text": _text(run),
        "parts": parts(run),
        "notes": result["notes"],
        "kinds": [KINDS[kind["name"]] for kind in timeline["kinds"]],
        "timeline_left_out": timeline["left_out"],
        "has_links": bool(run.utilisation),
        "has_windows": figures["busiest"] is not None,
        "windows_left_out": (run.loads.schema.metadata or {}).get(b"left_out", b"").decode(),
        "layer_legend": layer_legend,
        "operations": operations_table(run),
        "roofs": roofs,
        "memories": [title for title, _ in memories],
        "spec": spec_tree(run.spec),
        "sources": sources(run.spec),
        "fingerprint": result["fingerprint"],
        "sha256": result["timeline_sha256"],
        "picture": run.picture,
    }
    data = {"timeline": timeline, "links": links_data(run), "steps": steps}
    return Page({name: figure for name, figure in figures.items() if figure is not None}, data, words)


def _subtitle(run: StoredRun) -> str:
    spec, system = run.spec, run.result["system"]
    p, workload = spec["parallel"], spec["workload"]
    degrees = " × ".join(f"{axis} {p[axis]}" for axis in ("tp", "pp", "dp", "ep", "cp") if p.get(axis, 1) > 1) or "tp 1"
    dtype = spec["dtype"]
    formats = dtype["weights"] if len({dtype[k] for k in ("weights", "kv", "activations")}) == 1 else (
        f"weights {dtype['weights']}, KV {dtype['kv']}, activations {dtype['activations']}")  # fmt: skip
    return (f"{system['n_chips_used']} of {system['n_chips']} chips ({degrees}) · {spec['system']['chip']['name']} · "
            f"batch {workload['batch']} · {workload['new_tokens']} new tokens · {formats}")  # fmt: skip


def _facts(run: StoredRun) -> list[dict[str, str]]:
    """Return the main figures."""
    time, memory = run.result["time"], run.result["memory"]
    slowest = max(parts(run), key=lambda part: part["share"])
    longest = next(iter(by_operation(run)), None)
    fullest = max(memory["tiers"], key=lambda tier: tier["used_bytes"] / tier["capacity_bytes"], default=None)
    facts = [
        {"name": "TTFT", "value": seconds(time["ttft_s"]), "says": "time to the first token"},
        {"name": "TPOT", "value": seconds(time["tpot_s"]), "says": "time per further token"},
        {"name": "tokens/s", "value": f"{time['tokens_per_s']:,.1f}",
         "says": f"{time['tokens_per_s_per_user']:,.1f} per user"},
        {"name": "bottleneck", "value": f"{slowest['share']:.0%} {slowest['name'].split(':')[0]}",
         "says": f"longest operation: {longest.name}" if longest else "no operation takes time"},
    ]  # fmt: skip
    if fullest is not None:
        facts.append(
            {"name": "memory", "value": format_size(fullest["used_bytes"]),
             "says": f"of {format_size(fullest['capacity_bytes'])} {fullest['name']}, chip {memory['chip']} (fullest)"}
        )  # fmt: skip
    return facts + _accounts(run)


def _accounts(run: StoredRun) -> list[dict[str, str]]:
    """Return energy and cost where they are known."""
    energy, cost = run.result.get("energy") or {}, run.result.get("cost") or {}
    facts = []
    joules, dollars = energy.get("energy_j_per_token"), cost.get("cost_usd_per_million_tokens")
    if joules is not None:
        how = "upper bound" if energy.get("method") == "limit" else f"from {energy.get('method')}"
        facts.append({"name": "energy", "value": f"{joules:.3g} J/token", "says": f"{how}, {energy['confidence']}"})
    if dollars is not None:
        facts.append({"name": "cost", "value": f"${dollars:.3g}", "says": "per million tokens"})
    return facts


def _text(run: StoredRun) -> dict[str, str] | None:
    """Return the prompt and the first row's text, if there is text."""
    text = run.result["tokens"]["text"]
    return {"prompt": run.spec["workload"].get("prompt") or "", "output": text[0]} if text else None
