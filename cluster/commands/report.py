"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cluster.commands.options import AsJson
from cluster.commands.output import print_json


def report(
    folder: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="The HTML file; by default report.html in the folder.")] = None,
    json_: AsJson = False,
) -> None:
    """Make one HTML file of what `run --out` or `sweep --out` has kept; it needs no network (docs/reports.md)."""
    from cluster.report import write_report

    made = write_report(folder, out)
    if json_:
        document = {"kind": made.kind, "path": str(made.path), "size_bytes": made.size_bytes}
        print_json({"schema": "chipmesh.report.v1", **document})
    else:
        print(f"report of a {made.kind}: {made.path} ({made.size_bytes / 1e6:.1f} MB)")  # noqa: T201
