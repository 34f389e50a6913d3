"""Whether a run's calls are like those that a library's constants were derived from: ranks, nodes, message sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from attrs import frozen

from cluster.records import Collective
from cluster.uncertainty import stored_figures
from configs.spec.communication import CommunicationSpec
from configs.units import format_size
from topology import Topology


@frozen
class Range:
    """The fewest and the most ranks, nodes and bytes (as nccl-tests count them) of some calls."""

    ranks: tuple[int, int]
    nodes: tuple[int, int]
    sizes_bytes: tuple[int, int]


def measured_range(profile: str) -> Range | None:
    """Return of which calls measured rows are predicted with a profile; None without such rows."""
    figures = stored_figures().get("collective", {}).get("profiles", {}).get(profile)
    return Range(*(tuple(figures[name]) for name in ("ranks", "nodes", "sizes_bytes"))) if figures else None


def notes_beyond(
    name: str, communication: CommunicationSpec, topology: Topology, calls: Iterable[object]
) -> tuple[str, ...]:
    """Say in which respects a system's calls lie outside of what its library's profile was measured with."""
    asked = [_range(topology, call) for call in calls if isinstance(call, Collective) and len(call.ranks) > 1]
    if not communication.name or not asked:
        return ()
    known = measured_range(communication.name)
    if known is None:
        return (f"{name}: no measured call stands behind the constants of {communication.name}",)
    outside = list(_outside(asked, known))
    if not outside:
        return ()
    return (f"{name}: {'; '.join(outside)}: what communication costs there is extrapolated",)


def _range(topology: Topology, call: Collective) -> Range:
    n, domains = len(call.ranks), topology.domain_of_chip
    n_nodes = 1 if domains is None else len(np.unique(domains[list(call.ranks)]))
    size = call.n_elements * call.dtype.itemsize
    if call.op in {"all_gather", "gather"}:
        size *= n
    elif call.op == "all_to_all_v":
        size *= max(map(sum, call.table), default=0)
    return Range((n, n), (n_nodes, n_nodes), (size, size))


def _outside(asked: list[Range], known: Range) -> Iterator[str]:
    for what, unit in (("ranks", "ranks"), ("nodes", "nodes"), ("sizes_bytes", "")):
        low, high = getattr(known, what)
        values = [getattr(one, what)[0] for one in asked]
        far = [v for v in (min((v for v in values if v), default=low), max(values)) if not low <= v <= high]
        if far:
            said, low_said, high_said = (f"{v} {unit}" if unit else format_size(v) for v in (far[-1], low, high))
            yield f"calls of {said}, measured were {low_said} to {high_said}"
