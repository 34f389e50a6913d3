"""Two-shot all-reduce: a direct reduce-scatter, then a direct all-gather.

With n ranks, part size m = S/n, latency α of a route and bandwidth B of a rank, on an idle switch:

    all_reduce   2 (α + (n-1) m/B)

Source: NVIDIA, TensorRT-LLM, customAllReduceKernels ("twoshot").
"""

from __future__ import annotations

from collectives.algorithms.direct import parts_to_all, to_all
from collectives.compose import from_gather
from collectives.group import GroupView
from collectives.schedule import Schedule


def all_reduce(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-reduce in two steps."""
    del root
    n = len(group)
    return from_gather("all_reduce", "two_shot", n, n, lambda: parts_to_all(n), to_all)
