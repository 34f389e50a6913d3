"""Placements: one permutation decides which chip a rank is; the fastest is never slower than the ranks' own order."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from cluster.experiment import run_experiment
from cluster.placing import candidates
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError
from configs.loader import load_experiment
from tests.workloads.double import logits_of, run_job, tokens_of
from tests.workloads.test_decode import job_of
from tests.workloads.tiny import write_tiny
from topology import build_topology
from workloads.gguf_weights import gguf_model
from workloads.layout import Layout


def experiment(system, degrees, *overrides, layers=3):
    """Return a small decode without data."""
    shape = {
        "n_layers": layers, "hidden": 4096, "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "ffn": 14336,
        "vocab": 2048, "rope_theta": 10000, "rms_eps": 0.00001, "tied_embeddings": True, "max_context": 512,
    }  # fmt: skip
    spec = {
        "system": system,
        "model": {"name": "m", "family": "llama", "shape": shape},
        "parallel": degrees,
        "numerics": "shapes",
        "workload": {"batch": 4, "prompt_tokens": 64, "new_tokens": 3},
    }
    return load_experiment(spec, overrides, VOCABULARY)


CASES = [
    ("wormhole-galaxy", {"tp": 4, "pp": 2}),
    pytest.param("wormhole-galaxy", {"tp": 8, "dp": 2}, marks=pytest.mark.heavy),
    pytest.param("wormhole-t3000", {"tp": 2, "pp": 4}, marks=pytest.mark.heavy),
    pytest.param("tpu-v4-2x2x4", {"tp": 4, "pp": 2}, marks=pytest.mark.heavy),
    ("dgx-h100", {"tp": 4, "dp": 2}),
]


@pytest.mark.parametrize(("system", "degrees"), CASES, ids=str)
def test_the_fastest_is_never_slower(system, degrees):
    """Than the ranks' own order; and choosing is deterministic."""
    plain, auto = (run_experiment(experiment(system, degrees, f"placement={p}")) for p in ("identity", "auto"))
    assert auto.times.total_s <= plain.times.total_s
    assert len(set(auto.chips)) == len(auto.chips) == len(plain.chips)
    again = run_experiment(experiment(system, degrees, "placement=auto"))
    assert (again.chips, again.timeline.sha256()) == (auto.chips, auto.timeline.sha256())


def test_close_chips_are_found():
    """Four tensor-parallel ranks of a mesh stand in a square, whose chips are all on a ring, not in a line of four."""
    spec = experiment("wormhole-galaxy", {"tp": 4, "pp": 2}, "placement=auto")
    auto, topology = run_experiment(spec), build_topology(spec.system)
    for stage in (auto.chips[:4], auto.chips[4:]):
        assert [len({topology.coords(chip)[axis] for chip in stage}) for axis in (0, 1)] == [2, 2]


def test_axes_by_name():
    """Tensor-parallel ranks along x, stages along y: rank (stage s, index i) is the chip at x = i, y = s."""
    spec = experiment("wormhole-galaxy", {"tp": 8, "pp": 4}, "placement={axes: {tp: [x], pp: [y]}}", layers=4)
    topology, result = build_topology(spec.system), run_experiment(spec)
    assert topology.axes == ("x", "y")
    assert [topology.coords(chip) for chip in result.chips] == [(i, s) for s in range(4) for i in range(8)]
    whole = run_experiment(experiment("wormhole-galaxy", {"tp": 32}, "placement={axes: {tp: [y, x]}}"))
    assert [topology.coords(chip) for chip in whole.chips] == [(x, y) for y in range(4) for x in range(8)]


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        ("{axes: {tp: [z]}}", "placement.axes.tp: 'z' is not an axis of the topology; accepted: x, y"),
        ("{axes: {tp: [x], pp: [x]}}", "placement.axes: x is named twice"),
        ("{axes: {tp: [y]}}", "placement.axes.tp: y 4 for parallel.tp 8; accepted: axes of its length"),
        ("{axes: {}}", "placement.axes: is for a placement along axes, which needs it"),
        ("{kind: auto, axes: {tp: [x]}}", "placement.axes: is for a placement along axes"),
        ("close", "'close' is not a mapping; accepted: identity, or auto, or a mapping"),
    ],
)
def test_impossible_placements(placement, words):
    """Each message names the key and what is accepted."""
    with pytest.raises(ConfigError) as caught:
        run_experiment(experiment("wormhole-galaxy", {"tp": 8}, f"placement={placement}"))
    assert words in str(caught.value)


def test_candidates_are_placements():
    """Each names as many chips as there are ranks, none twice; the first is the ranks' own order."""
    topology = build_topology(experiment("tpu-v4-4x4x4", {"tp": 8}).system)
    found = candidates(topology, Layout(tp=8, pp=3))
    assert found[0] == tuple(range(24))
    assert len(set(found)) == len(found) > 5
    assert all(len(set(chips)) == 24 for chips in found)


@pytest.mark.parametrize(
    "layout", [Layout(tp=3, pp=2), Layout(tp=2, cp=2, dp=2), Layout(tp=2, pp=2, sequence=True)], ids=str
)
def test_values_do_not_depend_on_the_placement(tmp_path, layout):
    """Any permutation of the chips gives the same ids and logits."""
    model = gguf_model(write_tiny(tmp_path / "m.gguf"))
    chips = tuple(np.random.default_rng(0).permutation(layout.n_ranks).tolist())
    jobs = [job_of(model, layout), job_of(model, evolve(layout, chips=chips))]
    (ids, logits), (placed_ids, placed_logits) = (
        (tokens_of(j, c), logits_of(j, c)) for j in jobs for c in [run_job(j)]
    )
    np.testing.assert_array_equal(ids, placed_ids)
    np.testing.assert_allclose(logits, placed_logits, rtol=1e-4, atol=1e-4)
