"""Units: what is parsed, what is refused, what is printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.units import (
    format_bandwidth,
    format_size,
    format_time_ps,
    parse_bandwidth_bytes_per_s,
    parse_energy_pj,
    parse_flops,
    parse_power_w,
    parse_size_bytes,
    parse_time_ps,
    round_ps,
)

PARSERS = (parse_size_bytes, parse_bandwidth_bytes_per_s, parse_time_ps, parse_flops, parse_power_w, parse_energy_pj)


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (parse_size_bytes, "12GiB", 12 * 2**30),
        (parse_size_bytes, "12GB", 12 * 10**9),
        (parse_size_bytes, "0B", 0),
        (parse_size_bytes, "1KiB", 1024),
        (parse_size_bytes, "1kB", 1000),
        (parse_size_bytes, "1KB", 1000),
        (parse_size_bytes, " 1.5 MiB ", 3 * 2**19),
        (parse_size_bytes, "1e3TiB", 1000 * 2**40),
        (parse_bandwidth_bytes_per_s, "12.5GB/s", 12.5e9),
        (parse_bandwidth_bytes_per_s, "100Gb/s", 12.5e9),
        (parse_bandwidth_bytes_per_s, "1TiB/s", 2.0**40),
        (parse_time_ps, "711ns", 711_000),
        (parse_time_ps, "936.25ns", 936_250),
        (parse_time_ps, "1us", 10**6),
        (parse_time_ps, "1\N{MICRO SIGN}s", 10**6),
        (parse_time_ps, "1\N{GREEK SMALL LETTER MU}s", 10**6),
        (parse_time_ps, "0s", 0),
        (parse_time_ps, "2ms", 2 * 10**9),
        (parse_flops, "74TFLOPS", 74e12),
        (parse_flops, "1PFLOPS", 1e15),
        (parse_power_w, "160W", 160.0),
        (parse_power_w, "1.2kW", 1200.0),
        (parse_energy_pj, "210fJ", 0.21),
        (parse_energy_pj, "1.3nJ", 1300.0),
    ],
)
def test_accepted(parse, text, expected) -> None:
    """A quantity with a unit is a plain number."""
    assert parse(text) == expected


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("value", [12, 12.5, "12", "", "GB", "x", None, True, [], {}, "1 2GB", "1GB/s/s", "9" * 5000])
def test_without_unit(parse, value) -> None:
    """Whatever is not a number with a unit is refused, and the units are listed."""
    with pytest.raises(ConfigError, match=r"accepted: an? .* such as .*, with one of the units"):
        parse(value)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_bandwidth_bytes_per_s, "0GB/s", "is zero"),
        (parse_bandwidth_bytes_per_s, "-1GB/s", "is negative"),
        (parse_bandwidth_bytes_per_s, "nanGB/s", "is not a finite"),
        (parse_bandwidth_bytes_per_s, "infGB/s", "is not a finite"),
        (parse_bandwidth_bytes_per_s, "25gb/s", "case matters: GB/s is bytes, Gb/s is bits"),
        (parse_bandwidth_bytes_per_s, "25GB", "has the unit 'GB'"),
        (parse_time_ps, "-1ns", "is negative"),
        (parse_time_ps, "1e60s", "is beyond all machines"),
        (parse_time_ps, "1min", "has the unit 'min'"),
        (parse_size_bytes, "1.5B", "is not a whole number of bytes"),
        (parse_size_bytes, "1e30TB", "is beyond all machines"),
        (parse_flops, "0TFLOPS", "is zero"),
        (parse_power_w, "0W", "is zero"),
    ],
)
def test_refused(parse, text, message) -> None:
    """The message says what is wrong with the quantity."""
    with pytest.raises(ConfigError, match=message):
        parse(text)


@given(st.text(max_size=80) | st.integers() | st.floats())
def test_never_another_error(value) -> None:
    """Any input gives a number or a ConfigError."""
    for parse in PARSERS:
        try:
            outcome = str(parse(value))
        except ConfigError as error:
            outcome = str(error)
        assert "accepted:" in outcome or float(outcome) >= 0


@given(st.integers(1, 10**14))
def test_times_print_to_three_digits(time_ps) -> None:
    """A printed time parses back to within half a unit of its third digit."""
    assert parse_time_ps(format_time_ps(time_ps)) == pytest.approx(time_ps, rel=0.005)


@given(st.integers(1, 10**15))
def test_sizes_and_bandwidths_print_to_three_digits(n_bytes) -> None:
    """So do sizes and bandwidths."""
    assert parse_size_bytes(format_size(n_bytes)) == pytest.approx(n_bytes, rel=0.005)
    assert parse_bandwidth_bytes_per_s(format_bandwidth(n_bytes)) == pytest.approx(n_bytes, rel=0.005)


@given(st.integers(0, 2**53))
def test_rounding_keeps_whole_picoseconds(time_ps) -> None:
    """The clock's rounding leaves the clock's own values alone."""
    assert round_ps(float(time_ps)) == time_ps


def test_carry() -> None:
    """A value just under the next unit is printed in it."""
    assert format_time_ps(999_700) == "1 us"
