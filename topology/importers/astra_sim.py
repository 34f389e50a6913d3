"""ASTRA-sim's analytical network file: `topology`, `npus_count`, `bandwidth`, `latency`, an entry a dimension.

GB/s are 10^9 bytes per second and ns are those of one link (a transfer through a switch takes two), as the comments
of public files say; the simulator itself counts 2^30 bytes to the GB (astra-sim/astra-sim: the analytical backend's
unit conversion). Axes are the file's dimensions in its order; ranks are row-major, where the simulator counts the
first dimension fastest.
"""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from configs.errors import ConfigError
from configs.problems import shown, unknown
from configs.units import parse_bandwidth_bytes_per_s, parse_time_ps
from configs.yaml_source import Lines, parse_foreign_yaml
from topology.checks import MAX_CHIPS, MAX_EDGES, reject
from topology.importers.base import Edge, Found, Importer, Source

KEYS = ("topology", "npus_count", "bandwidth", "latency")
SHAPES = ("Ring", "FullyConnected", "Switch")


def read(source: Source) -> Found:
    """Return the product of the file's dimensions."""
    lists, lines = _lists(source)
    shapes, dims = lists["topology"], tuple(lists["npus_count"])
    n_chips = math.prod(dims)
    n_edges = sum(n_chips // n * _n_edges(shape, n) for shape, n in zip(shapes, dims, strict=True))
    if n_chips > MAX_CHIPS or n_edges > MAX_EDGES:
        accepted = f"at most {MAX_CHIPS:,} and {MAX_EDGES:,}"
        raise source.error(
            lines["npus_count",], f"npus_count: {n_chips:,} chips with {n_edges:,} edges; accepted: {accepted}"
        )
    edges: list[Edge] = []
    n_switches = 0
    for k, shape in enumerate(shapes):
        bandwidth, latency = source.figure(lists["bandwidth"][k]), source.figure(lists["latency"][k])
        for chips in np.moveaxis(np.arange(n_chips).reshape(dims), k, -1).reshape(-1, dims[k]).tolist():
            pairs = _pairs(shape, chips, n_chips + n_switches)
            n_switches += shape == "Switch"
            edges += [Edge(pair, 1, bandwidth, latency) for pair in pairs]
    axes = tuple(f"dim{k}" for k in range(len(dims))) if len(dims) > 4 else tuple("xyzw"[: len(dims)])
    names = tuple(f"NPU at {c}" for c in np.ndindex(dims)) + tuple(f"switch {s}" for s in range(n_switches))
    return Found(names, tuple(edges), n_switches, dims, axes)


def _n_edges(shape: str, n: int) -> int:
    if shape == "FullyConnected":
        return n * (n - 1) // 2
    return n if shape == "Switch" or n > 2 else n - 1


def _pairs(shape: str, line: list[int], switch: int) -> list[tuple[int, int]]:
    """Return the edges among the chips of one line of a dimension."""
    if shape == "FullyConnected":
        return list(combinations(line, 2))
    if shape == "Switch":
        return [(chip, switch) for chip in line]
    return list(pairwise(line)) + ([(line[-1], line[0])] if len(line) > 2 else [])


def _lists(source: Source) -> tuple[dict[str, list[Any]], Lines]:
    """Return the file's four lists, checked, and on which lines they stand; all problems at once."""
    document, lines = parse_foreign_yaml(source.text, source.file, any_keys=False)
    if not isinstance(document, dict):
        raise source.error(0, f"holds {shown(document)}; accepted: a mapping with the keys {', '.join(KEYS)}")
    problems = [
        f"{source.place(lines[key,])}: {key}: unknown key; accepted: {', '.join(KEYS)}"
        for key in document
        if key not in KEYS
    ]
    problems += [f"{source.file}: {key}: missing" for key in KEYS if key not in document]
    lists = {key: value if isinstance(value, list) else [value] for key, value in document.items() if key in KEYS}
    lengths = {key: len(values) for key, values in lists.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        problems.append(f"{source.file}: the lists must have one entry per dimension each, got {lengths}")
    found: dict[str, list[Any]] = {key: [] for key in KEYS}
    for key, values in lists.items():
        for i, value in enumerate(values):
            try:
                found[key].append(_value(key, value))
            except ConfigError as error:
                line = lines.get((key, i), lines[key,])
                problems.append(f"{source.place(line)}: {key}[{i}]: {error}")
    reject(problems)
    return found, lines


def _value(key: str, value: object) -> object:
    """Return an entry in our units."""
    if key == "topology":
        if value not in SHAPES:
            raise ConfigError((unknown(value, "a dimension of this importer", SHAPES),))
        return value
    if key == "npus_count":
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_CHIPS:
            raise ConfigError((f"{shown(value)} is not a number of NPUs; accepted: 1 to {MAX_CHIPS:,}",))
        return value
    unit, parse = ("GB/s", parse_bandwidth_bytes_per_s) if key == "bandwidth" else ("ns", parse_time_ps)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError((f"{shown(value)} is not a number of {unit}",))
    return parse(f"{value!r}{unit}")


ASTRA_SIM = Importer("an ASTRA-sim network file", lambda source: source.has(r"^\s*['\"]?npus_count['\"]?\s*:"), read)
