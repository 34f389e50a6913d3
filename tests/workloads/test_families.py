"""Every family on its small model: logits and greedy ids equal an independent implementation's at any layout.

tests/data/oracles holds random models in Hugging Face folders with the logits that Hugging Face transformers gives.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.spec import DtypeSpec
from tests.workloads.double import logits_of, run_job, tokens_of
from workloads.decode import DecodeJob, check_job
from workloads.huggingface import huggingface_model
from workloads.layout import Layout

ORACLES = Path(__file__).parents[1] / "data" / "oracles"
NAMES = sorted(path.name for path in ORACLES.iterdir())
FP32 = DtypeSpec("fp32", "fp32", "fp32")

LAYOUTS = [Layout(tp=tp) for tp in (1, 2, 3, 4, 8)] + [Layout(pp=pp) for pp in (2, 3)]
LAYOUTS += [Layout(dp=2), Layout(tp=2, pp=2, dp=2), Layout(tp=3, pp=3), Layout(tp=8, pp=2, dp=2), Layout(tp=5, dp=2)]


def check(name, layout, *, rtol=1e-4):
    """Assert the logits, relative to the largest, and the ids of a model at a layout."""
    model, expected = huggingface_model(ORACLES / name), np.load(ORACLES / name / "expected.npz")
    prompts = tuple(map(tuple, expected["prompt_ids"].tolist()))
    job = DecodeJob(model, layout, FP32, tuple(map(len, prompts)), expected["logits"].shape[1], prompts, True)
    check_job(job)
    chips = run_job(job)
    np.testing.assert_array_equal(tokens_of(job, chips), expected["greedy_ids"])
    wanted = expected["logits"]
    np.testing.assert_allclose(logits_of(job, chips), wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_oracle(name, layout):
    """Uneven heads, ranks without a head, replicated KV heads, stages without a layer."""
    check(name, layout)
