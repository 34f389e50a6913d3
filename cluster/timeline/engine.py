"""The timeline engine: plays a task graph over links that active transfers share max-min fairly.

Time is an integer number of picoseconds. Between two events every transfer has a constant rate; when transfers start or
end, the rates of those that share links with them, directly or through others, are found anew by progressive filling
(D. Bertsekas and R. Gallager, Data Networks, 2nd ed., section 6.5.2): the link with the smallest fair share fixes the
rates of its transfers, again and again. A transfer of rate r takes `weight` x r of a link's capacity. Transfers whose
rate does not change keep their end time, so nothing drifts.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cluster.timeline.kernel import Graph, new_state, play_all, successors
from cluster.timeline.tasks import TaskGraph
from configs.errors import ConfigError, ProgramError

CLOCK_END_PS = 2.0**62


@frozen(eq=False)
class Played:
    """When every task started and ended, and the bytes that every link carried."""

    start_ps: NDArray[np.int64]
    end_ps: NDArray[np.int64]
    link_bytes: NDArray[np.float64]


def play(graph: TaskGraph, capacity_bytes_per_s: NDArray[np.float64], *, share: bool = True) -> Played:
    """Return when every task of the graph starts and ends.

    With `share` False every transfer has its links to itself (`contention: none`). Raises ProgramError if the graph
    has a cycle: chips that wait for each other for ever.
    """
    link_bytes = _link_bytes(graph, len(capacity_bytes_per_s))
    _check_clock(graph, link_bytes, capacity_bytes_per_s)
    start, after, n_before = successors(graph.n_tasks, graph.edge_from, graph.edge_to)
    compiled = Graph(
        graph.delay_ps, graph.size_bytes, graph.route, start, after, graph.route_start, graph.route_links,
        graph.route_weights, capacity_bytes_per_s,
    )  # fmt: skip
    state = new_state(compiled, n_before)
    n_open = graph.n_tasks - play_all(compiled, state, share)
    if n_open:
        raise ProgramError(f"{n_open} of {graph.n_tasks} operations wait for each other for ever")
    return Played(state.start_ps, state.end_ps, link_bytes)


def _check_clock(graph: TaskGraph, link_bytes: NDArray[np.float64], capacity_bytes_per_s: NDArray[np.float64]) -> None:
    """Raise ConfigError if the run could pass the end of the clock.

    At any moment a delay runs or some link is full, so the run is no longer than all delays and all links' busy times.
    """
    longest_ps = float(graph.delay_ps.sum(dtype=np.float64) + (link_bytes / capacity_bytes_per_s).sum() * 1e12)
    if longest_ps > CLOCK_END_PS:
        longest, most = f"{longest_ps * 1e-12:.3g} s", f"{CLOCK_END_PS * 1e-12:.3g} s"
        hint = "are the bandwidths, the latencies and the peaks right?"
        raise ConfigError((f"the run could take {longest} of simulated time; accepted: at most {most}; {hint}",))


def _link_bytes(graph: TaskGraph, n_links: int) -> NDArray[np.float64]:
    """Return the bytes that every link carries: the sizes on every route, spread over its links."""
    n_routes = len(graph.route_start) - 1
    sent = graph.route >= 0
    on_route = np.bincount(graph.route[sent], graph.size_bytes[sent], minlength=n_routes)
    carried = np.repeat(on_route, np.diff(graph.route_start)) * graph.route_weights
    return np.bincount(graph.route_links, carried, minlength=n_links).astype(np.float64)
