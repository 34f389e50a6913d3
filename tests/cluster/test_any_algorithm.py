"""Decoding with every algorithm: the same ids, and the same logits up to the order of additions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from cluster.experiment import run_experiment
from cluster.vocabulary import VOCABULARY
from collectives import ALGORITHMS
from configs.loader import load_experiment
from configs.spec.parallel import ParallelSpec

ORACLES = Path(__file__).parents[1] / "data" / "oracles"
DEGREES = {"all_reduce": "{tp: 4}", "all_gather": "{tp: 4}", "reduce_scatter": "{tp: 4, sequence: true}",
           "all_to_all_v": "{ep: 4}"}  # fmt: skip
CASES = [(op, name) for op in DEGREES for name in ALGORITHMS[op]]
NEW_TOKENS = 3


def experiment(op, algorithm, oracle="mixtral"):
    """Return a decode of a small model, a mixture of experts, whose `op` is carried out by an algorithm."""
    chip = {
        "name": "c",
        "peak": {"fp32": "1TFLOPS"},
        "memory": [{"name": "hbm", "capacity": "1GiB", "bandwidth": "100GB/s"}],
    }
    topology = {"kind": "torus", "dims": [2, 2], "link": {"bandwidth": "10GB/s", "latency": "1us"}}
    if algorithm.startswith("rail_"):  # needs several nodes
        node, network = ({"kind": "switch", "chips": n, "link": topology["link"]} for n in (2, 4))
        topology = {"kind": "compose", "node": node, "count": 2, "network": network}
    if algorithm == "in_network":  # needs switches that add
        topology = {"kind": "switch", "chips": 4, "planes": [1], "in_network": True, "link": topology["link"]}
    prompts = np.load(ORACLES / oracle / "expected.npz")["prompt_ids"].tolist()
    prompts = (prompts * 4)[: max(4, len(prompts))]
    spec = {
        "system": {"name": "s", "chip": chip, "topology": topology},
        "model": str(ORACLES / oracle),
        "workload": {"prompt_ids": prompts, "batch": len(prompts), "new_tokens": NEW_TOKENS},
        "dtype": {"weights": "fp32", "kv": "fp32", "activations": "fp32"},
        "collectives": {op: algorithm},
    }
    return load_experiment(spec, (f"parallel={DEGREES[op]}",), VOCABULARY)


def check(result, oracle="mixtral"):
    """Assert ids and logits of an independent implementation."""
    known = np.load(ORACLES / oracle / "expected.npz")
    n = len(known["greedy_ids"])
    np.testing.assert_array_equal(np.array(result.output_ids)[:n], known["greedy_ids"][:, :NEW_TOKENS])
    expected = known["logits"][:, :NEW_TOKENS]
    atol = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(result.logits[:n], expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize(("op", "algorithm"), CASES)
def test_every_algorithm(op, algorithm):
    """Where the values are those of the oracle, the order of additions is all that can differ."""
    check(run_experiment(experiment(op, algorithm), keep_logits=True))


@pytest.mark.parametrize(
    "degrees", [{"tp": 4, "tp_grid": (2, 2)}, {"tp": 3, "tp_grid": (3, 1), "tp_attention": "batch"}], ids=str
)
def test_a_grid_without_data(degrees):
    """Values at a grid of ranks are the oracle's, and the timeline is that of the run without data."""
    spec = evolve(experiment("all_reduce", "ring", "falcon"), parallel=ParallelSpec(**degrees))
    real = run_experiment(spec, keep_logits=True)
    check(real, "falcon")
    assert real.timeline.sha256() == run_experiment(evolve(spec, numerics="shapes")).timeline.sha256()


@pytest.mark.ray
@pytest.mark.heavy
@pytest.mark.parametrize(
    ("degrees", "oracle"),
    [
        ({"ep": 4}, "mixtral"),
        ({"tp": 2, "cp": 2, "sequence": True}, "mixtral"),
        ({"tp": 2, "pp": 2}, "deepseek-v3"),
        ({"tp": 4, "tp_grid": (2, 2)}, "llama-gqa"),
        ({"tp": 4, "tp_grid": (2, 2), "tp_attention": "batch"}, "falcon-mqa"),
    ],
    ids=str,
)
def test_a_sample_on_ray(degrees, oracle):
    """Bit for bit the local run, operations of each layer included."""
    spec = experiment("all_reduce", "ring", oracle)
    spec = evolve(spec, parallel=ParallelSpec(**degrees))
    local, ray = (run_experiment(spec, keep_logits=True, backend=b, chips_per_actor=2) for b in ("local", "ray"))
    check(ray, oracle)
    np.testing.assert_array_equal(local.logits, ray.logits)
    assert local.timeline.sha256() == ray.timeline.sha256()
    assert local.timeline.operations == ray.timeline.operations
