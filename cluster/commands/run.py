"""The command `run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cluster.commands.options import AsJson, Backend, ChipsPerActor, Ideal, Overrides, RayAddress, Trace
from cluster.commands.output import check_writable, console_of, print_json, save, show_restart, show_status, show_tokens
from configs.errors import ConfigError


def run(
    experiment: str,
    /,
    *,
    set_: Overrides = (),
    backend: Backend = "local",
    ray_address: RayAddress = None,
    chips_per_actor: ChipsPerActor = None,
    out: Annotated[Path | None, Parameter(help="Keep the run in this folder, for `report` and `topo --run`.")] = None,
    save_logits: Annotated[Path | None, Parameter(help="Write the logits, [batch, new_tokens, vocab].")] = None,
    trace: Trace = None,
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
    from cluster.experiment import idealised, run_experiment
    from cluster.terminal import print_run
    from cluster.vocabulary import VOCABULARY
    from configs.loader import load_experiment

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
