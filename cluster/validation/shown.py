"""What a validation shows people: its progress, tables of errors, predicted against measured as a picture or CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cluster.curves import COLOURS
from cluster.progress import Lines
from cluster.validation.errors import Errors, Validation
from cluster.validation.predictions import OnProgress, Prediction

SIZE, LEFT, RIGHT, TOP, BOTTOM = 560, 64, 236, 48, 52
UNITS = {"collective": "seconds", "decode": "measured unit"}


@contextmanager
def shown_progress(console: Console) -> Iterator[OnProgress]:
    """Give a callback that shows how many simulations are done: on a terminal a bar, elsewhere lines."""
    if not console.is_terminal:
        yield Lines("simulations")
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("simulations"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        shown = bar.add_task("", total=None)
        yield lambda done, of: bar.update(shown, total=of, completed=done)


def print_validation(console: Console, validation: Validation) -> None:
    """Print errors by system, by operation and size class, and what was skipped."""
    for (kind,), whole in validation.grouped("kind").items():
        title = f"{kind}: {whole.n} rows, median {whole.median:.1%}, p90 {whole.p90:.1%}"
        console.print(f"\n[bold]{title}[/]")
        for by in (("size_class",), ("system",), ("system", "operation", "size_class")):
            groups = {key[1:]: e for key, e in validation.grouped("kind", *by).items() if key[0] == kind}
            console.print(_table(by, groups))
    if validation.skipped:
        console.print(f"{len(validation.skipped)} rows are skipped:")
    for reason, n, first in validation.reasons:
        detail = f": {first.detail.splitlines()[0]}" if first.detail else ""
        console.print(f"  {n:5d}  {reason} (first: {first.row.id}{detail})", markup=False)


def _table(names: Sequence[str], groups: Mapping[tuple[str, ...], Errors]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name.replace("_", " "), overflow="fold")
    for name in ("rows", "median", "p90", "pred/meas"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("worst", justify="right", overflow="fold")
    table.add_column("error", justify="right", no_wrap=True)
    for key, errors in groups.items():
        table.add_row(
            *key, str(errors.n), f"{errors.median:.1%}", f"{errors.p90:.1%}", f"{errors.ratio:.2f}",
            errors.worst.case.row.id, f"{errors.worst.error:.0%}",
        )  # fmt: skip
    return table


def as_csv(validation: Validation) -> str:
    """Return a CSV with every row: its groups, measured and predicted value, error; why it is skipped, if it is."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("id", "kind", "system", "operation", "size_class", "quantity", "measured", "predicted", "error", "skipped")
    )
    for p in validation.predictions:
        c = p.case
        writer.writerow(
            (c.row.id, c.kind, c.system, c.operation, c.size_class, c.quantity, f"{c.measured:.6g}",
             f"{p.predicted:.6g}", f"{p.ratio - 1:.4f}", "")
        )  # fmt: skip
    for s in validation.skipped:
        writer.writerow((s.row.id, *("",) * 8, f"{s.reason}: {s.detail}" if s.detail else s.reason))
    return text.getvalue()


def picture(validation: Validation) -> str:
    """Return an SVG: predicted against measured, both logarithmic, a panel for every kind, a colour per system."""
    kinds = [kind for (kind,) in validation.grouped("kind")]
    width = (SIZE + RIGHT) * max(1, len(kinds))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {SIZE}" width="{width}" height="{SIZE}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">'
    )
    body = [
        head,
        f'<rect width="{width}" height="{SIZE}" fill="white"/>',
    ]
    for i, kind in enumerate(kinds):
        panel = _panel([p for p in validation.predictions if p.case.kind == kind], kind)
        body += [f'<g transform="translate({i * (SIZE + RIGHT)} 0)">', *panel, "</g>"]
    return "\n".join([*body, "</svg>"]) + "\n"


def _panel(predictions: Sequence[Prediction], kind: str) -> list[str]:
    values = [v for p in predictions for v in (p.case.measured, p.predicted) if v > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    span = SIZE - LEFT - BOTTOM

    def at(value: float) -> float:
        return (math.log10(value) - low) / (high - low) * span

    x, y = LEFT, SIZE - BOTTOM
    body = [
        f'<text x="{LEFT}" y="28" font-size="15" font-weight="600">{escape(kind)}: {len(predictions)} rows</text>',
        f'<rect x="{x}" y="{y - span}" width="{span}" height="{span}" fill="none" stroke="#999"/>',
        f'<line x1="{x}" y1="{y}" x2="{x + span}" y2="{y - span}" stroke="#999"/>',
    ]
    for power in range(low, high + 1):
        place, label = at(10.0**power), f"1e{power}"
        body.append(f'<text x="{x + place:.1f}" y="{y + 18}" text-anchor="middle">{label}</text>')
        body.append(f'<text x="{x - 8}" y="{y - place + 4:.1f}" text-anchor="end">{label}</text>')
    body.append(f'<text x="{x + span / 2}" y="{SIZE - 12}" text-anchor="middle">measured, {UNITS[kind]}</text>')
    body.append(f'<text transform="translate(16 {y - span / 2}) rotate(-90)" text-anchor="middle">predicted</text>')
    systems = sorted({p.case.system for p in predictions})
    for i, system in enumerate(systems):
        colour = COLOURS[i % len(COLOURS)]
        body += [
            f'<circle cx="{x + at(p.case.measured):.1f}" cy="{y - at(p.predicted):.1f}" r="2.5" fill="{colour}" '
            f'fill-opacity="0.6"><title>{escape(p.case.row.id)}</title></circle>'
            for p in predictions if p.case.system == system and p.predicted > 0
        ]  # fmt: skip
        body.append(f'<text x="{SIZE}" y="{TOP + 15 * i}" fill="{colour}">{escape(system)}</text>')
    return body
