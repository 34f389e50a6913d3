"""What a sweep shows people: its progress on a terminal, its summary at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from cluster.progress import Lines
from cluster.sweeps.results import OnProgress, Progress, SweepResults
from cluster.sweeps.table import TABLE, Row
from cluster.terminal import seconds

MOST_ROWS = 20


@contextmanager
def shown_progress(console: Console) -> Iterator[OnProgress]:
    """Give a callback that shows points, rate and time left: on a terminal a bar, elsewhere lines."""
    if not console.is_terminal:
        lines = Lines("points")
        yield lambda progress: lines(progress.n_finished, progress.n_points)
        return
    columns = (
        BarColumn(), MofNCompleteColumn(), TextColumn("points"), TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[failed]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Bar(*columns, console=console, transient=True) as bar:
        shown = bar.add_task("", total=None, rate="reading", failed="")

        def show(progress: Progress) -> None:
            n = progress.n_computed
            rate = f"{progress.points_per_s:.2f}/s" if n else ""
            failed = f"{progress.n_failed} failed" if progress.n_failed else ""
            bar.update(
                shown, total=progress.n_points, completed=progress.n_finished, rate=rate, failed=failed
            )  # fmt: skip

        yield show


def print_sweep(console: Console, results: SweepResults) -> None:
    """Print how the points went, the fastest of them, and the first errors."""
    counts = results.to_json()["counts"]
    failed = [row for row in results.rows if row["status"] == "failed"]
    done = [row for row in results.rows if row["status"] == "done"]
    if done:
        console.print(_fastest(done))
    for row in failed[:MOST_ROWS]:
        console.print(f"point {row['point']} failed: {row['error']}", markup=False)
    if len(failed) > MOST_ROWS:
        console.print(f"… {len(failed)} failed in all")
    console.print(
        f"{counts['points']} points: {counts['done']} done, {counts['failed']} failed"
        f" ({counts['stored_before']} were stored before; where leaves out {counts['left_out']})"
    )
    if counts["stale"]:
        console.print(f"{counts['stale']} stored points are no longer of this sweep: left out of the table")
    console.print(f"table: {results.folder / TABLE}")


def _fastest(done: Sequence[Row]) -> Table:
    rows = sorted(done, key=lambda row: (-row["tokens_per_s"], row["point"]))
    title = f"the {MOST_ROWS} points of most tokens/s" if len(rows) > MOST_ROWS else "points by tokens/s"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))
    texts, numbers = ("point", "system", "layout"), ("batch", "TTFT", "TPOT", "tokens/s", "/user", "/chip")
    for name in (*texts, *numbers):
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=True)
    for row in rows[:MOST_ROWS]:
        layout = " ".join(f"{name}{row[name]}" for name in ("tp", "pp", "dp", "ep", "cp") if row[name] != 1)
        rates = (f"{row[name]:,.1f}" for name in ("tokens_per_s", "tokens_per_s_per_user", "tokens_per_s_per_chip"))
        table.add_row(
            str(row["point"]), str(row["system"]), layout or "tp1", str(row["batch"]),
            seconds(row["ttft_s"]), seconds(row["tpot_s"]), *rates,
        )  # fmt: skip
    return table
