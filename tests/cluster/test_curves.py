"""Bandwidth curves: every row has its place in a well-formed picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from attrs import evolve

from cluster.bench import bench
from cluster.commands.bench import parse_sizes
from cluster.curves import Axes, bandwidth_curves
from configs.errors import ConfigError
from tests.cluster.machines import ring

SVG = "{http://www.w3.org/2000/svg}"


def test_a_line_for_every_algorithm():
    """Each algorithm is one line of as many points as sizes, with its name; the picture is well-formed."""
    rows = list(
        bench(ring(4), "all_reduce", algorithm="all", sizes_bytes=parse_sizes("1KiB:1MiB:4"), numerics="shapes")
    )
    names = list(dict.fromkeys(row.algorithm for row in rows))
    picture = ET.fromstring(bandwidth_curves("a & b", rows))
    lines = picture.findall(f"{SVG}polyline")
    assert [len(line.get("points").split()) for line in lines] == [6] * len(names)
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert set(names) < set(texts)
    assert any("a & b" in text for text in texts)


def test_more_is_higher_and_larger_is_further():
    """Both axes are logarithmic: equal ratios are equal distances."""
    [row] = bench(ring(4), "all_reduce", sizes_bytes=[1024], numerics="shapes")
    axes = Axes.around([evolve(row, size_bytes=s, busbw_bytes_per_s=b) for s, b in ((1024, 2e6), (2**20, 3e9))])
    assert axes.y(1e7) - axes.y(1e8) == pytest.approx(axes.y(1e8) - axes.y(1e9))
    assert axes.x(2**12) - axes.x(2**11) == pytest.approx(axes.x(2**20) - axes.x(2**19))


def test_nothing_to_draw():
    """One size of one algorithm, or a barrier, is a picture too."""
    for op in ("all_reduce", "barrier"):
        rows = list(bench(ring(4), op, sizes_bytes=[1024], numerics="shapes"))
        assert bandwidth_curves("toy", rows).endswith("</svg>\n")


@pytest.mark.parametrize("text", ["", "1KiB:", "1MiB:1KiB", "1KiB:1MiB:1", "1KiB:1MiB:2.5", "1KiB:2KiB:2:2", "0B:1KiB"])
def test_bad_sizes(text):
    """A range goes up, by a whole factor."""
    with pytest.raises(ConfigError, match="--sizes"):
        parse_sizes(text)
