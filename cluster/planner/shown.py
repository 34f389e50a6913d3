"""What a plan says: to people, as JSON, and as an experiment to run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from attrs import asdict
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from cluster.planner.result import Entry, Plan
from cluster.planner.shapes import OnProgress
from cluster.progress import Lines
from cluster.terminal import seconds
from configs.errors import ConfigError
from configs.units import format_size

SCHEMA = "chipmesh.plan.v1"
MOST_OTHERS = 6
GOALS = {"tpot": "least time per token", "throughput": "most tokens/s", "cost": "least cost per token"}


@contextmanager
def shown_plan(console: Console) -> Iterator[OnProgress]:
    """Give a callback that shows how far the search is: on a terminal bars, elsewhere lines."""
    names = {"bounds": "bounds", "runs": "visits, at most"}
    if not console.is_terminal:
        lines = {what: Lines(name) for what, name in names.items()}
        yield lambda what, n_done, n_most: lines[what](n_done, n_most)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        shown: dict[str, Any] = {}

        def show(what: str, n_done: int, n_most: int) -> None:
            if what not in shown:
                shown[what] = bar.add_task(names[what])
            bar.update(shown[what], total=n_most, completed=n_done)

        yield show


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return the document of `chipmesh plan --json`."""
    request, runner_up = plan.request, plan.runner_up
    return {
        "schema": SCHEMA,
        "system": plan.spec.system.name, "n_chips": plan.n_chips, "model": plan.spec.model.name,
        "objective": request.objective, "slo": [asdict(limit) for limit in request.limits],
        "context_tokens": plan.spec.workload.prompt_tokens, "new_tokens": plan.spec.workload.new_tokens,
        "batches": request.batches, "counts": plan.counts,
        "winner": {**entry_json(plan.winner), "experiment": experiment_of(plan), "overrides": request.overrides},
        "runner_up": None if runner_up is None else entry_json(runner_up),
        "candidates": [entry_json(entry) for entry in plan.entries],
    }  # fmt: skip


def entry_json(entry: Entry) -> dict[str, Any]:
    """Return a candidate with what is known of it; tpot_at_least_s is its bound."""
    return {
        **entry.candidate.named(), "status": entry.status, "reason": entry.reason or None,
        "tpot_at_least_s": entry.least_tpot_s, "time_per_token_s": None if entry.row is None else split(entry),
        "result": entry.row,
    }  # fmt: skip


def split(entry: Entry) -> dict[str, float]:
    """Return where the time per token of a candidate that ran goes: kernels of all stages, and the rest."""
    assert entry.row is not None
    assert entry.bound is not None
    step = entry.bound.step
    kernels = {"memory_s": step.memory_ps * 1e-12, "compute_s": step.compute_ps * 1e-12}
    return {**kernels, "communication_and_waiting_s": max(0.0, entry.row["tpot_s"] - sum(kernels.values()))}


def experiment_of(plan: Plan) -> dict[str, Any]:
    """Return the winner as an experiment, without the request's own overrides."""
    named, base = plan.winner.candidate.named(), plan.request.base
    parallel = {axis: named[axis] for axis in ("tp", "pp", "dp", "ep", "cp")}
    grid = plan.winner.candidate.shape.tp_grid
    return {
        **base,
        "workload": {**base["workload"], "batch": named["batch"]},
        "parallel": parallel if grid is None else {**parallel, "tp_grid": list(grid)},
        "micro_batches": named["micro_batches"],
    }


def write_experiment(plan: Plan, path: Path) -> None:
    """Write the winner as an experiment file; its first line is the command that runs it."""
    sets = " ".join(f"--set {shlex.quote(text)}" for text in plan.request.overrides)
    text = yaml.safe_dump(experiment_of(plan), sort_keys=False)
    try:
        path.write_text(f"# chipmesh run {path.name} {sets}".rstrip() + f"\n{text}", encoding="utf-8")
    except OSError as error:
        raise ConfigError((f"--out: {path}: {error.strerror}; accepted: a file that can be written",)) from None


def print_plan(console: Console, plan: Plan) -> None:
    """Print the winner and the runner-up side by side, why it is so, and what became of the others."""
    request, winner, runner_up = plan.request, plan.winner, plan.runner_up
    limits = "".join(f", {limit}" for limit in request.limits)
    console.print(
        f"[bold]{plan.spec.model.name}[/] on [bold]{plan.spec.system.name}[/] ({plan.n_chips} chips): "
        f"{GOALS[request.objective]}{limits}; context {plan.spec.workload.prompt_tokens}"
    )
    console.print(_side_by_side([winner] if runner_up is None else [winner, runner_up]))
    if runner_up is not None:
        console.print(f"why: {_why(winner, runner_up)}")
    console.print(_fates(plan))
    for line in _others(plan):
        console.print(line)


def _side_by_side(entries: Sequence[Entry]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name, entry in zip(("winner", "runner-up"), entries, strict=False):
        table.add_column(f"{name}: {entry.candidate}", justify="right")
    rows = [(entry.row or {}, split(entry), entry) for entry in entries]
    table.add_row("chips", *(str(entry.candidate.n_ranks) for entry in entries))
    table.add_row("TPOT", *(seconds(row["tpot_s"]) for row, _, _ in rows))
    table.add_row("  in kernels bound by memory", *(seconds(parts["memory_s"]) for _, parts, _ in rows))
    table.add_row("  in kernels bound by compute", *(seconds(parts["compute_s"]) for _, parts, _ in rows))
    table.add_row("  communicating, waiting", *(seconds(parts["communication_and_waiting_s"]) for _, parts, _ in rows))
    table.add_row("  at least, by its bound", *(seconds(entry.least_tpot_s) for entry in entries))
    table.add_row("TTFT", *(seconds(row["ttft_s"]) for row, _, _ in rows))
    table.add_row("tokens/s", *(f"{row['tokens_per_s']:,.1f}" for row, _, _ in rows))
    table.add_row("tokens/s/user", *(f"{row['tokens_per_s_per_user']:,.1f}" for row, _, _ in rows))
    table.add_row("weights per chip", *(format_size(row["weights_bytes"]) for row, _, _ in rows))
    table.add_row("KV cache per chip", *(format_size(row["kv_bytes"]) for row, _, _ in rows))
    for key, name in (("energy_j_per_token", "J/token"), ("cost_usd_per_million_tokens", "USD per million tokens")):
        if any(row[key] is not None for row, _, _ in rows):
            most = ["≤ " if row["energy_method"] == "limit" and key.startswith("energy") else "" for row, _, _ in rows]
            table.add_row(name, *(f"{m}{row[key]:.3g}" for m, (row, _, _) in zip(most, rows, strict=True)))
    return table


def _why(winner: Entry, runner_up: Entry) -> str:
    """Say by which part of a token's time the two differ."""
    first, second = split(winner), split(runner_up)
    names = {"memory_s": "in kernels bound by memory", "compute_s": "in kernels bound by compute",
             "communication_and_waiting_s": "communicating and waiting"}  # fmt: skip
    gaps = sorted(((second[key] - first[key], name) for key, name in names.items()), key=lambda gap: -abs(gap[0]))
    said = [f"{seconds(abs(gap))} {'more' if gap > 0 else 'less'} {name}" for gap, name in gaps if abs(gap) > 1e-9]
    also = ""
    for name, one, other in (
        ("chips", winner.candidate.n_ranks, runner_up.candidate.n_ranks),
        ("batch", winner.candidate.batch, runner_up.candidate.batch),
    ):
        also += f"; {name}: {other} for {one}" if one != other else ""
    return f"per token the runner-up takes {', '.join(said) or 'the same time'}{also}"


def _fates(plan: Plan) -> str:
    counts = plan.counts
    said = {
        "run": "ran", "bound": "cannot reach the runner-up, by their bounds", "memory": "do not fit the memory",
        "slo": "miss the objectives", "impossible": "are impossible", "failed": "failed",
    }  # fmt: skip
    fates = ", ".join(f"{counts[status]} {what}" for status, what in said.items() if counts[status])
    return f"{counts['candidates']} candidates: {fates}"


def _others(plan: Plan) -> Iterator[str]:
    """Say of the best-placed other layouts why they lose: by their run, by their bound, by an objective."""
    seen = {entry.candidate.layout for entry in (plan.winner, plan.runner_up) if entry}
    alive = [entry for entry in plan.entries if entry.status in ("run", "bound")]
    shown = 0
    for entry in sorted(alive, key=lambda e: (e.score if e.status == "run" else e.least_score, e.candidate)):
        if entry.candidate.layout in seen:
            continue
        seen.add(entry.candidate.layout)
        time = seconds(entry.row["tpot_s"]) if entry.row else f"at least {seconds(entry.least_tpot_s)}"
        yield f"  {entry.candidate}: TPOT {time}"
        shown += 1
        if shown == MOST_OTHERS:
            return
