"""The command `chipmesh`: parse, call, print."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

from attrs import asdict
from cyclopts import App, CoercionError, CycloptsError, Parameter, Token

from cluster.command_output import (
    check_writable,
    console_of,
    print_json,
    save,
    show_restart,
    show_status,
    show_tokens,
    write,
)
from configs.errors import ChipmeshError, ConfigError
from configs.units import parse_size_bytes

app = App(
    name="chipmesh",
    help="Simulate multi-chip AI accelerators: real tokens and simulated time from one run.",
    version=lambda: version("chipmesh"),
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)

Backend = Literal["local", "ray"]
Overrides = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="Override a key of the spec, e.g. workload.batch=4; may be repeated.",
              negative=(), consume_multiple=False),
]  # fmt: skip
AsJson = Annotated[bool, Parameter(name="--json", help="Print one JSON document on stdout.", negative=())]


Ideal = Annotated[
    bool, Parameter(help="Charge no overheads: links, kernels and software reach all they could.", negative=())
]


def _integer(_type: object, tokens: Sequence[Token]) -> int:
    """Return an integer; the library's own conversion rounds 1.5 to 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise CoercionError(token=tokens[0], target_type=int) from None


ChipsPerActor = Annotated[
    int | None,
    Parameter(
        help="Chips that share one Ray actor; by default one, or more where memory is short.", converter=_integer
    ),
]
RayAddress = Annotated[
    str | None, Parameter(help="The Ray cluster, auto or HOST:PORT; by default a private Ray on this machine.")
]


@app.command
def run(
    experiment: str,
    /,
    *,
    set_: Overrides = (),
    backend: Annotated[Backend, Parameter(help="Where the chips live.")] = "local",
    ray_address: RayAddress = None,
    chips_per_actor: ChipsPerActor = None,
    out: Annotated[Path | None, Parameter(help="Keep the run in this folder, for `report` and `topo --run`.")] = None,
    save_logits: Annotated[Path | None, Parameter(help="Write the logits, [batch, new_tokens, vocab].")] = None,
    trace: Annotated[
        Path | None, Parameter(help="Write the timeline for ui.perfetto.dev; FILE.gz is packed.", name="--trace")
    ] = None,
    chakra: Annotated[
        Path | None, Parameter(help="Write Chakra execution traces into this folder, one file per chip.")
    ] = None,
    compare_fp32: Annotated[
        bool, Parameter(help="Decode again in fp32 on one chip and report the error of the logits.", negative=())
    ] = False,
    ideal: Ideal = False,
    json_: AsJson = False,
) -> None:
    """Run an experiment: a catalogue name or the path of a YAML file."""
    from cluster.experiment import idealised, run_experiment  # noqa: PLC0415  only what a command needs is imported
    from cluster.terminal import print_run  # noqa: PLC0415
    from cluster.vocabulary import VOCABULARY  # noqa: PLC0415
    from configs.loader import load_experiment  # noqa: PLC0415

    spec = load_experiment(experiment, set_, VOCABULARY)
    if ideal:
        spec = idealised(spec)
    check_writable(out, {"--save-logits": save_logits, "--trace": trace})
    if chakra is not None and chakra.exists() and not chakra.is_dir():
        raise ConfigError((f"--chakra: {chakra}: is a file; accepted: a folder, which may be new",))
    console = console_of(stderr=json_)
    result = run_experiment(
        spec, backend=backend, address=ray_address, chips_per_actor=chips_per_actor,
        keep_logits=save_logits is not None,
        compare_fp32=compare_fp32,
        on_token=show_tokens(console, spec.workload.prompt or ""), on_status=show_status(), on_restart=show_restart,
    )  # fmt: skip
    save(result, out, save_logits, trace, chakra)
    if json_:
        print_json(result.to_json())
    else:
        print_run(console, result)


@app.command
def bench(
    system: str,
    /,
    *,
    op: Annotated[str, Parameter(help="all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, …")],
    algorithm: Annotated[
        str, Parameter(help="An algorithm (ring, ring:channels=4), an MSCCL XML file, auto, or all.")
    ] = "auto",
    ranks: Annotated[str, Parameter(help="The first N chips, or these: 0,2,5; by default all.")] = "",
    axis: Annotated[
        str | None, Parameter(help="All lines of chips along this axis (or several, x,y), at once.")
    ] = None,
    sizes: Annotated[str, Parameter(help="E.g. 1KiB,1MiB or 1KiB:64MiB or 1KiB:64MiB:4 (from, to, factor).")] = "",
    dtype: Annotated[str, Parameter(help="Number format of the elements.")] = "fp32",
    reduction: Annotated[str, Parameter(help="sum, max or min.")] = "sum",
    numerics: Annotated[Literal["real", "shapes"], Parameter(help="Move real data, or only time it.")] = "real",
    set_: Overrides = (),
    backend: Annotated[Backend, Parameter(help="Where the chips live.")] = "local",
    ray_address: RayAddress = None,
    chips_per_actor: ChipsPerActor = None,
    export: Annotated[Path | None, Parameter(help="Write the algorithm's schedule as MSCCL XML.")] = None,
    svg: Annotated[Path | None, Parameter(help="Draw bus bandwidth against size.")] = None,
    ideal: Ideal = False,
    json_: AsJson = False,
) -> None:
    """Time and check a collective on a system, in the terms of nccl-tests."""
    from cluster.bench import DEFAULT_SIZES_BYTES  # noqa: PLC0415
    from cluster.bench import bench as measure  # noqa: PLC0415
    from cluster.bench import export as write_schedule  # noqa: PLC0415
    from cluster.curves import bandwidth_curves  # noqa: PLC0415
    from cluster.terminal import print_bench  # noqa: PLC0415
    from topology import ideal as without_overheads  # noqa: PLC0415

    sizes_bytes = parse_sizes(sizes) if sizes else DEFAULT_SIZES_BYTES
    n_ranks, chips = _ranks(ranks)
    check_writable(None, {"--svg": svg})
    spec = without_overheads(_system(system, set_)) if ideal else _system(system, set_)
    if export is not None:
        write_schedule(spec, op, algorithm, n_ranks, export)
    misfits: list[str] = []
    rows = list(
        measure(
            spec, op, algorithm=algorithm, n_ranks=n_ranks, ranks=chips, axis=axis, sizes_bytes=sizes_bytes,
            dtype=dtype, reduction=reduction, numerics=numerics, backend=backend, address=ray_address,
            chips_per_actor=chips_per_actor, on_misfit=misfits.append,
        )
    )  # fmt: skip
    if svg is not None:
        write(svg, bandwidth_curves(spec.name, rows), "--svg")
    if json_:
        document = {"schema": "chipmesh.bench.v1", "system": system, "rows": [asdict(row) for row in rows]}
        print_json({**document, "left_out": misfits})
    else:
        print_bench(console_of(), rows)
        for reason in misfits:
            print(f"chipmesh: left out: {reason}", file=sys.stderr)  # noqa: T201


@app.command
def topo(
    system: str,
    /,
    *,
    set_: Overrides = (),
    svg: Annotated[Path | None, Parameter(help="Draw the topology.")] = None,
    run: Annotated[
        Path | None, Parameter(help="Colour the picture's links by this run: its JSON or --out folder.")
    ] = None,
    export: Annotated[Path | None, Parameter(help="Write it for networkx (.json) or ASTRA-sim (.yml).")] = None,
    json_: AsJson = False,
) -> None:
    """Show what connects the chips of a system."""
    from cluster.listing import print_topology, topology_json  # noqa: PLC0415

    spec = _system(system, set_)
    if svg is not None or export is not None or run is not None:
        _topology_files(spec, svg, run, export)
    if json_:
        print_json(topology_json(spec))
    else:
        print_topology(console_of(), spec)


@app.command(name="import")
def import_(
    file: Path,
    /,
    *,
    format_: Annotated[
        str, Parameter(name="--format", help="auto, or the name of a format (docs/import.md).")
    ] = "auto",
    out: Annotated[Path | None, Parameter(help="Write the system file; by default it is printed.")] = None,
    chip: Annotated[str | None, Parameter(help="The chip: a catalogue name, or the path of its YAML file.")] = None,
    link_bandwidth: Annotated[str | None, Parameter(help="Of links that the file says none for.")] = None,
    link_latency: Annotated[str | None, Parameter(help="Of links that the file says none for.")] = None,
    json_: AsJson = False,
) -> None:
    """Make a system of a topology file: NCCL, RCCL, nvidia-smi, tt-umd, tt-metal, ASTRA-sim or networkx."""
    from cluster.listing import print_topology, topology_json  # noqa: PLC0415
    from cluster.topology_files import import_system, write_system  # noqa: PLC0415

    system, spec = import_system(file, format_, chip=chip, link_bandwidth=link_bandwidth, link_latency=link_latency)
    if out is not None:
        write_system(system, out)
    if out is not None or json_:
        for note in system.notes:
            print(f"chipmesh: {note}", file=sys.stderr)  # noqa: T201
    if json_:
        print_json(topology_json(spec))
    elif out is not None:
        print_topology(console_of(), spec)
    else:
        print(system.to_yaml(), end="")  # noqa: T201  the file itself


def _topology_files(spec: Any, svg: Path | None, run: Path | None, export: Path | None) -> None:
    from cluster.topology_files import draw_topology, export_topology  # noqa: PLC0415

    if run is not None and svg is None:
        raise ConfigError(("--run: colours the links of a picture; accepted: together with --svg",))
    if svg is not None:
        draw_topology(spec, svg, run)
    if export is not None:
        export_topology(spec, export)


@app.command
def sweep(
    file: Path,
    /,
    *,
    out: Annotated[Path, Parameter(help="The folder of the finished points and of results.parquet.")],
    backend: Annotated[Literal["process", "ray"], Parameter(help="Where the points run.")] = "process",
    ray_address: RayAddress = None,
    workers: Annotated[
        int | None, Parameter(help="Points that run at the same time; by default one per core.", converter=_integer)
    ] = None,
    json_: AsJson = False,
) -> None:
    """Run the points of a sweep file; the same command goes on where it stopped (docs/sweeps.md)."""
    from cluster.sweep_progress import print_sweep, shown_progress  # noqa: PLC0415
    from cluster.sweeps import sweep as run_sweep  # noqa: PLC0415

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


@app.command
def validate(
    *files: Path,
    svg: Annotated[Path | None, Parameter(help="Draw predicted against measured.")] = None,
    csv: Annotated[Path | None, Parameter(help="Write every row with its prediction, or why it has none.")] = None,
    workers: Annotated[int | None, Parameter(help="Processes; by default one per core.", converter=_integer)] = None,
    json_: AsJson = False,
) -> None:
    """Predict measured figures and print the errors: of CSV files, or of the catalogue's (docs/fidelity.md)."""
    from cluster.validation import validate as predict  # noqa: PLC0415
    from cluster.validation.shown import as_csv, picture, print_validation, shown_progress  # noqa: PLC0415

    check_writable(None, {"--svg": svg, "--csv": csv})
    with shown_progress(console_of(stderr=True)) as on_progress:
        validation = predict(files, n_workers=workers, on_progress=on_progress)
    if svg is not None:
        write(svg, picture(validation), "--svg")
    if csv is not None:
        write(csv, as_csv(validation), "--csv")
    if json_:
        print_json(validation.to_json())
    else:
        print_validation(console_of(), validation)


@app.command
def report(
    folder: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="The HTML file; by default report.html in the folder.")] = None,
    json_: AsJson = False,
) -> None:
    """Make one HTML file of what `run --out` or `sweep --out` has kept; it needs no network (docs/reports.md)."""
    from cluster.report import write_report  # noqa: PLC0415

    made = write_report(folder, out)
    if json_:
        document = {"kind": made.kind, "path": str(made.path), "size_bytes": made.size_bytes}
        print_json({"schema": "chipmesh.report.v1", **document})
    else:
        print(f"report of a {made.kind}: {made.path} ({made.size_bytes / 1e6:.1f} MB)")  # noqa: T201


@app.command
def replay(
    folder: Path,
    system: str,
    /,
    *,
    kernels: Annotated[
        Literal["recorded", "roofline"], Parameter(help="Recorded times where there are any, or the chip's roofline.")
    ] = "recorded",
    algorithms: Annotated[
        Literal["recorded", "auto"], Parameter(help="Recorded algorithms where there are any, or the system's choice.")
    ] = "recorded",
    dtype: Annotated[str, Parameter(help="Number format of kernels that do not say theirs.")] = "bf16",
    contention: Annotated[Literal["fluid", "none"], Parameter(help="Whether transfers share links.")] = "fluid",
    comm_groups: Annotated[Path | None, Parameter(help="Communicator groups; by default comm_groups.json.")] = None,
    set_: Overrides = (),
    trace: Annotated[
        Path | None, Parameter(help="Write the timeline for ui.perfetto.dev; FILE.gz is packed.", name="--trace")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Play a folder of Chakra execution traces on a system (docs/traces.md)."""
    from cluster.chakra import read_chakra  # noqa: PLC0415
    from cluster.chakra import replay as play  # noqa: PLC0415
    from cluster.chakra.shown import print_replay, replay_json  # noqa: PLC0415
    from cluster.timeline import write_trace  # noqa: PLC0415

    spec = _system(system, set_)
    check_writable(None, {"--trace": trace})
    execution = read_chakra(folder, comm_groups)
    found = play(execution, spec, kernels=kernels, algorithms=algorithms, dtype=dtype, contention=contention)
    if trace is not None:
        write_trace(found.timeline, trace, {"system": spec.name, "traces": str(folder)})
    if json_:
        print_json(replay_json(found))
    else:
        print_replay(console_of(), found)


@app.command
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
    context: Annotated[int, Parameter(help="Tokens of every prompt.", converter=_integer)] = 1024,
    new_tokens: Annotated[int, Parameter(help="Tokens that a run generates.", converter=_integer)] = 4,
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
    workers: Annotated[int | None, Parameter(help="Runs at the same time.", converter=_integer)] = None,
    out: Annotated[Path | None, Parameter(help="Write the winner as an experiment file.")] = None,
    json_: AsJson = False,
) -> None:
    """Find the best layout and batch of a model on a system, and say why it is the best (docs/planner.md)."""
    from cluster.backends.processes import n_cores  # noqa: PLC0415
    from cluster.planner import make_request  # noqa: PLC0415
    from cluster.planner import plan as search  # noqa: PLC0415
    from cluster.planner.shown import plan_json, print_plan, shown_plan, write_experiment  # noqa: PLC0415

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


@app.command(name="list")
def list_(
    kind: Literal["chips", "systems", "models", "experiments", "algorithms"] | None = None,
    /,
    *,
    json_: AsJson = False,
) -> None:
    """List what the catalogue holds."""
    from cluster.listing import listing, print_listing  # noqa: PLC0415

    if json_:
        print_json(listing(kind))
    else:
        print_listing(console_of(), listing(kind))


def parse_sizes(text: str) -> tuple[int, ...]:
    """Return sizes from a list with commas; `from:to:factor` is a range, by doubling if no factor is given.

    >>> parse_sizes("8B,1KiB:16KiB:4")
    (8, 1024, 4096, 16384)
    """
    sizes: list[int] = []
    for part in text.split(","):
        first, *more = part.strip().split(":")
        try:
            low = parse_size_bytes(first)
            high = parse_size_bytes(more[0]) if more else low
        except ConfigError as error:
            raise ConfigError((f"--sizes: {error}",)) from None
        factor = int(more[1]) if len(more) > 1 and more[1].isdecimal() else 2 * (len(more) < 2)
        if factor < 2 or len(more) > 2 or not 0 < low <= high:
            how = "from:to:factor with 0 < from ≤ to and a whole factor ≥ 2, e.g. 1KiB:64MiB:4"
            raise ConfigError((f"--sizes: {part!r}; accepted: {how}",))
        while low <= high:
            sizes.append(low)
            low *= factor
    return tuple(sizes)


def _ranks(text: str) -> tuple[int | None, tuple[int, ...] | None]:
    """Return (how many of the first chips, which chips); None for what is not given."""
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() for part in parts):
        raise ConfigError((f"--ranks: {text!r}; accepted: a number of chips, or chips with commas: 0,2,5",))
    chips = tuple(map(int, parts))
    return (chips[0] if len(chips) == 1 else None), (chips if len(chips) > 1 else None)


def _system(source: str, overrides: Sequence[str]) -> Any:
    from cluster.vocabulary import VOCABULARY  # noqa: PLC0415
    from configs.loader import load_system  # noqa: PLC0415

    return load_system(source, overrides, VOCABULARY)


def main(tokens: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when done, 1 when the run failed, 2 for bad input."""
    signal.signal(signal.SIGTERM, _interrupt)  # so that what was started is stopped
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(2, f"{error}\nchipmesh --help lists the commands and their options")
    except ConfigError as error:
        return _fail(2, str(error))
    except ChipmeshError as error:
        return _fail(1, str(error))
    except KeyboardInterrupt:
        return _fail(1, "interrupted")
    except BrokenPipeError:  # the reader has seen enough, as in `chipmesh list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(code: int, message: str) -> int:
    for line in message.encode(errors="backslashreplace").decode().splitlines():  # file names can be any bytes
        print(f"chipmesh: {line}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
