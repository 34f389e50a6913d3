"""Parse and print quantities with units; the only place that knows how a unit is written.

In files a quantity is a text with a unit (``12.5GB/s``, ``711ns``); in code it is a plain number whose name
ends in its unit. GB is 10^9 bytes and GiB 2^30; GB/s is bytes per second and Gb/s bits per second.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import frozen

from configs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUANTITY = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf))\s*(?P<unit>\D*)")
_LONGEST_TEXT = 64
_LARGEST_EXPONENT = 24
_LARGEST_INT = 2.0**62
_LARGEST_TIME_PS = 1e15  # 1000 s: sums over thousands of hops fit the clock
_THREE_DIGITS = 999.5
_SMALLEST_ROUNDED_BYTES = 1024  # 1.3GiB is rounded to whole bytes; 1.5B is a mistake

_SIZE_UNITS = {
    "B": 1,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_BYTE_RATES = {f"{unit}/s": Decimal(n_bytes) for unit, n_bytes in _SIZE_UNITS.items()}
_BIT_RATES = {f"{prefix}b/s": Decimal(n_bits) / 8 for prefix, n_bits in (("M", 10**6), ("G", 10**9), ("T", 10**12))}
_TIME_UNITS = {
    "ps": 1, "ns": 10**3, "us": 10**6, "\N{MICRO SIGN}s": 10**6, "\N{GREEK SMALL LETTER MU}s": 10**6,
    "ms": 10**9, "s": 10**12,
}  # fmt: skip
_FLOPS_UNITS: dict[str, int | Decimal] = {
    f"{prefix}FLOPS": 1000**power for power, prefix in enumerate(("", "k", "M", "G", "T", "P", "E"))
}
_PRICE_UNITS: dict[str, int | Decimal] = {"USD": 1, "kUSD": 10**3, "MUSD": 10**6}
_ENERGY_UNITS: dict[str, int | Decimal] = {"fJ": Decimal("0.001"), "pJ": 1, "nJ": 10**3}
_POWER_UNITS: dict[str, int | Decimal] = {"mW": Decimal("0.001"), "W": 1, "kW": 10**3, "MW": 10**6}


@frozen
class Dimension:
    """A kind of quantity: what it is called, an example, and the units it may be written in."""

    name: str
    example: str
    units: Mapping[str, int | Decimal]
    note: str = ""
    zero_allowed: bool = False
    largest: float = 1e30

    @property
    def accepted(self) -> str:
        """Say what is accepted.

        >>> TIME.accepted
        'a time such as 711ns, with one of the units ps, ns, us, ms, s'
        """
        units = ", ".join(unit for unit in self.units if unit.isascii())
        return f"{self.name} such as {self.example}, with one of the units {units}{self.note}"


SIZE = Dimension(
    "a size",
    "12GiB",
    _SIZE_UNITS,
    " (GB is 10^9 bytes, GiB is 2^30)",
    zero_allowed=True,
    largest=_LARGEST_INT,
)
BANDWIDTH = Dimension(
    "a bandwidth",
    "12.5GB/s",
    _BYTE_RATES | _BIT_RATES,
    " (case matters: GB/s is bytes, Gb/s is bits, 8Gb/s = 1GB/s)",
)
TIME = Dimension("a time", "711ns", _TIME_UNITS, zero_allowed=True, largest=_LARGEST_TIME_PS)
FLOPS = Dimension("a compute rate", "74TFLOPS", _FLOPS_UNITS)
POWER = Dimension("a power", "160W", _POWER_UNITS)
ENERGY = Dimension("an energy", "0.8pJ", _ENERGY_UNITS)
PRICE = Dimension("a price", "999USD", _PRICE_UNITS)


def round_ps(x: float) -> int:
    """Round a time in picoseconds to the clock; a tie goes to the even neighbour.

    >>> round_ps(1.4), round_ps(1.5), round_ps(2.5)
    (1, 2, 2)
    """
    return round(x)


def parse_size_bytes(text: object) -> int:
    """Return a size in bytes.

    >>> parse_size_bytes("12GiB"), parse_size_bytes("1.5 kB")
    (12884901888, 1500)
    >>> parse_size_bytes("1.5B")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    configs.errors.ConfigError: '1.5B' is not a whole number of bytes; accepted: a size such as 12GiB, ...
    """
    size = _parse(text, SIZE)
    if size != round(size) and size < _SMALLEST_ROUNDED_BYTES:
        raise _refusal(text, "is not a whole number of bytes", SIZE)
    return round(size)


def parse_bandwidth_bytes_per_s(text: object) -> float:
    """Return a bandwidth in bytes per second.

    >>> parse_bandwidth_bytes_per_s("12.5GB/s") == parse_bandwidth_bytes_per_s("100Gb/s")
    True
    """
    return float(_parse(text, BANDWIDTH))


def parse_time_ps(text: object) -> int:
    """Return a time in picoseconds.

    >>> parse_time_ps("711ns"), parse_time_ps("1us"), parse_time_ps("936.25ns")
    (711000, 1000000, 936250)
    """
    return round_ps(float(_parse(text, TIME)))


def parse_flops(text: object) -> float:
    """Return a compute rate in floating-point operations per second.

    >>> parse_flops("74TFLOPS")
    74000000000000.0
    """
    return float(_parse(text, FLOPS))


def parse_power_w(text: object) -> float:
    """Return a power in watts.

    >>> parse_power_w("160W"), parse_power_w("1.2kW")
    (160.0, 1200.0)
    """
    return float(_parse(text, POWER))


def parse_energy_pj(text: object) -> float:
    """Return an energy in picojoules.

    >>> parse_energy_pj("0.8pJ"), parse_energy_pj("210fJ")
    (0.8, 0.21)
    """
    return float(_parse(text, ENERGY))


def parse_price_usd(text: object) -> float:
    """Return a price in US dollars.

    >>> parse_price_usd("999USD"), parse_price_usd("2.5MUSD")
    (999.0, 2500000.0)
    """
    return float(_parse(text, PRICE))


def format_time_ps(time_ps: float) -> str:
    """Print a time for people.

    >>> format_time_ps(711_000), format_time_ps(12_340_000_000), format_time_ps(0)
    ('711 ns', '12.3 ms', '0 ps')
    """
    return _format(time_ps, ("ps", "ns", "us", "ms", "s"), 1000)


def format_size(size_bytes: float) -> str:
    """Print a size for people, in powers of 1024.

    >>> format_size(12 * 2**30), format_size(1000)
    ('12 GiB', '1000 B')
    """
    return _format(size_bytes, ("B", "KiB", "MiB", "GiB", "TiB"), 1024)


def format_bandwidth(bandwidth_bytes_per_s: float) -> str:
    """Print a bandwidth for people.

    >>> format_bandwidth(12.5e9)
    '12.5 GB/s'
    """
    return _format(bandwidth_bytes_per_s, ("B/s", "kB/s", "MB/s", "GB/s", "TB/s"), 1000)


def exact_bandwidth(bandwidth_bytes_per_s: float) -> str:
    """Write a bandwidth for files, so that reading it gives the same number.

    >>> exact_bandwidth(12.5e9), exact_bandwidth(15753846153.846153)
    ('12.5GB/s', '15.753846153846153GB/s')
    """
    return f"{_plain(Decimal(repr(float(bandwidth_bytes_per_s))).scaleb(-9))}GB/s"


def exact_time(time_ps: int) -> str:
    """Write a time for files, so that reading it gives the same number.

    >>> exact_time(711_000), exact_time(2_000_000), exact_time(936_250), exact_time(0)
    ('711ns', '2us', '936.25ns', '0ns')
    """
    unit, power = ("us", 6) if time_ps and time_ps % 10**6 == 0 else ("ns", 3)
    return f"{_plain(Decimal(time_ps).scaleb(-power))}{unit}"


def _plain(number: Decimal) -> str:
    """Return a decimal number without an exponent and without zeros at its end."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _parse(text: object, dimension: Dimension) -> Decimal:
    match = _QUANTITY.fullmatch(text.strip()) if isinstance(text, str) and len(text) <= _LONGEST_TEXT else None
    if match is None and (isinstance(text, bool) or not isinstance(text, int | float)):
        raise _refusal(text, f"is not {dimension.name}", dimension)
    if match is None or not match["unit"]:
        raise _refusal(text, "has no unit", dimension)
    if match["unit"] not in dimension.units:
        raise _refusal(text, f"has the unit {match['unit']!r}", dimension)
    number = Decimal(match["number"])
    if not number.is_finite():
        raise _refusal(text, "is not a finite quantity", dimension)
    if number < 0:
        raise _refusal(text, "is negative", dimension)
    if number == 0 and not dimension.zero_allowed:
        raise _refusal(text, "is zero", dimension)
    quantity = number * dimension.units[match["unit"]]
    if abs(number.adjusted()) > _LARGEST_EXPONENT or quantity > dimension.largest:
        raise _refusal(text, "is beyond all machines", dimension)
    return quantity


def _refusal(text: object, why: str, dimension: Dimension) -> ConfigError:
    shown = repr(text)
    if len(shown) > _LONGEST_TEXT:
        shown = shown[:_LONGEST_TEXT] + "…"
    return ConfigError((f"{shown} {why}; accepted: {dimension.accepted}",))


def _format(value: float, units: tuple[str, ...], base: int) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {units[0]}"
    scaled, index = float(value), 0
    while abs(scaled) >= (_THREE_DIGITS if base == 1000 else base) and index < len(units) - 1:
        scaled, index = scaled / base, index + 1
    shown = f"{scaled:.3g}" if abs(scaled) < _THREE_DIGITS else f"{scaled:.0f}"
    return f"{shown} {units[index]}"
