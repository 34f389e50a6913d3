"""One-shot all-reduce: every rank sends its whole buffer to every other one, and all add up for themselves.

With n ranks, buffer size S, latency α of a route and bandwidth B of a rank, on an idle switch:

    all_reduce   α + (n-1) S/B

The least latency there is, for the most traffic. Source: NVIDIA, TensorRT-LLM, customAllReduceKernels ("oneshot").
"""

from __future__ import annotations

from collectives.algorithms.direct import all_pairs, to_all
from collectives.group import GroupView
from collectives.schedule import Schedule, Transfers


def all_reduce(group: GroupView, root: int = 0) -> Schedule:
    """Return the all-reduce in a single step."""
    del root
    n = len(group)
    return Schedule("all_reduce", "one_shot", n, 1, lambda: Transfers.single(0, *all_pairs(n), 0, reduce=True), to_all)
