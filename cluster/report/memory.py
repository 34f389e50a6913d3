"""What every chip's memory holds, against what it could."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from bokeh.models import ColumnDataSource, NumeralTickFormatter

from cluster.report.stored import StoredRun
from cluster.report.style import add_hover, new_figure, plain
from configs.units import format_size

ROLES = {"weights": ("weights", "#2f7ed8"), "kv": ("KV cache", "#e8833a")}
FREE = ("free", "#98a2ad")
MOST_NAMED = 4
"""Tensors that a bar names on hover."""


def memory_figures(run: StoredRun) -> list[tuple[str, Any]]:
    """Return a title and a figure for every memory tier that holds something."""
    rows = run.memory.to_pylist()
    tiers = list(dict.fromkeys(row["tier"] for row in rows))
    return [_tier(i, name, [row for row in rows if row["tier"] == name]) for i, name in enumerate(tiers)]


def _tier(index: int, name: str, rows: list[dict[str, Any]]) -> tuple[str, Any]:
    chips = sorted({row["chip"] for row in rows})
    capacity = {row["chip"]: row["capacity_bytes"] for row in rows}
    held: dict[str, dict[int, list[tuple[int, str]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        held[row["role"]][row["chip"]].append((row["size_bytes"], row["tensor"]))
    used = {chip: sum(size for role in held.values() for size, _ in role[chip]) for chip in chips}
    fullest = max(chips, key=lambda chip: (used[chip] / capacity[chip], -chip))
    unit, size = _unit(max(used.values()))
    p = new_figure(f"memory{index}", 300, x_axis_label="chip", y_axis_label=f"{plain(name)} ({unit})")
    base = dict.fromkeys(chips, 0.0)
    for role in [*(r for r in ROLES if r in held), *(r for r in held if r not in ROLES)]:
        words, color = ROLES.get(role, (role, "#8a63d2"))
        sizes = {chip: sum(n for n, _ in held[role][chip]) for chip in chips}
        largest = [
            ", ".join(f"{tensor} {format_size(n)}" for n, tensor in sorted(held[role][chip], reverse=True)[:MOST_NAMED])
            for chip in chips
        ]
        base = _bars(p, base, {chip: n / size for chip, n in sizes.items()}, words, color,
                     [format_size(sizes[chip]) for chip in chips], largest)  # fmt: skip
    free = {chip: capacity[chip] - used[chip] for chip in chips}
    says = [f"{format_size(free[chip])} of {format_size(capacity[chip])}" for chip in chips]
    _bars(p, base, {chip: n / size for chip, n in free.items()}, *FREE, says, [""] * len(chips))
    p.y_range.start = 0
    p.tags = [{"held": max(used.values()) / size * 1.1, "capacity": max(capacity.values()) / size * 1.02}]
    p.xgrid.grid_line_color = None
    p.yaxis.formatter = NumeralTickFormatter(format="0,0.[00]")
    of = f"{format_size(used[fullest])} of {format_size(capacity[fullest])}, {used[fullest] / capacity[fullest]:.2%}"
    return f"{name}: the fullest, chip {fullest}, holds {of}", p


def _bars(
    p: Any, base: dict[int, float], height: dict[int, float], role: str, color: str, sizes: list[str],
    largest: list[str],
) -> dict[int, float]:  # fmt: skip
    """Draw bars on top of others; return where they end."""
    top = {chip: base[chip] + height[chip] for chip in base}
    source = ColumnDataSource({
        "chip": list(base), "bottom": list(base.values()), "top": list(top.values()), "size": sizes,
        "role": [plain(role)] * len(base), "largest": [plain(names) for names in largest],
    })  # fmt: skip
    bars = p.vbar("chip", 0.8, "top", "bottom", source=source, color=color, line_color=None,
                  fill_alpha=0.25 if role == FREE[0] else 1.0)  # fmt: skip
    tips = [("chip", "@chip"), ("@role", "@size")]
    add_hover(p, [bars], tips if role == FREE[0] else [*tips, ("the largest", "@largest")])
    return top


def _unit(size_bytes: int) -> tuple[str, int]:
    units = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
    return next(((name, size) for name, size in units if size_bytes >= size), ("B", 1))
