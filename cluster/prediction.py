"""How long a single collective takes on an idle machine: by the same schedule, expansion and engine as a whole run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.records import Collective, Trace
from cluster.timeline import time_run
from cluster.timeline.uniform import time_uniform_ps
from collectives import ALGORITHMS, GroupView
from configs.spec import Contention, SystemSpec
from topology import Topology


def predict_ps(system: SystemSpec, topology: Topology, call: Collective, contention: Contention = "fluid") -> int:
    """Return when the last chip of the group has its result, if all enter at time 0."""
    schedule = ALGORITHMS[call.op][call.algorithm](GroupView(topology, call.ranks), call.detail)
    time_ps = time_uniform_ps(system, topology, contention, call, schedule)
    if time_ps is not None:
        return time_ps
    traces: Sequence[Trace] = [Trace(rank, np.zeros(1, np.int32)) for rank in call.ranks]
    return time_run(system, topology, contention, [call], traces).total_ps
