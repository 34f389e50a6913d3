"""The catalogue's systems: the graphs that are published, and collectives that work on each of them."""

from __future__ import annotations

import itertools
import math
import re

import networkx as nx
import numpy as np
import pytest

from cluster import launch
from cluster.listing import listing
from cluster.vocabulary import VOCABULARY
from configs.catalogue_files import catalogue_entry, catalogue_names
from configs.loader import load_system
from topology import bisection_bytes_per_s, build_topology

# chips, switches, edges, links (parallel ones each), least and most links of a chip, bisection in GB/s per direction
# (None: no formula, and too large to search).
SYSTEMS = {
    "a3-megagpu-8g-4-nodes": (32, 28, 192, 864, 19, 19, 400),
    "a3-ultragpu-8g-4-nodes": (32, 28, 192, 864, 19, 19, 800),
    "a4-highgpu-8g-4-nodes": (32, 20, 128, 864, 19, 19, 800),
    "alps-gh200-4-nodes": (16, 6, 48, 288, 19, 19, 200),
    "atlas-950-superpod": (1024, 1, 1024, 1024, 1, 1, 430080),
    "blackhole-galaxy": (32, 0, 68, 140, 8, 10, 800),
    "blackhole-galaxy-ring": (8, 0, 8, 16, 4, 4, 100),
    "blackhole-galaxy-torus": (32, 0, 64, 128, 8, 8, 800),
    "blackhole-loudbox": (8, 0, 10, 20, 4, 6, 200),
    "blackhole-loudbox-cube": (8, 0, 12, 24, 6, 6, 400),
    "blackhole-loudbox-x2": (16, 0, 24, 48, 4, 8, 400),
    "blackhole-loudbox-x4": (32, 0, 52, 104, 4, 8, 400),
    "blackhole-p100": (1, 0, 0, 0, 0, 0, 0),
    "blackhole-p150": (1, 0, 0, 0, 0, 0, 0),
    "blackhole-p300": (2, 0, 1, 2, 2, 2, 100),
    "blackhole-quietbox": (4, 0, 4, 16, 8, 8, 400),
    "blackhole-quietbox-2": (4, 0, 4, 8, 4, 4, 200),
    "bow-pod16": (16, 0, 22, 72, 6, 10, 128),
    "bow-pod64": (64, 0, 96, 320, 10, 10, 256),
    "cloudmatrix384": (384, 448, 8064, 10752, 14, 14, 75264),
    "cs-2": (1, 0, 0, 0, 0, 0, 0),
    "cs-2-swarmx-4": (4, 12, 48, 48, 12, 12, 300),
    "cs-3": (1, 0, 0, 0, 0, 0, 0),
    "cs-3-swarmx-4": (4, 12, 48, 48, 12, 12, 300),
    "dgx-1-v100": (8, 0, 16, 24, 6, 6, 150),
    "dgx-2": (16, 12, 102, 144, 6, 6, 1200),
    "dgx-a100": (8, 6, 48, 96, 12, 12, 1200),
    "dgx-a100-4-nodes": (32, 36, 256, 576, 13, 13, 400),
    "dgx-h100": (8, 4, 32, 144, 18, 18, 1800),
    "dgx-h100-4-nodes": (32, 28, 192, 864, 19, 19, 800),
    "dgx-h200": (8, 4, 32, 144, 18, 18, 1800),
    "dgx-superpod-h100": (256, 140, 1312, 5120, 19, 19, 6400),
    "dgx-superpod-h100-128-nodes": (1024, 560, 5632, 20480, 19, 19, 25600),
    "gaudi2-4-boxes": (32, 12, 176, 1200, 24, 24, 600),
    "gaudi2-box": (8, 0, 28, 84, 21, 21, 600),
    "gaudi3-4-boxes": (32, 12, 176, 1200, 24, 24, 1200),
    "gaudi3-box": (8, 0, 28, 84, 21, 21, 1200),
    "gb200-nvl72": (72, 18, 1296, 1296, 18, 18, 32400),
    "gb200-superpod": (576, 180, 11264, 11584, 19, 19, 14400),
    "gb300-nvl72": (72, 18, 1296, 1296, 18, 18, 32400),
    "gh200-node": (4, 0, 6, 36, 18, 18, 600),
    "groq-node": (8, 0, 28, 28, 7, 7, 240),
    "groq-rack": (72, 0, 396, 396, 11, 11, None),
    "h100-nvl256": (256, 164, 2176, 6912, 18, 18, 28800),
    "hgx-b200": (8, 2, 16, 144, 18, 18, 3600),
    "hgx-b300": (8, 2, 16, 144, 18, 18, 3600),
    "hgx-h800": (8, 4, 32, 64, 8, 8, 800),
    "inf2-48xlarge": (12, 0, 12, 12, 2, 2, 103.0792151),
    "ipu-pod16": (16, 0, 22, 72, 6, 10, 128),
    "ipu-pod64": (64, 0, 96, 320, 10, 10, 256),
    "mi250x-4-nodes": (64, 12, 168, 504, 6, 8, 400),
    "mi250x-node": (16, 0, 26, 54, 6, 7, 300),
    "mi300x-4-nodes": (32, 12, 176, 400, 8, 8, 800),
    "mi300x-node": (8, 0, 28, 28, 7, 7, 1024),
    "mi325x-4-nodes": (32, 12, 176, 400, 8, 8, 800),
    "mi325x-node": (8, 0, 28, 28, 7, 7, 1024),
    "mi355x-4-nodes": (32, 12, 176, 400, 8, 8, 800),
    "mi355x-node": (8, 0, 28, 28, 7, 7, 1224),
    "p5-48xlarge-4-nodes": (32, 28, 192, 1728, 22, 22, 800),
    "p5en-48xlarge-4-nodes": (32, 28, 192, 1152, 20, 20, 800),
    "p6-b200-48xlarge-4-nodes": (32, 20, 128, 864, 19, 19, 800),
    "sn40l-node": (16, 1, 16, 16, 1, 1, 512),
    "tpu-v2-16x16": (256, 0, 512, 512, 4, 4, 2000),
    "tpu-v2-2x2": (4, 0, 4, 4, 2, 2, 125),
    "tpu-v2-4x4": (16, 0, 32, 32, 4, 4, 500),
    "tpu-v2-8x16": (128, 0, 256, 256, 4, 4, 1000),
    "tpu-v2-8x8": (64, 0, 128, 128, 4, 4, 1000),
    "tpu-v3-16x16": (256, 0, 512, 512, 4, 4, 2656),
    "tpu-v3-16x32": (512, 0, 1024, 1024, 4, 4, 2656),
    "tpu-v3-2x2": (4, 0, 4, 4, 2, 2, 166),
    "tpu-v3-32x32": (1024, 0, 2048, 2048, 4, 4, 5312),
    "tpu-v3-4x4": (16, 0, 32, 32, 4, 4, 664),
    "tpu-v3-4x8": (32, 0, 64, 64, 4, 4, 664),
    "tpu-v3-8x16": (128, 0, 256, 256, 4, 4, 1328),
    "tpu-v3-8x8": (64, 0, 128, 128, 4, 4, 1328),
    "tpu-v4-16x16x16": (4096, 0, 12288, 12288, 6, 6, 23040),
    "tpu-v4-2x2x1": (4, 0, 4, 4, 2, 2, 90),
    "tpu-v4-2x2x2": (8, 0, 12, 12, 3, 3, 180),
    "tpu-v4-2x2x4": (16, 0, 28, 28, 3, 4, 180),
    "tpu-v4-2x4x4": (32, 0, 64, 64, 3, 5, 360),
    "tpu-v4-4x4x4": (64, 0, 192, 192, 6, 6, 1440),
    "tpu-v4-4x4x8": (128, 0, 384, 384, 6, 6, 1440),
    "tpu-v4-4x8x8": (256, 0, 768, 768, 6, 6, 2880),
    "tpu-v4-8x16x16": (2048, 0, 6144, 6144, 6, 6, 11520),
    "tpu-v4-8x8x16": (1024, 0, 3072, 3072, 6, 6, 5760),
    "tpu-v4-8x8x8": (512, 0, 1536, 1536, 6, 6, 5760),
    "tpu-v4-superpod": (64, 0, 192, 192, 6, 6, 1440),
    "tpu-v5e-16x16": (256, 0, 512, 512, 4, 4, 1600),
    "tpu-v5e-1x1": (1, 0, 0, 0, 0, 0, 0),
    "tpu-v5e-2x2": (4, 0, 4, 4, 2, 2, 100),
    "tpu-v5e-2x4": (8, 0, 10, 10, 2, 3, 100),
    "tpu-v5e-4x4": (16, 0, 24, 24, 2, 4, 200),
    "tpu-v5e-4x8": (32, 0, 52, 52, 2, 4, 200),
    "tpu-v5e-8x16": (128, 0, 240, 240, 3, 4, 800),
    "tpu-v5e-8x8": (64, 0, 112, 112, 2, 4, 400),
    "tpu-v5p-16x16x16": (4096, 0, 12288, 12288, 6, 6, 51200),
    "tpu-v5p-16x16x24": (6144, 0, 18432, 18432, 6, 6, 51200),
    "tpu-v5p-16x20x28": (8960, 0, 26880, 26880, 6, 6, 64000),
    "tpu-v5p-2x2x1": (4, 0, 4, 4, 2, 2, 200),
    "tpu-v5p-2x2x2": (8, 0, 12, 12, 3, 3, 400),
    "tpu-v5p-2x2x4": (16, 0, 28, 28, 3, 4, 400),
    "tpu-v5p-2x4x4": (32, 0, 64, 64, 3, 5, 800),
    "tpu-v5p-4x4x4": (64, 0, 192, 192, 6, 6, 3200),
    "tpu-v5p-4x4x8": (128, 0, 384, 384, 6, 6, 3200),
    "tpu-v5p-4x8x8": (256, 0, 768, 768, 6, 6, 6400),
    "tpu-v5p-8x16x16": (2048, 0, 6144, 6144, 6, 6, 25600),
    "tpu-v5p-8x8x16": (1024, 0, 3072, 3072, 6, 6, 12800),
    "tpu-v5p-8x8x8": (512, 0, 1536, 1536, 6, 6, 12800),
    "tpu-v5p-superpod": (64, 0, 192, 192, 6, 6, 3200),
    "tpu-v6e-16x16": (256, 0, 512, 512, 4, 4, 3200),
    "tpu-v6e-1x1": (1, 0, 0, 0, 0, 0, 0),
    "tpu-v6e-2x2": (4, 0, 4, 4, 2, 2, 200),
    "tpu-v6e-2x4": (8, 0, 10, 10, 2, 3, 200),
    "tpu-v6e-4x4": (16, 0, 24, 24, 2, 4, 400),
    "tpu-v6e-4x8": (32, 0, 52, 52, 2, 4, 400),
    "tpu-v6e-8x16": (128, 0, 240, 240, 3, 4, 1600),
    "tpu-v6e-8x8": (64, 0, 112, 112, 2, 4, 800),
    "tpu-v7x-16x16x16": (4096, 0, 12288, 12288, 6, 6, 51200),
    "tpu-v7x-16x24x24": (9216, 0, 27648, 27648, 6, 6, 76800),
    "tpu-v7x-2x2x1": (4, 0, 4, 4, 2, 2, 200),
    "tpu-v7x-2x2x2": (8, 0, 12, 12, 3, 3, 400),
    "tpu-v7x-2x2x4": (16, 0, 28, 28, 3, 4, 400),
    "tpu-v7x-2x4x4": (32, 0, 64, 64, 3, 5, 800),
    "tpu-v7x-4x4x4": (64, 0, 192, 192, 6, 6, 3200),
    "tpu-v7x-4x4x8": (128, 0, 384, 384, 6, 6, 3200),
    "tpu-v7x-4x8x8": (256, 0, 768, 768, 6, 6, 6400),
    "tpu-v7x-8x16x16": (2048, 0, 6144, 6144, 6, 6, 25600),
    "tpu-v7x-8x8x16": (1024, 0, 3072, 3072, 6, 6, 12800),
    "tpu-v7x-8x8x8": (512, 0, 1536, 1536, 6, 6, 12800),
    "tpu-v7x-superpod": (64, 0, 192, 192, 6, 6, 3200),
    "trn1-32xlarge": (16, 0, 32, 32, 4, 4, 384),
    "trn2-48xlarge": (16, 0, 32, 32, 4, 4, 1024),
    "trn2-ultraserver": (64, 0, 192, 192, 6, 6, 2048),
    "trn3-ultraserver": (144, 46, 936, 1440, 11, 11, None),
    "wormhole-galaxy": (32, 0, 52, 208, 8, 16, 200),
    "wormhole-galaxy-4u": (32, 0, 52, 208, 8, 16, 200),
    "wormhole-galaxy-torus": (32, 0, 64, 256, 16, 16, 400),
    "wormhole-galaxy-torus-x": (32, 0, 60, 240, 12, 16, 200),
    "wormhole-galaxy-torus-y": (32, 0, 56, 224, 12, 16, 400),
    "wormhole-loudbox": (8, 0, 10, 20, 4, 6, 50),
    "wormhole-n150": (1, 0, 0, 0, 0, 0, 0),
    "wormhole-n300": (2, 0, 1, 2, 2, 2, 25),
    "wormhole-n300-2x2": (4, 0, 4, 8, 4, 4, 50),
    "wormhole-quad-galaxy": (128, 0, 256, 512, 8, 8, 400),
    "wormhole-quietbox": (8, 0, 10, 20, 4, 6, 50),
    "wormhole-t3000": (8, 0, 10, 20, 4, 6, 50),
    "wormhole-t3000-ring": (8, 0, 8, 8, 2, 2, 25),
    "wormhole-tg": (36, 0, 56, 216, 2, 16, 250),
    "wormhole-tgg": (72, 0, 120, 448, 2, 16, 200),
}  # fmt: skip

# What vendors and papers say about whole systems: the sum over chips of what their links carry, in GB/s per direction;
# and how far from it the graph may be, where the published figure is rounded.
PUBLISHED = [
    ("dgx-1-v100", 8 * 150, 0),  # six links of 25 GB/s per GPU
    ("dgx-2", 16 * 150, 0),
    ("dgx-a100", 4800 / 2, 0),  # 600 GB/s per GPU, both directions
    ("dgx-h100", 7200 / 2, 0),  # 900 GB/s per GPU, both directions
    ("hgx-b200", 14_400 / 2, 0),
    ("gb200-nvl72", 130_000 / 2, 0.005),  # 130 TB/s
    ("gb300-nvl72", 130_000 / 2, 0.005),
    ("mi300x-node", 8 * 896 / 2, 0),  # 896 GB/s per GPU, both directions
    ("gaudi3-box", 8 * 525, 0),  # 21 of 24 ports of 200G; the rest leaves the box
    ("wormhole-galaxy", 41_600 / 8, 0),  # 41.6 Tb/s
    ("wormhole-galaxy-4u", 41_600 / 8, 0),
    ("tpu-v2-16x16", 256 * 250, 0),  # 4 links of 500 Gb/s
    ("tpu-v3-32x32", 340_000, 0.005),  # all-reduce bandwidth of a pod, 340 TB/s
    ("tpu-v4-16x16x16", 1_100_000, 0.01),  # all-reduce bandwidth of a pod, 1.1 PB/s
    ("tpu-v5e-16x16", 256 * 200, 0),  # 400 GB/s per chip, both directions
    ("tpu-v5p-16x20x28", 8960 * 600, 0),  # 1200 GB/s per chip, both directions
    ("tpu-v6e-16x16", 256 * 400, 0),  # 800 GB/s per chip, both directions
    ("trn2-48xlarge", 16 * 1024 / 2, 0),  # 1024 GB/s per chip, both directions
    ("trn2-ultraserver", 64 * 1280 / 2, 0),  # 1280 GB/s per chip, both directions
    ("dgx-superpod-h100-128-nodes", 1024 * (450 + 50), 0),  # NVLink and a port of 400 Gb/s per GPU
    ("gb200-superpod", 8 * (65_000 + 3600), 0.005),  # NVLink and 3.6 TB/s per rack
    ("gaudi3-4-boxes", 32 * 600, 0),  # 24 ports of 200G
    ("cloudmatrix384", 384 * 392, 0),  # 14 links per NPU
]

PUBLISHED_BISECTION = [
    ("dgx-h100", 3600 / 2, 0),  # 3.6 TB/s, both directions
    ("tpu-v4-16x16x16", 24_000, 0.05),
    ("tpu-v5e-16x16", 1600, 0),
    ("tpu-v6e-16x16", 3200, 0),
    ("h100-nvl256", 57_600 / 2, 0),  # 57.6 TB/s, both directions
    ("cloudmatrix384", 192 * 392, 0),  # non-blocking
    ("dgx-superpod-h100-128-nodes", 512 * 50, 0),  # full bisection
]

# What carries the first half of the chips to the other, in GB/s per direction; switches stand where they help most.
PUBLISHED_HALVES = [
    ("dgx-2", 1200),  # eight GPUs of 150
    ("h100-nvl256", 57_600 / 2),  # 57.6 TB/s, both directions
    ("dgx-superpod-h100", 128 * 50),  # full bisection: 128 ports of 400 Gb/s
    ("trn2-ultraserver", 2 * 16 * 64),  # two instances next to each other, twice, by 16 links of 64
    ("groq-rack", (4 * 4 * 4 + 2 * 8 + 4 * 4) * 15),  # four groups and half of one: links between and inside groups
    ("wormhole-galaxy", 200),
]


def built(name):
    """Return a system's topology."""
    return build_topology(load_system(name, (), VOCABULARY))


def lanes_of_chips(topology):
    """Return how many physical links every chip has."""
    lanes = np.bincount(topology.link_src, topology.link_count, minlength=topology.n_nodes)
    return lanes[: topology.n_chips].astype(int)


def test_the_table_has_every_system() -> None:
    """A system without a row has no test."""
    assert sorted(SYSTEMS) == list(catalogue_names("systems"))


@pytest.mark.parametrize("name", SYSTEMS)
def test_graph(name) -> None:
    """Chips, switches, edges, links, ports and bisection are those of the table."""
    topology = built(name)
    lanes = lanes_of_chips(topology)
    bisection = bisection_bytes_per_s(topology)
    found = (topology.n_chips, topology.n_switches, len(topology.link_src) // 2, topology.n_links)
    assert (*found, lanes.min(), lanes.max()) == SYSTEMS[name][:6]
    expected = SYSTEMS[name][6]
    assert bisection == (expected if expected is None else pytest.approx(expected * 1e9))
    assert topology.link_bandwidth_bytes_per_s[0::2].tolist() == topology.link_bandwidth_bytes_per_s[1::2].tolist()


@pytest.mark.parametrize("name", [name for name, row in SYSTEMS.items() if row[0] <= 128])
def test_every_chip_reaches_every_other(name) -> None:
    """The graph is in one piece."""
    topology = built(name)
    graph = nx.Graph(zip(topology.link_src.tolist(), topology.link_dst.tolist(), strict=True))
    graph.add_nodes_from(range(topology.n_nodes))
    assert nx.is_connected(graph)


@pytest.mark.parametrize(("name", "gb_per_s", "rounding"), PUBLISHED)
def test_published_totals(name, gb_per_s, rounding) -> None:
    """All chips together send what their maker says."""
    topology = built(name)
    from_chips = topology.link_src < topology.n_chips
    found = topology.link_bandwidth_bytes_per_s[from_chips].sum() / 1e9
    assert found == pytest.approx(gb_per_s, rel=max(rounding, 1e-12))


@pytest.mark.parametrize(("name", "gb_per_s", "rounding"), PUBLISHED_BISECTION)
def test_published_bisections(name, gb_per_s, rounding) -> None:
    """The bisection is what the maker says."""
    assert bisection_bytes_per_s(built(name)) / 1e9 == pytest.approx(gb_per_s, rel=max(rounding, 1e-12))


@pytest.mark.parametrize(("name", "gb_per_s"), PUBLISHED_HALVES)
def test_published_halves(name, gb_per_s) -> None:
    """The least cut between the first half of the chips and the rest is what the makers and the graph say."""
    topology = built(name)
    graph = nx.DiGraph()
    columns = (topology.link_src.tolist(), topology.link_dst.tolist(), topology.link_bandwidth_bytes_per_s.tolist())
    for src, dst, bandwidth in zip(*columns, strict=True):
        graph.add_edge(src, dst, capacity=round(bandwidth / 1e6))
    for chip in range(topology.n_chips):
        graph.add_edge(*(("here", chip) if chip < topology.n_chips // 2 else (chip, "there")))
    assert nx.maximum_flow_value(graph, "here", "there") / 1e3 == gb_per_s


@pytest.mark.parametrize("name", [name for name in SYSTEMS if re.fullmatch(r"tpu-v\w+-\d+(x\d+)+", name)])
def test_tpu_slices(name) -> None:
    """A slice has the shape of its name and closes the axes that its generation closes.

    v5e and v6e: an axis of 16. v4, v5p and v7x: all axes of a slice of whole cubes, of 4 x 4 x 4, none of a smaller
    one. Edges: chips per ring and axis as many as its length, one less in a line.
    """
    _, generation, shape = name.split("-")
    dims = tuple(map(int, shape.split("x")))
    if generation in {"v5e", "v6e"}:
        wraps = tuple(length == 16 for length in dims)
    elif generation in {"v2", "v3"}:
        wraps = tuple(length > 2 for length in dims)
    else:
        wraps = (all(length % 4 == 0 for length in dims),) * 3
    topology = built(name)
    assert (topology.dims, topology.wraps) == (dims, wraps)
    n_chips = math.prod(dims)
    lines = [n_chips // length * (length - (not wrap)) for length, wrap in zip(dims, wraps, strict=True)]
    assert topology.n_links == sum(lines)
    cuts = [n_chips // length * (1 + wrap) for length, wrap in zip(dims, wraps, strict=True) if length % 2 == 0]
    rate = topology.link_bandwidth_bytes_per_s[0] if n_chips > 1 else 0
    assert bisection_bytes_per_s(topology) == min(cuts, default=0) * rate


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_chip_has_more_links_than_its_data_sheet(name) -> None:
    """What a system's links take from a chip is what its file has; composed systems add NICs to that."""
    system = load_system(name, (), VOCABULARY)
    topology = build_topology(system)
    rates = np.bincount(topology.link_src, topology.link_bandwidth_bytes_per_s, minlength=topology.n_nodes)
    known = [links.sum_bytes_per_s for links in system.chip.links]
    if topology.kind != "compose" and known and None not in known:
        assert rates[: topology.n_chips].max() <= sum(known) * (1 + 1e-9)


@pytest.mark.parametrize("name", ["dgx-1-v100", "mi250x-node"])
def test_pairs_of_gpus(name) -> None:
    """No pair is listed twice; parallel links are one edge with a count."""
    links = catalogue_entry("systems", name)["topology"]["links"]["value"]
    pairs = [frozenset(link[:2]) for link in links]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize(
    ("n_nodes", "tiers", "n_switches"), [(32, 2, 8 + 4), (128, 2, 32 + 16), (256, 2, 64 + 32), (512, 3, 128 + 128 + 64)]
)
def test_superpods_of_any_size(n_nodes, tiers, n_switches) -> None:
    """Leaves, spines and cores are as many as the reference architecture has for 256, 1024, 2048 and 4096 GPUs."""
    sizes = [f"count={n_nodes}", f"network.chips={8 * n_nodes}", f"network.tiers={tiers}"]
    system = load_system("dgx-superpod-h100", [f"topology.{size}" for size in sizes], VOCABULARY)
    topology = build_topology(system)
    assert topology.n_switches == 4 * n_nodes + n_switches
    assert bisection_bytes_per_s(topology) == 4 * n_nodes * 50e9


async def gather(chip):
    """Gather what every chip made."""
    return await chip.all_gather(np.arange(6, dtype=np.float32) + 10 * chip.rank)


@pytest.mark.parametrize("name", SYSTEMS)
def test_all_gather_on_real_data(name) -> None:
    """The first chips of every system, up to eight, gather each other's data, in simulated time."""
    n_chips = min(8, SYSTEMS[name][0])
    with launch(name, n_chips=n_chips) as cluster:
        result = cluster.run(gather)
    expected = [10 * rank + i for rank, i in itertools.product(range(n_chips), range(6))]
    assert all(value.tolist() == expected for value in result.values)
    assert (result.time_s > 0) == (n_chips > 1)


def test_the_list_shows_them_all() -> None:
    """`chipmesh list systems` has chips, links, bisection and confidence of each."""
    entries = {entry["name"]: entry for entry in listing("systems")["systems"]}
    assert list(entries) == sorted(SYSTEMS)
    galaxy = entries["wormhole-galaxy"]
    assert (galaxy["n_chips"], galaxy["n_links"], galaxy["bisection_bytes_per_s"]) == (32, 208, 200e9)
    assert (galaxy["graph_confidence"], galaxy["confidence"]) == ("vendor", "measured")
    assert entries["hgx-h800"]["graph_confidence"] == "estimate"
