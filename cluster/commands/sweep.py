"""The command `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cluster.commands.options import AsJson, RayAddress, whole_number
from cluster.commands.output import console_of, print_json


def sweep(
    file: Path,
    /,
    *,
    out: Annotated[Path, Parameter(help="The folder of the finished points and of results.parquet.")],
    backend: Annotated[Literal["process", "ray"], Parameter(help="Where the points run.")] = "process",
    ray_address: RayAddress = None,
    workers: Annotated[
        int | None, Parameter(help="Points that run at the same time; by default one per core.", converter=whole_number)
    ] = None,
    json_: AsJson = False,
) -> None:
    """Run the points of a sweep file; the same command goes on where it stopped (docs/sweeps.md)."""
    from cluster.sweeps import sweep as run_sweep
    from cluster.sweeps.shown import print_sweep, shown_progress

    with shown_progress(console_of(stderr=True)) as on_progress:
        results = run_sweep(
            file, out=out, backend=backend, address=ray_address, n_workers=workers, on_progress=on_progress
        )
        for _ in results:
            pass
    if json_:
        print_json(results.to_json())
    else:
        print_sweep(console_of(), results)
    results.raise_if_none()
