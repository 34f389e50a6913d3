"""What a field of a spec class accepts: its key and unit from its name, its bounds from its metadata.

The unit in an attribute's name decides how files write it: `latency_ps` is the key `latency`, a text with a
unit of time. So a spec class needs no more than its names, and metadata where not every number will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import cache
from typing import Any, get_type_hints

import attrs
from attrs import frozen

from configs import units

Parser = Callable[[object], Any]

QUANTITIES: dict[str, tuple[units.Dimension, Parser]] = {
    "_bytes_per_s": (units.BANDWIDTH, units.parse_bandwidth_bytes_per_s),
    "_bytes": (units.SIZE, units.parse_size_bytes),
    "_ps": (units.TIME, units.parse_time_ps),
    "_flops": (units.FLOPS, units.parse_flops),
    "_usd": (units.PRICE, units.parse_price_usd),
    "_pj": (units.ENERGY, units.parse_energy_pj),
    "_w": (units.POWER, units.parse_power_w),
}


@frozen
class Bounds:
    """The numbers from `low` to `high`; `open_low` leaves `low` itself out.

    >>> str(Bounds(low=0, high=1, open_low=True)), Bounds(low=0, open_low=True).admit(0)
    ('> 0 and ≤ 1', False)
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False

    def admit(self, x: float) -> bool:
        """Tell whether a number is within the bounds."""
        return (self.low < x if self.open_low else self.low <= x) and x <= self.high

    def __str__(self) -> str:
        low = f"{'>' if self.open_low else '≥'} {self.low:g}" if self.low > -math.inf else ""
        high = f"≤ {self.high:g}" if self.high < math.inf else ""
        return " and ".join(part for part in (low, high) if part)


@frozen
class Accepts:
    """What the numbers and words of a field may be."""

    bounds: Bounds = Bounds()
    choices: tuple[str, ...] = ()
    key_choices: tuple[str, ...] = ()
    quantity: tuple[units.Dimension, Parser] | None = None


ANYTHING = Accepts()


def at_least(low: float) -> dict[str, Any]:
    """Return field metadata: numbers ≥ `low`."""
    return {"bounds": Bounds(low)}


def between(low: float, high: float) -> dict[str, Any]:
    """Return field metadata: numbers ≥ `low` and ≤ `high`."""
    return {"bounds": Bounds(low, high)}


def above(low: float, high: float = math.inf) -> dict[str, Any]:
    """Return field metadata: numbers > `low` and ≤ `high`."""
    return {"bounds": Bounds(low, high, open_low=True)}


def one_of(choices: Collection[str]) -> dict[str, Any]:
    """Return field metadata: one of these words."""
    return {"choices": tuple(choices)}


def keys_of(choices: Collection[str]) -> dict[str, Any]:
    """Return field metadata: a mapping whose keys are among these words."""
    return {"key_choices": tuple(choices)}


@frozen
class Field:
    """A field of a spec class as files see it."""

    key: str
    argument: str
    hint: Any
    accepts: Accepts
    required: bool


@cache
def fields_of(cls: type) -> tuple[Field, ...]:
    """Return the fields of a spec class that files may give.

    >>> from configs.spec.topology import LinkSpec
    >>> [f.key for f in fields_of(LinkSpec)]
    ['bandwidth', 'latency', 'count']
    """
    hints = get_type_hints(cls)
    return tuple(_field(a, hints.get(a.name, Any)) for a in attrs.fields(cls) if a.init and a.name != "provenance")


def _field(attribute: attrs.Attribute[Any], hint: Any) -> Field:
    suffix = next((s for s in QUANTITIES if attribute.name.endswith(s)), "")
    metadata = attribute.metadata
    accepts = Accepts(
        metadata.get("bounds", Bounds()),
        metadata.get("choices", ()),
        metadata.get("key_choices", ()),
        QUANTITIES.get(suffix),
    )
    required = attribute.default is attrs.NOTHING
    return Field(attribute.name.removesuffix(suffix), attribute.alias or attribute.name, hint, accepts, required)
