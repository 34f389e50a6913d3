"""The catalogue's chips: figures within what machines can be, and headline figures as published."""

from __future__ import annotations

import pytest

from configs.catalogue_files import catalogue_entry, catalogue_names
from configs.loader import load_chip

CHIPS = catalogue_names("chips")
GB, TB, GIB = 1e9, 1e12, 2**30

# chip, dense TFLOPS by format, GiB and GB/s of the farthest memory, GB/s per direction of all links, W;
# as the vendors publish them. None: not published.
HEADLINES = [
    ("v100-sxm2", {"fp16": 125, "fp32": 15.7}, 16, 900, 150, 300),
    ("a100-sxm-40gb", {"bf16": 312, "tf32": 156}, 40, 1555, 300, 400),
    ("a100-sxm-80gb", {"bf16": 312, "int8": 624}, 80, 2039, 300, 400),
    ("h100-sxm", {"bf16": 989, "fp8": 1979}, 80, 3350, 450, 700),
    ("h200-sxm", {"bf16": 989, "fp8": 1979}, 141, 4800, 450, 700),
    ("b200-sxm", {"bf16": 2250, "fp8": 4500}, 180, 8000, 900, 1000),
    ("mi300x", {"bf16": 1307.4, "fp8": 2614.9}, 192, 5300, 448, 750),
    ("mi355x", {"bf16": 2500, "fp4": 10100}, 288, 8000, 535.5, 1400),
    ("tpu-v4", {"bf16": 275}, 32, 1200, 270, 192),
    ("tpu-v5e", {"bf16": 197, "int8": 393}, 16, 819, 200, None),
    ("tpu-v5p", {"bf16": 459, "int8": 918}, 95, 2765, 600, None),
    ("tpu-v6e", {"bf16": 918, "int8": 1836}, 32, 1600, 400, None),
    ("tpu-v7x", {"bf16": 2307, "fp8": 4614}, 192, 7380, 600, None),
    ("wormhole-n150", {"fp16": 74, "fp8": 262}, 12, 288, 200, 160),
    ("blackhole-p150", {"bfp8": 664}, 32, 512, 400, 300),
    ("grayskull-e150", {"fp16": 83, "fp8": 332}, 8, 118, None, 200),
    ("gaudi2", {"bf16": 432, "fp8": 865}, 96, 2460, 300, 600),
    ("gaudi3", {"bf16": 1677, "fp8": 1677}, 128, 3670, 600, 900),
    ("trainium2", {"bf16": 667, "fp8": 1299}, 96, 2900, 640, None),
    ("mi250x", {"bf16": 383}, 128, 3280, 350, 500),
]  # fmt: skip


@pytest.mark.parametrize(("name", "tflops", "gib", "gb_per_s", "links_gb_per_s", "watts"), HEADLINES)
def test_headlines(name, tflops, gib, gb_per_s, links_gb_per_s, watts) -> None:
    """What everybody quotes about a chip is in its file, dense and per direction."""
    chip = load_chip(name)
    assert {dtype: chip.peak_flops[dtype] / 1e12 for dtype in tflops} == tflops
    assert (chip.memory[-1].capacity_bytes, chip.memory[-1].bandwidth_bytes_per_s) == (gib * GIB, gb_per_s * GB)
    found = sum(links.sum_bytes_per_s for links in chip.links) if chip.links else None
    assert found == (links_gb_per_s and links_gb_per_s * GB)
    assert chip.power_w == watts


@pytest.mark.parametrize("name", CHIPS)
def test_figures_are_sane(name) -> None:
    """No figure is off by a unit: rates, sizes and powers are those of chips."""
    chip = load_chip(name)
    assert all(1e12 <= rate <= 5e16 for rate in chip.peak_flops.values())
    assert all(0.2 * chip.peak_flops[d] < rate <= chip.peak_flops[d] for d, rate in chip.measured_flops.items())
    assert all(1 <= side <= 512 for side in chip.matrix_tile)
    sizes = [tier.capacity_bytes for tier in chip.memory if tier.capacity_bytes is not None]
    assert all(2**20 <= size <= 2**40 for size in sizes)
    rates = [tier.bandwidth_bytes_per_s for tier in chip.memory if tier.bandwidth_bytes_per_s is not None]
    assert all(50 * GB <= rate <= 30_000 * TB for rate in rates)
    assert rates == sorted(rates, reverse=True), "the nearest tier is the fastest"
    totals = [links.sum_bytes_per_s for links in chip.links if links.sum_bytes_per_s is not None]
    assert all(10 * GB <= total <= 2 * TB for total in totals)
    assert chip.power_w is None or 10 <= chip.power_w <= 30_000
    assert chip.idle_power_w is None or chip.power_w is None or chip.idle_power_w > 0.05 * chip.power_w
    assert all(0.01 <= energy <= 10 for energy in chip.energy_per_flop_pj.values())
    assert all(tier.energy_per_byte_pj is None or 0.1 <= tier.energy_per_byte_pj <= 500 for tier in chip.memory)
    assert chip.price_usd is None or 100 <= chip.price_usd <= 1e7


@pytest.mark.parametrize("name", CHIPS)
def test_rates_grow_as_formats_shrink(name) -> None:
    """A narrower format is no slower than a wider one that the same unit computes."""
    rates = load_chip(name).peak_flops
    for wide, narrow in (("fp32", "bf16"), ("bf16", "fp8"), ("fp16", "int8"), ("fp8", "fp4"), ("int8", "int4")):
        if name != "rubin" and {wide, narrow} <= set(rates):  # the Rubin gives up int8
            assert rates[wide] <= rates[narrow]


@pytest.mark.parametrize("name", CHIPS)
def test_people_find_what_they_ask_for(name) -> None:
    """Every chip says whose it is, what it is, and the source and confidence of each of its figures."""
    entry, chip = catalogue_entry("chips", name), load_chip(name)
    assert entry["status"]
    assert chip.vendor
    assert chip.description
    assert {f"peak.{dtype}" for dtype in chip.peak_flops} <= set(chip.provenance)
    for i, tier in enumerate(chip.memory):
        assert tier.capacity_bytes is None or f"memory[{i}].capacity" in chip.provenance
        assert tier.bandwidth_bytes_per_s is None or f"memory[{i}].bandwidth" in chip.provenance
    assert chip.power_w is None or "power" in chip.provenance
    assert chip.idle_power_w is None or "idle_power" in chip.provenance
    assert {f"energy_per_flop.{dtype}" for dtype in chip.energy_per_flop_pj} <= set(chip.provenance)
    assert chip.price_usd is None or "price" in chip.provenance
