"""Names of what is in a node: `3` or `chip3`, `switch1`, `chips`, `switches`, or coordinates as in `x=7,z=0`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from configs.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from topology.graph import Topology

_ONE = re.compile(r"(chip|switch)(\d{1,9})")
_COORDINATE = re.compile(r"\s*(\w+)\s*=\s*(\d{1,9})\s*")


def members_of(node: Topology, name: int | str) -> NDArray[np.int64]:
    """Return the numbers of the chips and switches of a node that a name stands for; raise ConfigError for none.

    >>> from configs.spec.topology import LinkSpec, RoutingSpec
    >>> from topology.kinds.mesh import Mesh
    >>> mesh = Mesh(dims=(2, 3), link=LinkSpec(1e9, latency_ps=0)).build(RoutingSpec())
    >>> members_of(mesh, "y=2").tolist(), members_of(mesh, "chip4").tolist()
    ([2, 5], [4])
    """
    if name in {"chips", "switches"}:
        found = np.arange(node.n_chips) if name == "chips" else np.arange(node.n_chips, node.n_nodes)
    elif isinstance(name, str) and "=" in name:
        found = _at_coordinates(node, name)
    else:
        found = _one(node, name)
    if not found.size:
        raise ConfigError((f"{name!r}: {_accepted(node)}",))
    return found


def _one(node: Topology, name: int | str) -> NDArray[np.int64]:
    match = _ONE.fullmatch(f"chip{name}" if isinstance(name, int) else name)
    if match is None:
        return np.zeros(0, np.int64)
    number, is_chip = int(match[2]), match[1] == "chip"
    there = number < (node.n_chips if is_chip else node.n_switches)
    return np.array([number + (0 if is_chip else node.n_chips)][: int(there)], np.int64)


def _at_coordinates(node: Topology, name: str) -> NDArray[np.int64]:
    coords = np.stack(np.unravel_index(np.arange(node.n_chips), node.dims))
    chosen = np.ones(node.n_chips, bool)
    for part in name.split(","):
        match = _COORDINATE.fullmatch(part)
        if match is None or match[1] not in node.axes:
            return np.zeros(0, np.int64)
        chosen &= coords[node.axes.index(match[1])] == int(match[2])
    return np.flatnonzero(chosen)


def _accepted(node: Topology) -> str:
    grid = " × ".join(f"{axis} {length}" for axis, length in zip(node.axes, node.dims, strict=True))
    switches = f", switches, switch0 to switch{node.n_switches - 1}" if node.n_switches else ""
    return f"accepted: chips, chip0 to chip{node.n_chips - 1}, coordinates such as {node.axes[0]}=0 ({grid}){switches}"
