"""The timeline engine: plays a task graph over links that active transfers share max-min fairly.

Time is an integer number of picoseconds. Between two events every transfer has a constant rate; when transfers start or
end, the rates of those that share links with them, directly or through others, are found anew by progressive filling
(D. Bertsekas and R. Gallager, Data Networks, 2nd ed., section 6.5.2): the link with the smallest fair share fixes the
rates of its transfers, again and again. A transfer of rate r takes `weight` x r of a link's capacity. Transfers whose
rate does not change keep their end time, so nothing drifts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cluster.timeline.compiling import announce
from cluster.timeline.kernel import Calls, Graph, new_state, play_all
from cluster.timeline.successors import successors
from cluster.timeline.tasks import TaskGraph
from configs.errors import ConfigError, ProgramError

announce()
CLOCK_END_PS = 2.0**62
Learn = Callable[[int, NDArray[np.int64]], Calls]
"""(call, ends of all tasks so far) -> the calls, with a pattern that fits this one."""


@frozen(eq=False)
class Played:
    """When every task started and ended, and the bytes that every link carried."""

    start_ps: NDArray[np.int64]
    end_ps: NDArray[np.int64]
    link_bytes: NDArray[np.float64]


@frozen(eq=False)
class Carried:
    """The bytes that some links carry over time, [row, bin], to be filled; `row_of` every link: its row, or -1."""

    row_of: NDArray[np.int32]
    size_bytes: NDArray[np.float64]
    bin_ps: int

    @classmethod
    def by(cls, links: NDArray[np.int64], n_links: int, n_bins: int, bin_ps: int) -> Carried:
        """Return nothing carried yet by these links."""
        row_of = np.full(n_links, -1, np.int32)
        row_of[links] = np.arange(len(links), dtype=np.int32)
        return cls(row_of, np.zeros((len(links), n_bins)), bin_ps)


NOT_ASKED = Carried(np.zeros(0, np.int32), np.zeros((0, 0)), 1)


def no_calls(n_tasks: int) -> Calls:
    """Return that no call is looked up."""
    none = np.zeros(0, np.int64)
    return Calls(n_tasks, none, none, none, none, none, none, none, none, none, none)


def _nothing_to_learn(call: int, _end_ps: NDArray[np.int64]) -> Calls:
    raise AssertionError(f"call {call} is not known")


def play(
    graph: TaskGraph,
    capacity_bytes_per_s: NDArray[np.float64],
    *,
    share: bool = True,
    calls: Calls | None = None,
    learn: Learn = _nothing_to_learn,
    carried: Carried = NOT_ASKED,
) -> Played:
    """Return when every task of the graph starts and ends.

    With `share` False every transfer has its links to itself (`contention: none`). Fills `carried`. Raises
    ProgramError if the graph has a cycle: chips that wait for each other for ever.
    """
    link_bytes = link_loads(graph, len(capacity_bytes_per_s))
    check_clock(busy_ps(graph, link_bytes, capacity_bytes_per_s))
    start, after, n_before = successors(graph.n_tasks, graph.edge_from, graph.edge_to)
    calls = calls or no_calls(graph.n_tasks)
    compiled = Graph(
        graph.delay_ps.copy() if len(calls.kind) else graph.delay_ps, graph.size_bytes, graph.route, start, after,
        graph.route_start, graph.route_links, graph.route_weights,
    )  # fmt: skip
    state = new_state(compiled, capacity_bytes_per_s, n_before, carried.row_of, carried.size_bytes, carried.bin_ps)
    while (stopped := play_all(compiled, state, calls, share)) >= 0:
        calls = learn(stopped, state.end_ps)
    n_open = graph.n_tasks - int(state.counts["ended"][0])
    if n_open:
        raise ProgramError(f"{n_open} of {graph.n_tasks} operations wait for each other for ever")
    return Played(state.start_ps, state.end_ps, link_bytes)


def busy_ps(graph: TaskGraph, link_bytes: NDArray[np.float64], capacity_bytes_per_s: NDArray[np.float64]) -> float:
    """Return a time that playing the graph cannot exceed: all delays and all links' busy times.

    At any moment a delay runs or some link is full.
    """
    return float(graph.delay_ps.sum(dtype=np.float64) + (link_bytes / capacity_bytes_per_s).sum() * 1e12)


def check_clock(longest_ps: float) -> None:
    """Raise ConfigError if a run that may last so long could pass the end of the clock."""
    if longest_ps > CLOCK_END_PS:
        longest, most = f"{longest_ps * 1e-12:.3g} s", f"{CLOCK_END_PS * 1e-12:.3g} s"
        hint = "are the bandwidths, the latencies and the peaks right?"
        raise ConfigError((f"the run could take {longest} of simulated time; accepted: at most {most}; {hint}",))


def link_loads(graph: TaskGraph, n_links: int) -> NDArray[np.float64]:
    """Return the bytes that every link carries: the sizes on every route, spread over its links."""
    n_routes = len(graph.route_start) - 1
    sent = graph.route >= 0
    on_route = np.bincount(graph.route[sent], graph.size_bytes[sent], minlength=n_routes)
    carried = np.repeat(on_route, np.diff(graph.route_start)) * graph.route_weights
    return np.bincount(graph.route_links, carried, minlength=n_links).astype(np.float64)
