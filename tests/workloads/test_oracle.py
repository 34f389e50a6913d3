"""SmolLM2-135M on simulated chips: greedy ids equal an independent implementation's at any layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cluster import launch
from configs.spec.dtype import DtypeSpec
from workloads.decode import DecodeJob, check_job, decode
from workloads.layout import Layout

pytestmark = pytest.mark.model

ORACLE = json.loads((Path(__file__).parents[1] / "data" / "smollm2-135m.json").read_text())
SYSTEM = {
    "name": "a mesh of 80 chips",
    "chip": {
        "name": "chip",
        "peak": {"fp32": "10TFLOPS", "bf16": "100TFLOPS"},
        "memory": [{"name": "HBM", "capacity": "12GiB", "bandwidth": "1TB/s"}],
    },
    "topology": {"kind": "mesh", "dims": [8, 10], "link": {"bandwidth": "50GB/s", "latency": "1us"}},
}


def decoded(model, layout, entries, new_tokens):
    """Return the ids of the entries' prompts as one ragged batch, [batch, new_tokens]."""
    prompts = tuple(tuple(entry["prompt_ids"]) for entry in entries)
    dtype = DtypeSpec("fp32", "fp32", "fp32")
    job = DecodeJob(model, layout, dtype, tuple(map(len, prompts)), new_tokens, prompts)
    check_job(job)
    ids = np.full((len(prompts), new_tokens), -1)

    def keep(rank, name, value, index):
        if name == "tokens":
            ids[job.rows(layout.place(rank).dp), index] = value

    with launch(SYSTEM, n_chips=layout.n_ranks) as cluster:
        cluster.run(decode, job, on_emit=keep)
    return ids


def check(model, layout):
    """Assert all three prompts, decoded together."""
    new_tokens = max(len(entry["greedy_ids"]) for entry in ORACLE)
    for ids, entry in zip(decoded(model, layout, ORACLE, new_tokens), ORACLE, strict=True):
        expected = entry["greedy_ids"]
        assert ids[: len(expected)].tolist() == expected


@pytest.mark.parametrize(
    "entry", [pytest.param(e, id=e["prompt"], marks=[pytest.mark.heavy] * (i > 0)) for i, e in enumerate(ORACLE)]
)
def test_each_prompt_alone(smollm2, entry):
    """The first tokens of every prompt on four ranks, whose heads and layers do not divide."""
    ids = decoded(smollm2, Layout(tp=4), [entry], 8)
    assert ids[0].tolist() == entry["greedy_ids"][:8]


def test_a_galaxy_decodes_all_prompts_together(smollm2):
    """The whole oracle as a ragged batch at TP=4 x PP=8."""
    check(smollm2, Layout(tp=4, pp=8))


@pytest.mark.heavy
@pytest.mark.parametrize("dp", [1, 2])
@pytest.mark.parametrize("pp", [1, 5, 8])
@pytest.mark.parametrize("tp", [1, 3, 4, 9])
def test_any_layout(smollm2, tp, pp, dp):
    """The whole oracle at every combination of degrees."""
    if tp * pp * dp > 80:  # larger than the mesh
        dp = 1
    check(smollm2, Layout(tp, pp, dp))


@pytest.mark.heavy
def test_plain_numpy_gives_the_same_ids(smollm2_path):
    """The unsharded program of the benchmark computes the same model."""
    from benchmarks.plain_numpy import decode as plain_decode  # noqa: PLC0415 (not a part of the package)

    for entry in ORACLE:
        ids, _ = plain_decode(str(smollm2_path), entry["prompt_ids"], len(entry["greedy_ids"]))
        assert ids == entry["greedy_ids"]
