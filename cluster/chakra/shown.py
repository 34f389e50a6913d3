"""What a replay says, to people and as JSON."""

from __future__ import annotations

from typing import Any

from attrs import asdict
from rich.console import Console

from cluster.chakra.replay import Replayed
from cluster.terminal import seconds
from cluster.timeline.accounts import by_name
from configs.plain import to_plain

SCHEMA = "chipmesh.replay.v1"
MOST = 8


def replay_json(replayed: Replayed) -> dict[str, Any]:
    """Return the document of `chipmesh replay --json`."""
    timeline = replayed.timeline
    return {
        "schema": SCHEMA, "system": replayed.system.name, "spec": to_plain(replayed.system),
        "n_ranks": replayed.n_ranks, "about": dict(replayed.about), "nodes": dict(replayed.counts),
        "time": {"total_s": replayed.total_s}, "breakdown": timeline.breakdown._asdict(),
        "operations": [asdict(operation) for operation in timeline.operations],
        "links": [link._asdict() for link in timeline.busiest_links(10)],
        "timeline_sha256": timeline.sha256(), "notes": replayed.notes,
    }  # fmt: skip


def print_replay(console: Console, replayed: Replayed) -> None:
    """Print how long the traces take, and where the time goes."""
    timeline, total_s, counts = replayed.timeline, replayed.total_s, replayed.counts
    nodes = ", ".join(f"{n:,} {name}" for name, n in sorted(counts.items()))
    console.print(f"[bold]{replayed.n_ranks} ranks[/] on [bold]{replayed.system.name}[/]: {nodes} nodes")
    console.print(f"total: [bold]{seconds(total_s)}[/]")
    b = timeline.breakdown
    for name, value in (
        ("compute-bound kernels", b.compute_s), ("memory-bound kernels", b.memory_s),
        ("exposed communication", b.exposed_communication_s), ("idle", b.idle_s),
    ):  # fmt: skip
        console.print(f"  {name}: {seconds(value)}" + (f", {value / total_s:.1%}" if total_s else ""))
    longest = ", ".join(f"{o.name} {seconds(o.total_s)}" for o in by_name(timeline.operations)[:MOST] if o.total_s)
    console.print(f"operations, mean over the chips: {longest or 'none takes time'}")
    links = ", ".join(f"{link.name} {link.utilisation:.2%}" for link in timeline.busiest_links(4))
    console.print(f"busiest links: {links or 'none is used'}")
    for note in replayed.notes:
        console.print(f"[dim]note: {note}[/]")
