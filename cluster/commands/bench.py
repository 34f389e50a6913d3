"""The command `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from attrs import asdict
from cyclopts import Parameter

from cluster.commands.options import AsJson, Backend, ChipsPerActor, Ideal, Overrides, RayAddress
from cluster.commands.output import check_writable, console_of, print_json, say, write
from configs.errors import ConfigError
from configs.units import parse_size_bytes


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
    backend: Backend = "local",
    ray_address: RayAddress = None,
    chips_per_actor: ChipsPerActor = None,
    export: Annotated[Path | None, Parameter(help="Write the algorithm's schedule as MSCCL XML.")] = None,
    svg: Annotated[Path | None, Parameter(help="Draw bus bandwidth against size.")] = None,
    ideal: Ideal = False,
    json_: AsJson = False,
) -> None:
    """Time and check a collective on a system, in the terms of nccl-tests."""
    from cluster.bench import DEFAULT_SIZES_BYTES
    from cluster.bench import bench as measure
    from cluster.bench import export as write_schedule
    from cluster.curves import bandwidth_curves
    from cluster.terminal import print_bench
    from cluster.vocabulary import VOCABULARY
    from configs.loader import load_system
    from topology import ideal as without_overheads

    sizes_bytes = parse_sizes(sizes) if sizes else DEFAULT_SIZES_BYTES
    n_ranks, chips = _ranks(ranks)
    check_writable(None, {"--svg": svg})
    spec = load_system(system, set_, VOCABULARY)
    if ideal:
        spec = without_overheads(spec)
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
            say(f"left out: {reason}")


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
