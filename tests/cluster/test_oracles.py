"""Every oracle on the local backend, with its real collectives, at every degree of parallelism and at mixtures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.experiment import run_experiment
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment

ORACLES = Path(__file__).parents[1] / "data" / "oracles"
NAMES = sorted(path.name for path in ORACLES.iterdir())
EXPERTS = ("deepseek-v3", "mixtral")
N_ROWS = 4

DEGREES = [
    *({"tp": tp} for tp in (1, 2, 3, 4, 8)), *({"pp": pp} for pp in (2, 3)), {"cp": 2}, {"dp": 2},
    {"tp": 2, "pp": 2, "dp": 2}, {"tp": 3, "pp": 3}, {"tp": 2, "cp": 2, "pp": 2}, {"tp": 3, "cp": 2, "dp": 2},
    {"tp": 2, "sequence": True, "pp": 2}, {"tp": 8, "pp": 2, "dp": 2}, {"tp": 5, "dp": 4},
]  # fmt: skip
GRIDS = [{"tp": 4, "tp_grid": [2, 2], "pp": 2}, {"tp": 8, "tp_grid": [2, 4], "dp": 2}, {"tp": 8, "tp_grid": [4, 2]}]
GRIDS += [{"tp": 6, "tp_grid": [2, 3], "tp_attention": "batch", "dp": 2}]
EXPERT_DEGREES = [
    *({"ep": ep} for ep in (2, 4, 8)), {"tp": 2, "pp": 2, "ep": 2, "dp": 2}, {"tp": 3, "ep": 3}, {"cp": 2, "ep": 2},
    {"tp": 2, "ep": 4}, {"pp": 3, "ep": 2}, {"tp": 2, "cp": 2, "pp": 2, "ep": 2},
]  # fmt: skip
EVERYTHING = [(name, degrees) for name in NAMES for degrees in DEGREES]
EVERYTHING += [(name, degrees) for name in NAMES if name not in EXPERTS for degrees in GRIDS]
EVERYTHING += [(name, degrees) for name in EXPERTS for degrees in EXPERT_DEGREES]
SAMPLE = [(name, {"tp": 3, "pp": 2}) for name in NAMES] + [(name, {"tp": 2, "ep": 2, "pp": 2}) for name in EXPERTS]


def check(name, degrees, micro_batches=1):
    """Assert ids and logits of an independent implementation, each prompt as often as there is room in the batch."""
    known = np.load(ORACLES / name / "expected.npz")
    prompts, new_tokens = known["prompt_ids"].tolist(), known["greedy_ids"].shape[1]
    rows = [i % len(prompts) for i in range(N_ROWS)]
    chip = {
        "name": "c",
        "peak": {"fp32": "1TFLOPS"},
        "memory": [{"name": "hbm", "capacity": "1GiB", "bandwidth": "100GB/s"}],
    }
    topology = {"kind": "mesh", "dims": [8, 6], "link": {"bandwidth": "10GB/s", "latency": "1us"}}
    spec = {
        "system": {"name": "s", "chip": chip, "topology": topology},
        "model": str(ORACLES / name),
        "parallel": degrees,
        "micro_batches": micro_batches,
        "workload": {"prompt_ids": [prompts[i] for i in rows], "batch": N_ROWS, "new_tokens": new_tokens},
        "dtype": {"weights": "fp32", "kv": "fp32", "activations": "fp32"},
    }
    result = run_experiment(load_experiment(spec, (), VOCABULARY), keep_logits=True)
    np.testing.assert_array_equal(result.output_ids, known["greedy_ids"][rows])
    expected = known["logits"][rows]
    np.testing.assert_allclose(result.logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "degrees"), SAMPLE, ids=str)
def test_a_sample(name, degrees):
    """A mixture for every oracle."""
    check(name, degrees)


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "degrees"), EVERYTHING, ids=str)
def test_every_layout(name, degrees):
    """Degrees that divide heads, layers, experts and rows, and that do not."""
    check(name, degrees)


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "degrees"), [(n, d) for n, d in EVERYTHING if len(d) > 1], ids=str)
def test_mixtures_in_parts(name, degrees):
    """The same in two micro-batches."""
    check(name, degrees, micro_batches=2)
