"""How long a single collective takes on an idle machine: by the same schedule, expansion and engine as a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cluster.backends.base import Program, Setting, run_host
from cluster.host import Host
from cluster.records import Collective, Trace
from cluster.timeline.reuse import play_run
from cluster.timeline.uniform import time_uniform_ps
from collectives import NO_FILES, GroupView, Schedule, build
from configs.algorithm_names import AUTO
from configs.spec.experiment import Contention
from configs.spec.system import SystemSpec
from topology import Topology

MOST_RANKS = 1024
MOST_TRANSFERS = 2**18
"""Of a call that is predicted unasked, unless all chips do the same: about 0.2 s."""


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
    return predict_together_ps(system, topology, [call], contention, files) if time_ps is None else time_ps


def predict_quickly_ps(
    system: SystemSpec, topology: Topology, call: Collective, contention: Contention = "fluid"
) -> int | None:
    """Return what `predict_ps` does for one call, or None where that could take long."""
    schedule = build(call.op, call.algorithm, GroupView(topology, call.ranks), call.detail)
    time_ps = time_uniform_ps(system, topology, contention, call, schedule)
    if time_ps is not None:
        return time_ps
    if len(call.ranks) > MOST_RANKS or len(schedule.transfers) > MOST_TRANSFERS:
        return None
    return predict_together_ps(system, topology, [call], contention)


def predict_together_ps(
    system: SystemSpec,
    topology: Topology,
    calls: Sequence[Collective],
    contention: Contention = "fluid",
    files: Mapping[str, Schedule] = NO_FILES,
) -> int:
    """Return when the last chip has its result, if the groups of all calls enter at time 0; none share a chip."""
    members = sorted((rank, number) for number, call in enumerate(calls) for rank in call.ranks)
    traces: Sequence[Trace] = [Trace(rank, np.array([number], np.int32)) for rank, number in members]
    return int(play_run(system, topology, contention, calls, traces, files).played.end_ps.max(initial=0))


def first_call(setting: Setting, rank: int, program: Program, args: Sequence[Any]) -> Collective:
    """Return the first collective that a chip calls, by running it alone and without data; `auto` stays open."""
    assert setting.numerics == "shapes", "with data, a chip would wait for the others"
    record = run_host(setting, [rank], Host(), program, args, lambda *_: None, lambda _call: AUTO).records[0]
    assert isinstance(record, Collective)
    return record
