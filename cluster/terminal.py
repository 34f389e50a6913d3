"""What the command prints for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from cluster.bench import Row
from cluster.experiment import ExperimentResult
from cluster.timeline.accounts import by_name
from cluster.uncertainty import band_of
from configs.units import format_bandwidth, format_size, format_time_ps


def seconds(value: float | None) -> str:
    """Print a simulated time."""
    return "-" if value is None else format_time_ps(value * 1e12)


def print_run(console: Console, result: ExperimentResult) -> None:
    """Print the summary of a run."""
    spec, p = result.spec, result.spec.parallel
    degrees = " × ".join(
        f"{axis} {n}" for axis in ("tp", "pp", "dp", "ep", "cp") if (n := getattr(p, axis)) > 1 or axis == "tp"
    )
    console.print(
        f"\n[bold]{spec.model.name}[/] on [bold]{spec.system.name}[/]: {p.n_ranks} of {result.n_chips} chips "
        f"({degrees}), batch {spec.workload.batch}, weights {spec.dtype.weights}"
        + (f", {spec.n_parts} micro-batches" if spec.n_parts > 1 else "")
    )
    console.print(_times(result))
    for line in _per_token(result):
        console.print(line)
    console.print(_breakdown(result))
    console.print(_operations(result))
    if spec.n_parts > 1:
        b = result.timeline.breakdown
        hidden_s = b.communication_s - b.exposed_communication_s
        console.print(f"communication beside kernels: {seconds(hidden_s)} of {seconds(b.communication_s)}")
    memory = result.memory
    tiers = ", ".join(
        f"{format_size(t['used_bytes'])} of {format_size(t['capacity_bytes'])} {t['name']}" for t in memory["tiers"]
    )
    console.print(
        f"fullest chip: chip {memory['chip']} holds {tiers} "
        f"(weights {format_size(memory['weights_bytes'])}, KV cache {format_size(memory['kv_bytes'])})"
    )
    links = ", ".join(f"{link.name} {link.utilisation:.2%}" for link in result.timeline.busiest_links(4))
    console.print(f"busiest links: {links or 'none is used'}")
    if result.error is not None:
        error = result.error
        console.print(
            f"against fp32: logits differ by {error.relative_rms:.2%} (rms, relative), at most {error.max_abs:.3g}; "
            f"{error.n_equal_tokens} of {error.n_tokens} tokens equal before the first other one"
        )
    for restart in result.restarts:
        console.print(f"restarted from step {restart.from_step}: {restart.lost}")
    band = band_of(spec.system, spec.software)
    if band is not None:
        console.print(f"TPOT within {band.p50:.0%} (half) to {band.p90:.0%} (nine in ten): {band.basis}")
    for note in result.notes:
        console.print(f"[dim]note: {note}[/]")
    console.print(
        f"[dim]computed in {result.run_s:.1f} s after {result.setup_s:.1f} s of set-up; "
        f"timeline {result.timeline.sha256()[:16]}[/]"
    )


def _times(result: ExperimentResult) -> Table:
    times = result.times
    table = Table(box=box.SIMPLE_HEAD, title="simulated time", title_justify="left")
    for name in ("TTFT", "TPOT", "total", "tokens/s", "tokens/s/user"):
        table.add_column(name, justify="right")
    table.add_row(
        seconds(times.ttft_s), seconds(times.tpot_s), seconds(times.total_s),
        f"{times.tokens_per_s:,.1f}", f"{times.tokens_per_s_per_user:,.1f}",
    )  # fmt: skip
    return table


def _per_token(result: ExperimentResult) -> Iterator[str]:
    """Say what a token takes in energy and costs, if that is known."""
    energy, cost = result.energy, result.cost
    if energy.energy_j_per_token is not None:
        most = "at most " if energy.method == "limit" else ""
        parts = ", ".join(f"{name} {part:.3g}" for name, part in energy.parts_j_per_token.items() if part)
        yield f"energy: {most}{energy.energy_j_per_token:.3g} J/token ({energy.confidence}: {parts})"
    if cost.cost_usd_per_million_tokens is not None:
        parts = ", ".join(f"{name} {part:.3g}" for name, part in cost.parts_usd_per_million_tokens.items())
        yield f"cost: {cost.cost_usd_per_million_tokens:.3g} USD per million tokens ({parts})"


def _breakdown(result: ExperimentResult) -> Table:
    b, total_s = result.timeline.breakdown, result.times.total_s
    table = Table(box=box.SIMPLE_HEAD, title="where the time went (mean over the chips)", title_justify="left")
    for name in ("", "time", "share"):
        table.add_column(name, justify="right" if name else "left")
    rows = (
        ("compute-bound kernels", b.compute_s),
        ("memory-bound kernels", b.memory_s),
        ("exposed communication", b.exposed_communication_s),
        ("idle (waiting for other chips)", b.idle_s),
    )
    for name, value in rows:
        table.add_row(name, seconds(value), f"{value / total_s:.1%}" if total_s else "-")
    return table


def _operations(result: ExperimentResult, most: int = 8) -> str:
    """Name the operations that took the most time, and the layer that took most of it."""
    operations, total_s = by_name(result.timeline.operations), result.times.total_s
    longest = ", ".join(f"{o.name} {o.total_s / total_s:.1%}" for o in operations[:most] if o.total_s)
    layers: dict[int, float] = {}
    for o in result.timeline.operations:
        if o.layer is not None and o.bound != "beside":
            layers[o.layer] = layers.get(o.layer, 0.0) + o.total_s
    slowest = max(layers, key=lambda layer: (layers[layer], -layer), default=None)
    tail = "" if slowest is None else f"; slowest layer: {slowest}, {layers[slowest] / total_s:.1%}"
    return f"operations: {longest or 'none'}{tail}"


def print_bench(console: Console, rows: Sequence[Row]) -> None:
    """Print rows as nccl-tests does, out-of-place; of several algorithms, size by size and the fastest first."""
    first = rows[0]
    among = (
        f"{first.n_ranks} ranks" if first.n_groups == 1 else f"{first.n_ranks} ranks, {first.n_groups} groups at once"
    )
    what = ", ".join(word for word in (first.dtype, first.reduction, "out-of-place") if word)
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{first.op} among {among} ({what})", title_justify="left", padding=(0, 1, 0, 0)
    )
    table.add_column("algorithm", overflow="fold")
    for name in ("size", "time", "algbw", "busbw", "#wrong"):
        table.add_column(name, justify="right", no_wrap=True)
    compares = any(row.chosen is False for row in rows)
    if compares:
        rows = sorted(rows, key=lambda row: (row.size_bytes, row.time_s))
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        several = compares and after is not None and after.size_bytes != row.size_bytes
        table.add_row(
            row.algorithm.rpartition("/")[2] + (" *" if compares and row.chosen else ""), format_size(row.size_bytes),
            seconds(row.time_s), format_bandwidth(row.algbw_bytes_per_s), format_bandwidth(row.busbw_bytes_per_s),
            "-" if row.wrong is None else str(row.wrong), end_section=several,
        )  # fmt: skip
    console.print(table)
    if compares:
        console.print("[dim]* what auto takes: the least predicted time[/]")
