"""Specs as plain data, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import attrs

_WITHOUT_EFFECT = ("provenance", "description")


def to_plain(spec: Any) -> Any:
    """Return a spec as data that JSON can hold, by attribute names.

    Every object names its class: a torus and a mesh may have the same fields.

    >>> from configs.spec import LinkSpec
    >>> to_plain(LinkSpec(bandwidth_bytes_per_s=12.5e9, latency_ps=711_000))
    {'class': 'LinkSpec', 'bandwidth_bytes_per_s': 12500000000.0, 'latency_ps': 711000, 'count': 1}
    """
    if attrs.has(type(spec)):
        values = {a.name: to_plain(getattr(spec, a.name)) for a in attrs.fields(type(spec))}
        return {"class": type(spec).__name__, **values}
    if isinstance(spec, Mapping):
        return {str(key): to_plain(spec[key]) for key in sorted(spec)}
    if isinstance(spec, list | tuple):
        return [to_plain(item) for item in spec]
    return spec


def fingerprint(spec: Any) -> str:
    """Return the SHA-256 of everything in a spec that decides a run: not its provenance, not its description.

    >>> from configs.spec import LinkSpec
    >>> fingerprint(LinkSpec(1e9, 0)) == fingerprint(LinkSpec(1e9, 0)) != fingerprint(LinkSpec(1e9, 1))
    True
    """
    canonical = json.dumps(_decisive(to_plain(spec)), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _decisive(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _decisive(value) for key, value in plain.items() if key not in _WITHOUT_EFFECT}
    return [_decisive(item) for item in plain] if isinstance(plain, list) else plain
