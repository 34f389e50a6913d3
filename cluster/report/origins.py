"""The spec as a reader sees it, and where its figures come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from configs.fields import QUANTITIES
from configs.units import format_bandwidth, format_size, format_time_ps
from workloads.sweeps import keys_of

MOST_ITEMS = 64
"""Of a list that the spec shows."""
FORMATS: Mapping[str, Callable[[float], str]] = {
    "_bytes_per_s": format_bandwidth,
    "_bytes": format_size,
    "_ps": format_time_ps,
    "_flops": lambda value: f"{value / 1e12:g} TFLOPS",
    "_usd": lambda value: f"${value:,.6g}",
    "_pj": lambda value: f"{value:g} pJ",
    "_w": lambda value: f"{value:g} W",
}
HIDDEN = ("class", "provenance")


def walk(plain: Any, place: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every object of a plain spec with its place: `system.chip`."""
    items: list[tuple[Any, Any]] = []
    if isinstance(plain, Mapping):
        yield place, plain
        items = [(f"{place}.{key}" if place else key, value) for key, value in plain.items() if key != "provenance"]
    elif isinstance(plain, list):
        items = [(f"{place}[{i}]", value) for i, value in enumerate(plain) if isinstance(value, Mapping | list)]
    for inner, value in items:
        yield from walk(value, inner)


def sources(spec: Mapping[str, Any]) -> list[Mapping[str, str]]:
    """Return a row for every figure of known origin: its place in the spec, value, confidence and source.

    >>> origin = {"source": "a data sheet", "confidence": "vendor"}
    >>> sources({"chip": {"memory": [{"bandwidth_bytes_per_s": 3e9}], "provenance": {"memory[0].bandwidth": origin}}})
    [{'figure': 'chip.memory[0].bandwidth', 'value': '3 GB/s', 'source': 'a data sheet', 'confidence': 'vendor'}]
    """
    rows: dict[str, Mapping[str, str]] = {}
    for place, node in walk(spec):
        for path, origin in node.get("provenance", {}).items():
            figure = f"{place}.{path}" if place else path
            rows[figure] = {"figure": figure, "value": _value(node, path), **origin}
    return list(rows.values())


def _value(node: Any, path: str) -> str:
    """Return the value at the path of a file, which has no units in its keys."""
    unit = ""
    for part in keys_of(path):
        if isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        elif isinstance(node, Mapping):
            name = next((f"{part}{end}" for end in ("", *QUANTITIES) if f"{part}{end}" in node), str(part))
            unit = unit_of(name) or unit
            node = node.get(name)
        else:
            return ""
    return shown(unit, node)


def shown(key: str, value: Any) -> str:
    """Return a value of a spec as people write it, by the unit in its key.

    >>> shown("latency_ps", 711000), shown("dims", [8, 4]), shown("sequence", False)
    ('711 ns', '[8, 4]', 'no')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    unit = unit_of(key)
    if unit and isinstance(value, int | float):
        return FORMATS[unit](value)
    if isinstance(value, Mapping):
        inner = {k: v for k, v in value.items() if k not in HIDDEN}
        return ", ".join(f"{k} {shown(f'{k}{unit_of(key)}', v)}" for k, v in inner.items())
    if isinstance(value, list):
        more = f", … {len(value)} in all" if len(value) > MOST_ITEMS else ""
        return "[" + ", ".join(shown("", item) for item in value[:MOST_ITEMS]) + more + "]"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def unit_of(key: str) -> str:
    """Return the unit in a key, which is that of a mapping's values: of peak_flops."""
    return next((unit for unit in QUANTITIES if key.endswith(unit)), "")


def spec_tree(value: Mapping[str, Any], key: str = "") -> list[dict[str, Any]]:
    """Return the lines of a spec: what has parts has them in `parts`, anything else its text in `value`."""
    lines = []
    for name, item in value.items():
        if name in HIDDEN or item is None or item in ({}, [], ""):
            continue
        label = _without_unit(str(name))
        objects = item if isinstance(item, list) and any(isinstance(part, Mapping) for part in item) else None
        if isinstance(item, Mapping):
            lines.append({"key": label, "parts": spec_tree(item, str(name)), "says": item.get("name", "")})
        elif objects is not None:
            parts = {str(i): part for i, part in enumerate(objects[:MOST_ITEMS])}
            lines.append({"key": label, "parts": spec_tree(parts), "says": f"{len(objects)} items"})
        else:
            lines.append({"key": label, "value": shown(f"{name}{unit_of(key)}", item)})
    return lines


def _without_unit(name: str) -> str:
    return next((name.removesuffix(unit) for unit in QUANTITIES if name.endswith(unit)), name)
