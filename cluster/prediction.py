"""How long a single collective takes on an idle machine: by the same schedule, expansion and engine as a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cluster.backends.base import Program, Setting, run_host
from cluster.host import Host
from cluster.records import Collective, Trace
from cluster.timeline import time_run
from cluster.timeline.uniform import time_uniform_ps
from collectives import NO_FILES, GroupView, Schedule, build
from configs.spec import Contention, SystemSpec
from topology import Topology


def predict_ps(
    system: SystemSpec,
    topology: Topology,
    call: Collective,
    contention: Contention = "fluid",
    files: Mapping[str, Schedule] = NO_FILES,
) -> int:
    """Return when the last chip of the group has its result, if all enter at time 0."""
    schedule = build(call.op, call.algorithm, GroupView(topology, call.ranks), call.detail, files)
    time_ps = time_uniform_ps(system, topology, contention, call, schedule)
    if time_ps is not None:
        return time_ps
    traces: Sequence[Trace] = [Trace(rank, np.zeros(1, np.int32)) for rank in call.ranks]
    return time_run(system, topology, contention, [call], traces, files).total_ps


def first_call(setting: Setting, program: Program, args: Sequence[Any]) -> Collective:
    """Return the first collective that a program calls, by running it without data on chip 0 alone."""
    assert setting.numerics == "shapes", "with data, a chip would wait for the others"
    record = run_host(setting, [0], Host(), program, args, lambda *_: None).records[0]
    assert isinstance(record, Collective)
    return record
