"""Specs as plain data, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs


def to_plain(spec: Any) -> Any:
    """Return a spec as data that JSON can hold, by attribute names.

    Every object names its class: a torus and a mesh may have the same fields.

    >>> from configs.spec.topology import LinkSpec
    >>> to_plain(LinkSpec(bandwidth_bytes_per_s=12.5e9, latency_ps=711_000))
    {'class': 'LinkSpec', 'bandwidth_bytes_per_s': 12500000000.0, 'latency_ps': 711000, 'count': 1}
    """
    return _plain(spec, attrs.fields)


def fingerprint(spec: Any) -> str:
    """Return the SHA-256 of everything in a spec that decides the results of a run: nothing that is `eq=False`.

    >>> from configs.spec.topology import LinkSpec
    >>> fingerprint(LinkSpec(1e9, 0)) == fingerprint(LinkSpec(1e9, 0)) != fingerprint(LinkSpec(1e9, 1))
    True
    """
    canonical = json.dumps(_plain(spec, _decisive), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _decisive(cls: type) -> list[attrs.Attribute[Any]]:
    return [attribute for attribute in attrs.fields(cls) if attribute.eq]


def _plain(spec: Any, fields: Callable[[type], Iterable[attrs.Attribute[Any]]]) -> Any:
    if attrs.has(type(spec)):
        values = {a.name: _plain(getattr(spec, a.name), fields) for a in fields(type(spec))}
        return {"class": type(spec).__name__, **values}
    if isinstance(spec, Mapping):
        return {str(key): _plain(spec[key], fields) for key in sorted(spec)}
    if isinstance(spec, list | tuple):
        return [_plain(item, fields) for item in spec]
    return spec
