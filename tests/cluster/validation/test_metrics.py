"""Metrics and number formats are known however they are spelled."""

import pytest
from attrs import evolve

from cluster.validation.metrics import metric_named
from cluster.validation.number_formats import dtypes
from configs.spec.dtype import DtypeSpec
from tests.cluster.validation.test_decode_cases import ROW

SPELLINGS = [
    ("tpot_ms", 20, 0.02), ("Mean ITL (ms)", 20, 0.02), ("median_tpot_ms", 20, 0.02), ("tpot_p50_ms", 20, 0.02),
    ("inter_token_latency_s", 0.02, 0.02), ("itl", 20, 0.02), ("tok/s/user", 50, 0.02), ("t/s/u", 50, 0.02),
    ("tokens/sec/user", 50, 0.02),
    ("tokens_per_s_per_user", 50, 0.02), ("tokens_per_s_per_user_device_only", 50, 0.02),
    ("tokens_per_s_total", 400, 2), ("output_tokens_per_s_total", 400, 2), ("Output throughput (tokens/s)", 400, 2),
    ("e2e_latency_s", 2, 2),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value", "seconds"), SPELLINGS)
def test_spellings_of_a_metric(text, value, seconds):
    """Eight rows of a hundred tokens."""
    assert metric_named(text).seconds(value, 8, 100) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "p99_itl_ms", "ttft_ms", "mfu", "tokens_per_s_total_in_plus_out", "tokens_per_s_per_chip"]
)
def test_what_is_another_metric(text):
    assert metric_named(text) is None


def test_formats_by_column_by_name_and_as_published():
    def of(**columns):
        return dtypes(evolve(ROW, **columns), "dgx-h100", experts=False)

    eights = DtypeSpec("fp8_e4m3", "fp8_e4m3", "fp8_e4m3", head="bf16")
    assert of(weights_dtype="bfloat16") == of(weights_dtype="") == DtypeSpec()
    assert of(weights_dtype="FP8 (W8A8)") == of(weights_dtype="", model="Llama-3.1-8B-FP8") == eights
    assert of(weights_dtype="", model="DeepSeek-R1") == eights
    assert of(weights_dtype="W4A16 (AWQ)") == of(weights_dtype="Q4_K_M") == of(weights_dtype="int4")
    assert of(weights_dtype="bf16", kv_dtype="fp8").kv == "fp8_e4m3"
    assert of(weights_dtype="fp8", kv_dtype="bfloat16").kv == "bf16"
    assert dtypes(evolve(ROW, weights_dtype="fp8"), "dgx-a100", experts=False).activations == "bf16"
