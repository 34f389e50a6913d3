"""The command `plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cluster.commands.options import AsJson, Overrides, whole_number
from cluster.commands.output import check_writable, console_of, print_json


def plan(
    system: str,
    model: str,
    /,
    *,
    objective: Annotated[Literal["tpot", "throughput", "cost"], Parameter(help="What is best.")],
    slo: Annotated[
        tuple[str, ...],
        Parameter(help="What must hold: tpot<50ms, ttft<1s; may be repeated.", negative=(), consume_multiple=False),
    ] = (),
    batch: Annotated[str, Parameter(help="Rows: 8, or 1,4,16, or 1:64 (doubling).")] = "1:256",
    context: Annotated[int, Parameter(help="Tokens of every prompt.", converter=whole_number)] = 1024,
    new_tokens: Annotated[int, Parameter(help="Tokens that a run generates.", converter=whole_number)] = 4,
    dtype: Annotated[str | None, Parameter(help="Number format of the weights.")] = None,
    where: Annotated[
        tuple[str, ...],
        Parameter(
            help="What layouts must be like: 'tp * pp == n_chips'; may be repeated.",
            negative=(),
            consume_multiple=False,
        ),
    ] = (),
    grids: Annotated[bool, Parameter(help="Search parallel.tp_grid, too.", negative=())] = False,
    set_: Overrides = (),
    workers: Annotated[int | None, Parameter(help="Runs at the same time.", converter=whole_number)] = None,
    out: Annotated[Path | None, Parameter(help="Write the winner as an experiment file.")] = None,
    json_: AsJson = False,
) -> None:
    """Find the best layout and batch of a model on a system, and say why it is the best (docs/planner.md)."""
    from cluster.backends.processes import n_cores
    from cluster.planner import make_request
    from cluster.planner import plan as search
    from cluster.planner.shown import plan_json, print_plan, shown_plan, write_experiment

    overrides = set_ if dtype is None else (*set_, f"dtype.weights={dtype}")
    request = make_request(
        system, model, objective, slo=slo, batch=batch, context=context, new_tokens=new_tokens, where=where,
        overrides=overrides, grids=grids, n_workers=n_cores() if workers is None else workers,
    )  # fmt: skip
    check_writable(None, {"--out": out})
    with shown_plan(console_of(stderr=True)) as on_progress:
        found = search(request, on_progress)
    if out is not None:
        write_experiment(found, out)
    if json_:
        print_json(plan_json(found))
    else:
        print_plan(console_of(), found)
