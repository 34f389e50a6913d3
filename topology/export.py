"""Write topologies for other programs: networkx's node-link JSON, and ASTRA-sim's network file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import combinations, pairwise
from typing import Any

import networkx as nx
import numpy as np

from configs.errors import ConfigError
from topology.graph import Topology
from topology.networkx_io import to_networkx

_Figures = tuple[float, int]  # bandwidth_bytes_per_s, latency_ps


def to_node_link_json(topology: Topology) -> str:
    """Return the graph as `networkx.node_link_graph(json.load(file), edges="links")` reads it."""
    return json.dumps(nx.node_link_data(to_networkx(topology), edges="links"), indent=1) + "\n"


def to_astra_sim(topology: Topology) -> str:
    """Return ASTRA-sim's analytical network file; raise ConfigError, with the reason, where it has no words for it.

    An axis is a Ring, where it closes, or FullyConnected; a whole topology behind switches is one Switch of all planes'
    bandwidth together, over which a transfer is split. GB/s are 10^9 bytes per second.
    """
    shapes = [_switch(topology)] if topology.n_switches else _axes(topology)
    columns = {
        "topology": [shape for shape, _, _ in shapes],
        "npus_count": [str(length) for _, length, _ in shapes],
        "bandwidth": [_decimal(figures[0], -9) for *_, figures in shapes],
        "latency": [_decimal(figures[1], -3) for *_, figures in shapes],
    }
    notes = {"bandwidth": "GB/s", "latency": "ns"}
    lines = [
        f"{key}: [ {', '.join(values)} ]  # {notes.get(key, 'per dimension')}\n" for key, values in columns.items()
    ]
    return "".join(lines)


EXPORTS: Mapping[str, Callable[[Topology], str]] = {
    ".json": to_node_link_json,
    ".yml": to_astra_sim,
    ".yaml": to_astra_sim,
}


def _decimal(value: float, power: int) -> str:
    text = f"{Decimal(repr(value)).scaleb(power):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _refusal(why: str) -> ConfigError:
    return ConfigError((f"an ASTRA-sim network file cannot say this topology: {why}",))


def _switch(topology: Topology) -> tuple[str, int, _Figures]:
    """Return the one switch that chips behind planes of one switch each are like."""
    src, dst = topology.link_src[::2], topology.link_dst[::2]
    ends = set(zip(np.minimum(src, dst).tolist(), np.maximum(src, dst).tolist(), strict=True))
    if ends != {(c, topology.n_chips + s) for c in range(topology.n_chips) for s in range(topology.n_switches)}:
        raise _refusal("it has switches that not every chip is joined to, or links beside them")
    planes = np.maximum(src, dst)
    figures = {
        int(plane): set(zip(topology.link_bandwidth_bytes_per_s[::2][planes == plane].tolist(),
                            topology.link_latency_ps[::2][planes == plane].tolist(), strict=True))
        for plane in np.unique(planes)
    }  # fmt: skip
    if any(len(found) > 1 for found in figures.values()):
        raise _refusal("its chips are not all joined to a switch alike")
    each = [found.pop() for found in figures.values()]
    if len({latency for _, latency in each}) > 1:
        raise _refusal("its planes have different latencies")
    return "Switch", topology.n_chips, (sum(bandwidth for bandwidth, _ in each), each[0][1])


def _axes(topology: Topology) -> list[tuple[str, int, _Figures]]:
    """Return the shape, the length and the figures of every axis longer than 1."""
    coords = np.stack(np.unravel_index(topology.positions, topology.dims), axis=1)
    if len(coords) != np.prod(topology.dims):
        raise _refusal("some of its chips are dead")
    src, dst = topology.link_src[::2], topology.link_dst[::2]
    differs = coords[src] != coords[dst]
    if (differs.sum(axis=1) != 1).any():
        raise _refusal(f"some edges are not along one of its axes ({', '.join(topology.axes)})")
    shapes = []
    for k, length in enumerate(topology.dims):
        along = differs[:, k]
        if length > 1:
            shapes.append((_shape(topology, coords, along, k), length, _figures(topology, along, k)))
    return shapes or [("Ring", 1, (1e9, 0))]


def _shape(topology: Topology, coords: Any, along: Any, k: int) -> str:
    """Return what each line of an axis is."""
    length, axis = topology.dims[k], topology.axes[k]
    a, b = coords[topology.link_src[::2][along]], coords[topology.link_dst[::2][along]]
    lines: dict[tuple[int, ...], set[tuple[int, int]]] = {}
    for one, other in zip(a.tolist(), b.tolist(), strict=True):
        pair = (min(one[k], other[k]), max(one[k], other[k]))
        lines.setdefault((*one[:k], *one[k + 1 :]), set()).add(pair)
    forms = {frozenset(pairs) for pairs in lines.values()}
    if len(lines) * length != topology.n_chips or len(forms) != 1:
        raise _refusal(f"the lines along axis {axis} are not all alike")
    form = forms.pop()
    every = frozenset(combinations(range(length), 2))
    ring = frozenset(pairwise(range(length))) | ({(0, length - 1)} if length > 2 else set())
    if form not in (ring, every):
        raise _refusal(f"axis {axis} is neither a ring nor fully connected (a line has no word)")
    return "Ring" if form == ring else "FullyConnected"


def _figures(topology: Topology, along: Any, k: int) -> _Figures:
    found = set(
        zip(
            topology.link_bandwidth_bytes_per_s[::2][along].tolist(),
            topology.link_latency_ps[::2][along].tolist(),
            strict=True,
        )
    )
    if len(found) != 1:
        raise _refusal(f"the edges along axis {topology.axes[k]} differ in bandwidth or latency")
    return found.pop()
