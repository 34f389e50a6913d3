"""Pictures of topologies: well-formed, complete, and of a size that a reader can open."""

import re
from itertools import combinations
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from configs.spec.topology import LinkSpec, RoutingSpec
from tests.topology.test_kinds import ROWS, Row
from topology import Graph, Mesh, Switch, Torus
from topology.layout import lay_out
from topology.svg import MOST_EDGES, draw

LINK = LinkSpec(10e9, 1_000, 2)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Row:
    """Give each row of the kinds in turn."""
    return request.param


def drawn(spec: object, use: dict[str, float] | None = None) -> ET.Element:
    """Return the picture as a tree of elements."""
    return ET.fromstring(draw(spec.build(RoutingSpec()), "<a & b>", use))


def test_every_node_has_a_place_of_its_own(row: Row) -> None:
    """No two chips or switches stand on each other, and all places are numbers."""
    topology = row.spec.build(RoutingSpec())
    places = lay_out(topology).places
    assert places.shape == (topology.n_nodes, 2)
    assert np.isfinite(places).all()
    assert len(np.unique(np.round(places, 6), axis=0)) == topology.n_nodes


def test_every_node_and_edge_is_drawn_inside_the_picture(row: Row) -> None:
    """There is a box with a name for each node, a line for each edge, and the middle of every box is in view."""
    topology, root = row.spec.build(RoutingSpec()), drawn(row.spec)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    boxes = [box for box in root.iter(f"{SVG}rect") if box.find(f"{SVG}title") is not None]
    assert {box.find(f"{SVG}title").text for box in boxes} == {topology.node_name(n) for n in range(topology.n_nodes)}
    for box in boxes:
        x, y = float(box.attrib["x"]), float(box.attrib["y"])
        assert 0 <= x <= width - float(box.attrib["width"])
        assert 0 <= y <= height - float(box.attrib["height"])
    lines = [line for line in root.iter(f"{SVG}path") if line.find(f"{SVG}title") is not None]
    assert len(lines) == len(topology.link_src) // 2


def test_wider_links_are_drawn_wider() -> None:
    """The width grows with the root of the bandwidth."""
    root = drawn(Graph(3, ((0, 1, 4), (1, 2, 1)), link=LinkSpec(1e9, 0)))
    widths = [
        float(line.attrib["stroke-width"]) for line in root.iter(f"{SVG}path") if line.find(f"{SVG}title") is not None
    ]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.11)


def test_colours_are_those_of_the_run() -> None:
    """The busier direction counts; the busiest edge is red, an edge without a figure is grey; the legend says so."""
    use = {"chip0→chip1": 0.1, "chip1→chip0": 0.4, "chip2→chip1": 0.0}
    root = drawn(Mesh((4,), LINK), use)
    lines = {
        line.find(f"{SVG}title").text: line for line in root.iter(f"{SVG}path") if line.find(f"{SVG}title") is not None
    }
    looks = {title.split(":")[0]: (line.attrib["class"], line.attrib.get("stroke")) for title, line in lines.items()}
    assert looks == {
        "chip0 to chip1": ("hot", "#dc2626"), "chip1 to chip2": ("hot", "#3b82f6"), "chip2 to chip3": ("unused", None),
    }  # fmt: skip
    words = " ".join(text.text for text in root.iter(f"{SVG}text"))
    assert "utilisation, 0 to 40 %; grey: 1 edges that the run does not list" in words


def test_names_are_escaped_and_shown() -> None:
    """A name with signs of XML is a text; the kind and the sizes stand below it."""
    words = [text.text for text in drawn(Torus((4, 4), LINK)).iter(f"{SVG}text")]
    assert words[:2] == ["<a & b>", "torus x 4 × y 4: 16 chips, 64 links"]


def test_both_themes_are_in_the_picture() -> None:
    """Every class has a colour for light and one for dark."""
    style = drawn(Mesh((2,), LINK)).find(f"{SVG}style").text
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    assert set(re.findall(r"\.(\w+) \{", dark)) == set(re.findall(r"\.(\w+) \{", light)) - {"hot"}


@pytest.mark.parametrize(
    ("spec", "most_bytes", "words"),
    [
        (Torus((32, 32), LINK), 200_000, "short ends: edges round an axis"),
        (Torus((16, 24, 24), LINK), 1_500_000, "short ends"),
        (Switch(4096, LINK, planes=(1, 1)), 1_000_000, "8192 edges of 2 links"),
        (
            Graph(351, tuple(combinations(range(351), 2)), link=LINK),
            100_000,
            "left out: all 61,425 edges, more than the",
        ),
        (Mesh((300, 300), LINK), 3_000_000, "left out: 30,000 of 90,000 chips and switches"),
    ],
    ids=["1,024 chips", "9,216 chips", "4,096 behind switches", "too many edges", "too many chips"],
)
def test_large_pictures_stay_small(spec: object, most_bytes: int, words: str) -> None:
    """Megabytes are bounded, and what is left out is said."""
    text = draw(spec.build(RoutingSpec()), "large")
    assert len(text) < most_bytes
    assert words in text
    assert MOST_EDGES < 61_425
