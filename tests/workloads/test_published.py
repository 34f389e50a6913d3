"""The catalogue's models against published counts: parameters, and KV cache per token in bf16."""

from __future__ import annotations

import pytest

from cluster.listing import listing

PUBLISHED = {
    # name: (parameters, bytes of KV cache per token); the counts are those of the models' files on huggingface.co
    # (safetensors metadata; a tied head counts once), the bytes 2 · layers · KV heads · head dimension · 2
    "tinyllama-1.1b": (1_100_048_384, 22_528),
    "llama-2-7b": (6_738_415_616, 524_288),
    "llama-2-13b": (13_015_864_320, 819_200),
    "llama-2-70b": (68_976_648_192, 327_680),
    "llama-3.1-8b": (8_030_261_248, 131_072),
    "llama-3.1-70b": (70_553_706_496, 327_680),
    "llama-3.1-405b": (405_853_388_800, 516_096),  # the bytes also in arXiv 2505.09343, table 1
    "llama-3.2-1b": (1_235_814_400, 32_768),
    "llama-3.2-3b": (3_212_749_824, 114_688),
    "llama-3.3-70b": (70_553_706_496, 327_680),
    "r1-distill-llama-70b": (70_553_706_496, 327_680),
    "smollm2-135m": (134_515_008, 23_040),
    "qwen2.5-7b": (7_615_616_512, 57_344),
    "qwen2.5-72b": (72_706_203_648, 327_680),  # the bytes also in arXiv 2505.09343, table 1
    "qwq-32b": (32_763_876_352, 262_144),
    "qwen3-0.6b": (596_049_920, 114_688),
    "qwen3-1.7b": (1_720_574_976, 114_688),
    "qwen3-4b": (4_022_468_096, 147_456),
    "qwen3-8b": (8_190_735_360, 147_456),
    "qwen3-14b": (14_768_307_200, 163_840),
    "qwen3-32b": (32_762_123_264, 262_144),
    "mistral-7b": (7_241_732_096, 131_072),
    "falcon-7b": (7_217_189_760 - 65_024 * 4_544, 8_192),  # the file repeats the tied head
    "falcon-40b": (41_835_970_560 - 65_024 * 8_192, 122_880),
    "gemma-2-9b": (9_241_705_984, 344_064),
    "phi-3-mini-4k": (3_821_079_552, 393_216),
    "gpt2": (124_439_808, 36_864),
    "mixtral-8x7b": (46_702_792_704, 131_072),
    "mixtral-8x22b": (140_620_634_112, 229_376),
    "qwen3-30b-a3b": (30_532_122_624, 98_304),
    "qwen3-235b-a22b": (235_093_634_560, 192_512),
}
ROUNDED = {
    # name: (parameters, bytes of KV cache per token, relative difference that rounding explains)
    "palm-540b": (540.35e9, 120_832, 2e-5),  # arXiv 2204.02311, table 1
    "deepseek-v3": (671e9, 70_272, 1e-3),  # arXiv 2412.19437; the bytes in arXiv 2505.09343, table 1
    "deepseek-r1": (671e9, 70_272, 1e-3),
    "kimi-k2": (1.03e12, 70_272, 5e-3),  # arXiv 2507.20534; 61 layers · (512 + 64) · 2 bytes
    "gpt-oss-20b": (20.91e9, 49_152, 5e-4),  # arXiv 2508.10925, table 1; without sinks and experts' biases
    "gpt-oss-120b": (116.83e9, 73_728, 5e-4),
}


@pytest.fixture(scope="module")
def listed():
    """What `chipmesh list models --json` gives, by name."""
    return {entry["name"]: entry for entry in listing("models")["models"]}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(listed, name):
    """To the last parameter and byte."""
    assert (listed[name]["parameters"], listed[name]["kv_bytes_per_token"]) == PUBLISHED[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_counts_round_to_the_published_ones(listed, name):
    """Where only a rounded count was published."""
    parameters, kv_bytes, difference = ROUNDED[name]
    assert listed[name]["parameters"] == pytest.approx(parameters, rel=difference)
    assert listed[name]["kv_bytes_per_token"] == kv_bytes
