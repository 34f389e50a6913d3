"""The profile of serving software follows from what any row may carry, never from who published it."""

from __future__ import annotations

import pytest
from attrs import evolve

from cluster.validation.serving_software import ENGINES, software_of
from configs.catalogue_files import catalogue_names
from tests.cluster.validation.test_decode_cases import ROW

H100, MI300X = {"chip": "H100", "system": "node"}, {"chip": "MI300X", "system": "node"}
N150 = {"chip": "Wormhole", "system": "n150"}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({**H100, "software": "vllm 0.12.0"}, "vllm"),
        ({**H100, "software": "vLLM 0.5.4"}, "vllm-2024"),
        ({**H100, "software": "vLLM", "date": "2024-03-01"}, "vllm-2024"),
        ({**H100, "software": "vLLM", "notes": "measured in October 2025", "model": "Llama-2-7b-hf"}, "vllm"),
        ({**H100, "software": "vLLM", "model": "Meta-Llama-3-8B"}, "vllm-2024"),
        ({**H100, "software": "vLLM", "model": "Llama-3.1-70B"}, "vllm"),
        ({**H100, "software": "vLLM", "model": "a model of tomorrow"}, "vllm"),
        ({**MI300X, "software": "vLLM", "model": "Llama-2-70b-hf"}, "vllm-2024-rocm"),
        ({**MI300X, "software": "vLLM 0.10.0 (ROCm)", "model": "Llama-2-70b-hf"}, "vllm"),
        ({"software": "trtllm 0.8.1.post2", "chip": "GB200", "system": "rack"}, "trtllm"),
        ({**H100, "software": "TensorRT-LLM", "model": "Llama-2-7b-hf"}, "trtllm-2024"),
        ({**N150, "software": "tt-metal demo v0.51"}, "tt-metal-2024"),
        ({**N150, "software": "tt-metal demo", "source": "README.md (~May 2024)"}, "tt-metal-2024"),
        ({**N150, "software": "vLLM server"}, "tt-metal"),
        ({**N150, "software": "vLLM 0.10.1"}, "tt-metal"),
        ({**N150, "software": "vLLM 0.6.2", "date": "2024-11-03"}, "tt-metal-2024"),
        ({"chip": "Tenstorrent", "system": "n300", "software": "tt-metal v0.60"}, "tt-metal"),
        ({**H100, "software": "TensorRT LLM 1.2"}, "trtllm"),
        ({**H100, "software": "NVIDIA NIM 1.8.0"}, "trtllm"),
        ({**N150, "software": "", "metric": "tokens_per_s_per_user_device_only"}, "ideal"),
        ({"software": "", "chip": "an abacus", "system": "desk"}, "vllm"),
        ({"software": "never heard of", "chip": "Gaudi2", "system": "box"}, "deepspeed"),
    ],
)
def test_engine_and_age(columns, expected):
    """A version, else a date, else what the row runs; an engine that is not known is the usual one."""
    assert software_of(evolve(ROW, **columns)) == expected


def test_the_source_is_not_asked():
    """Who published a row changes nothing."""
    row = evolve(ROW, **H100, software="vLLM", model="Meta-Llama-3-8B")
    assert {software_of(evolve(row, source=text)) for text in ("", "LLM-Inference-Bench", "tt-metal")} == {"vllm-2024"}


def test_all_profiles_are_there():
    """Every profile that a rule gives is in the catalogue, and the last rule takes everything."""
    assert {age.profile for engine in ENGINES for age in engine.ages} <= set(catalogue_names("software"))
    assert (ENGINES[-1].name.pattern, ENGINES[-1].chips.pattern) == ("", "")
