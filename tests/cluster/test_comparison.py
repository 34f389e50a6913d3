"""Whole runs of Hugging Face folders: the oracles' logits on the local backend, and the error against fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.experiment import run_experiment
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError
from configs.loader import load_experiment

ORACLES = Path(__file__).parents[1] / "data" / "oracles"
SYSTEM = {
    "name": "mesh",
    "chip": {
        "name": "chip",
        "peak": {"fp32": "1TFLOPS", "bf16": "1TFLOPS", "int8": "2TFLOPS"},
        "memory": [{"name": "dram", "capacity": "1GiB", "bandwidth": "100GB/s"}],
    },
    "topology": {"kind": "mesh", "dims": [4, 3], "link": {"bandwidth": "10GB/s", "latency": "1us"}},
}
EXACT = {"weights": "fp32", "kv": "fp32", "activations": "fp32"}


def experiment(name, *, parallel, dtype, numerics="real"):
    """Return an experiment with an oracle's prompts."""
    expected = np.load(ORACLES / name / "expected.npz")
    source = {
        "name": name,
        "system": SYSTEM,
        "model": str(ORACLES / name),
        "parallel": parallel,
        "dtype": dtype,
        "numerics": numerics,
        "workload": {"prompt_ids": expected["prompt_ids"].tolist(), "new_tokens": 8},
    }
    return load_experiment(source, (), VOCABULARY), expected


@pytest.mark.parametrize("name", sorted(path.name for path in ORACLES.iterdir()))
def test_oracles_run(name):
    """A mixture of TP, PP and DP gives the expected ids and logits."""
    spec, expected = experiment(name, parallel={"tp": 3, "pp": 2, "dp": 2}, dtype=EXACT)
    result = run_experiment(spec, keep_logits=True)
    np.testing.assert_array_equal(result.output_ids, expected["greedy_ids"])
    wanted = expected["logits"]
    np.testing.assert_allclose(result.logits, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_error_against_fp32():
    """None in fp32 but for the order of additions, that of the format otherwise; in the JSON document on demand."""
    errors = []
    for dtype in ("fp32", "bf16", "int8", "bfp4"):
        spec, _ = experiment("qwen3", parallel={"tp": 2}, dtype=EXACT | {"weights": dtype})
        errors.append(run_experiment(spec, compare_fp32=True).to_json()["error_against_fp32"])
    relative = [error["relative_rms"] for error in errors]
    assert relative[0] < 1e-5
    assert 1e-4 < relative[1] < relative[2] < relative[3] < 2
    assert errors[0]["n_equal_tokens"] == errors[0]["n_tokens"] == errors[0]["n_steps"] == 16
    assert run_experiment(spec).to_json()["error_against_fp32"] is None


def test_shapes_have_no_error():
    """There are no values to compare."""
    spec, _ = experiment("qwen3", parallel={}, dtype=EXACT, numerics="shapes")
    with pytest.raises(ConfigError, match="--compare-fp32: numerics is 'shapes'"):
        run_experiment(spec, compare_fp32=True)


def test_odd_layouts_are_remarked_on():
    """A run says that ranks have no head and that a stage has no layer."""
    spec, _ = experiment("llama3-rope-scaled", parallel={"tp": 4, "pp": 3}, dtype=EXACT, numerics="shapes")
    assert "parallel.pp: the last stage has no layer, only the head" in run_experiment(spec).notes
    spec, _ = experiment("llama3-rope-scaled", parallel={"tp": 6, "pp": 2}, dtype=EXACT, numerics="shapes")
    assert "parallel.tp: 2 of 6 ranks have no attention head" in run_experiment(spec).notes
