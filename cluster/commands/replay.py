"""The command `replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cluster.commands.options import AsJson, Overrides, Trace
from cluster.commands.output import check_writable, console_of, print_json


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
    trace: Trace = None,
    json_: AsJson = False,
) -> None:
    """Play a folder of Chakra execution traces on a system (docs/traces.md)."""
    from cluster.chakra import read_chakra
    from cluster.chakra import replay as play
    from cluster.chakra.shown import print_replay, replay_json
    from cluster.timeline import write_trace
    from cluster.vocabulary import VOCABULARY
    from configs.loader import load_system

    spec = load_system(system, set_, VOCABULARY)
    check_writable(None, {"--trace": trace})
    execution = read_chakra(folder, comm_groups)
    found = play(execution, spec, kernels=kernels, algorithms=algorithms, dtype=dtype, contention=contention)
    if trace is not None:
        write_trace(found.timeline, trace, {"system": spec.name, "traces": str(folder)})
    if json_:
        print_json(replay_json(found))
    else:
        print_replay(console_of(), found)
