"""What a run shows of real values: ids and text up to a stop token, logits of all shards in their order."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.experiment import run_experiment
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment
from tests.workloads.tiny import write_tiny

CHIP = {
    "name": "c",
    "peak": {"fp32": "1TFLOPS"},
    "memory": [{"name": "hbm", "capacity": "1GiB", "bandwidth": "1GB/s"}],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a function that runs the tiny model with overrides."""
    path = str(write_tiny(tmp_path_factory.mktemp("tiny") / "m.gguf"))
    link = {"bandwidth": "1GB/s", "latency": "1us"}
    experiment = {
        "model": path,
        "system": {"name": "s", "chip": CHIP, "topology": {"kind": "mesh", "dims": [2, 4], "link": link}},
        "workload": {"prompt_ids": [[5, 17, 100], [42]], "batch": 2, "new_tokens": 6},
        "dtype": {"weights": "fp32", "kv": "fp32", "activations": "fp32"},
    }

    def run(*overrides, **more):
        return run_experiment(load_experiment(experiment, overrides, VOCABULARY), **more)

    return run


def test_stop_tokens_cut_what_is_shown(run):
    """Ids end with the first stop token, other rows stay; the timeline and the rates are those of the whole run."""
    whole, shown = run(), []
    stop = whole.output_ids[0][2]
    cut = run(f"workload.stop_ids=[{stop}]", on_token=lambda row, step, _text: shown.append((row, step)))
    expected = tuple(row[: row.index(stop) + 1] if stop in row else row for row in whole.output_ids)
    assert cut.output_ids == expected
    assert len(expected[0]) <= 3
    assert sorted(shown) == [(r, s) for r, row in enumerate(expected) for s in range(len(row) - (row[-1] == stop))]
    assert cut.timeline.sha256() == whole.timeline.sha256()
    assert cut.times.tokens_per_s == whole.times.tokens_per_s
    assert any("stop_ids" in note for note in cut.notes)


@pytest.mark.parametrize("degrees", ["{tp: 2, cp: 2}", "{tp: 3, cp: 2}", "{cp: 4, dp: 2}"])
def test_logits_over_context_parallel_ranks(run, degrees):
    """The shards of the vocabulary come in the order of all ranks that share it."""
    whole, split = run(keep_logits=True), run(f"parallel={degrees}", keep_logits=True)
    assert whole.output_ids == split.output_ids
    np.testing.assert_allclose(split.logits, whole.logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        ("parallel={tp: 3, cp: 2}",),
        ("parallel={tp: 2, cp: 2, dp: 2, sequence: true}",),
        ("parallel={tp: 3, pp: 2, sequence: true}", "micro_batches=2"),
        ("parallel={tp: 2, pp: 2}", "placement={axes: {tp: [x], pp: [y]}}", "system.topology.dims=[2, 2]"),
        ("parallel={tp: 3}", "workload.sampling={kind: top_k, k: 5}"),
    ],
    ids=str,
)
def test_without_values_the_same_happens(run, changes):
    """Timeline and times of the layers' operations are those of the run with values, whichever chips ran."""
    real, shapes = run(*changes), run(*changes, "numerics=shapes")
    assert real.timeline.sha256() == shapes.timeline.sha256()
    assert real.timeline.operations == shapes.timeline.operations
