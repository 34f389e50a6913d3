"""A cube that fails in mid-run: all chips stop while the circuits are rewired, and the tokens stay the same."""

from __future__ import annotations

import pytest

from cluster.experiment import run_experiment
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment
from tests.workloads.tiny import write_tiny

SECOND_PS = 10**12


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model's file."""
    return str(write_tiny(tmp_path_factory.mktemp("model") / "tiny.gguf"))


def run(model, failures, parallel, *, overlap=False, placement="identity"):
    """Decode eight tokens of four rows on a slice of two small cubes out of five."""
    memory = [{"name": "hbm", "capacity": "1GiB", "bandwidth": "100GB/s"}]
    topology = {
        "kind": "ocs", "cubes": 5, "cube": [3, 3, 3], "slice": "3x3x6", "reconfiguration": "10s",
        "failures": failures, "link": {"bandwidth": "10GB/s", "latency": "1us"},
    }  # fmt: skip
    chip = {"name": "c", "peak": {"fp32": "1TFLOPS", "bf16": "1TFLOPS"}, "memory": memory}
    experiment = {
        "name": "test", "model": model, "parallel": parallel, "overlap": overlap, "placement": placement,
        "system": {"name": "pod", "chip": chip, "topology": topology},
        "workload": {"prompt_ids": [[5, 17], [42], [7, 8, 9], [3]], "new_tokens": 8},
    }  # fmt: skip
    return run_experiment(load_experiment(experiment, (), VOCABULARY))


@pytest.mark.parametrize(
    ("parallel", "overlap"),
    [({}, False), ({"tp": 2, "pp": 2, "dp": 2}, False), ({"tp": 2, "pp": 2}, True), ({"tp": 2}, True)],
    ids=["one chip", "tp pp dp", "halves over stages", "halves of the prefill"],
)
def test_all_chips_stop_for_the_rewiring(model, parallel, overlap):
    """Tokens do not change; every chip stops when it leaves a barrier of all, and the run takes that much longer."""
    usual = run(model, [], parallel, overlap=overlap)
    failures = [{"cube": 1, "after_token": 5}, {"cube": 0, "after_token": 1}]
    stopped = run(model, failures, parallel, overlap=overlap)
    assert stopped.output_ids == usual.output_ids
    events = [e for e in stopped.timeline.events() if e.operation == "reconfigure"]
    n_chips = stopped.spec.parallel.n_ranks
    assert len(events) == 2 * n_chips
    assert {e.end_ps - e.start_ps for e in events} == {10 * SECOND_PS}
    for stop in (events[:n_chips], events[n_chips:]):
        assert sorted(e.chip for e in stop) == list(range(n_chips))
        assert stop[-1].start_ps - stop[0].start_ps < SECOND_PS // 10**5
    extra_ps = stopped.timeline.total_ps - usual.timeline.total_ps
    assert 0 <= extra_ps - 20 * SECOND_PS < SECOND_PS // 1000
    assert stopped.timeline.breakdown.idle_s >= 20
    assert any("rewiring is charged" in note for note in stopped.notes)
    assert not any("rewiring is charged" in note for note in usual.notes)


def test_chips_elsewhere_stop_as_well(model):
    """The chips in use need not be the first ones."""
    placement = {"axes": {"tp": ["x"]}}
    stopped = run(model, [{"cube": 1, "after_token": 5}], {"tp": 3}, placement=placement)
    usual = run(model, [], {"tp": 3}, placement=placement)
    assert stopped.chips == usual.chips != (0, 1, 2)
    assert stopped.output_ids == usual.output_ids
    assert {e.chip for e in stopped.timeline.events() if e.operation == "reconfigure"} == set(stopped.chips)
