"""How busy links are over time: the run is played once more, in full, with what its transfers put on them noted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.timeline.build import build
from cluster.timeline.copies import find_copies
from cluster.timeline.engine import Carried, play
from cluster.timeline.reuse import repeated
from cluster.timeline.timeline import Timeline


def bins_ps(total_ps: int, n_bins: int) -> NDArray[np.int64]:
    """Return where at most `n_bins` equal bins of a run begin and end, in ps; the last may be shorter.

    >>> bins_ps(10, 4).tolist(), bins_ps(2, 4).tolist(), bins_ps(0, 4).tolist()
    ([0, 3, 6, 9, 10], [0, 1, 2], [0])
    """
    width = max(-(-total_ps // n_bins), 1)
    return np.append(np.arange(0, total_ps, width), total_ps).astype(np.int64)


def utilisation(timeline: Timeline, names: list[str], n_bins: int) -> NDArray[np.float64]:
    """Return the mean fraction of their capacity that links carry in every bin of `bins_ps`, [link, bin].

    Rates are those of the engine, moment by moment; the mean over all bins is the utilisation in `Timeline.links`.
    """
    inputs, edges = timeline.inputs, bins_ps(timeline.total_ps, n_bins)
    number = {link.name: int(i) for link, i in zip(timeline.links, timeline.link, strict=True)}
    links = np.array([number[name] for name in names], np.int64)
    capacity = inputs.topology.link_bandwidth_bytes_per_s * inputs.system.communication.link_efficiency
    widths = np.diff(edges)
    if not len(links) or not len(widths):
        return np.zeros((len(links), len(widths)))
    copies = find_copies(inputs.topology, inputs.records, inputs.traces, inputs.files)
    built = build(inputs.system, inputs.topology, inputs.records, copies.played(inputs.traces), inputs.files)
    played, row = np.unique(built.wiring.first[copies.link[links]], return_inverse=True)
    carried = Carried.by(played, len(capacity), len(widths), int(widths[0]))
    play(built.graph, capacity, share=inputs.contention == "fluid", carried=carried)
    return carried.size_bytes[row] / (capacity[links, None] * widths * 1e-12)


def n_tasks(timeline: Timeline) -> int:
    """Return how many tasks `utilisation` has to play: of large groups very many, where the run itself played few."""
    inputs = timeline.inputs
    traces = find_copies(inputs.topology, inputs.records, inputs.traces, inputs.files).played(inputs.traces)
    fold = repeated(inputs.records, traces)
    built = build(inputs.system, inputs.topology, inputs.records, traces, inputs.files, fold)
    return len(built.graph.delay_ps) + sum(len(f.calls) * len(f.template.delay_ps) for f in built.folded)
