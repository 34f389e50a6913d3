"""What does not fit is said before anything runs: the table adds up, and every change that is named fits, just."""

from __future__ import annotations

import re

import attrs
import pytest

from cluster.experiment import prepare, run_experiment
from cluster.fitting import fits, fullest_chip, smallest_changes
from cluster.vocabulary import VOCABULARY
from configs.errors import CapacityError, ConfigError
from configs.loader import load_experiment
from configs.units import parse_size_bytes

LARGE = {
    "system": "dgx-h100",
    "model": "llama-3.1-70b",
    "numerics": "shapes",
    "parallel": {"tp": 1},
    "workload": {"batch": 4, "prompt_tokens": 1000, "new_tokens": 10},
}


def loaded(*overrides, base=LARGE):
    """Return the spec and the job."""
    spec = load_experiment(base, overrides, VOCABULARY)
    return spec, prepare(spec)[0]


def refused(*overrides):
    """Return the lines of the refusal."""
    with pytest.raises(CapacityError) as caught:
        run_experiment(loaded(*overrides)[0])
    return str(caught.value).splitlines()


def test_the_table_adds_up():
    """The sums of all lines are what is needed, and 70 billion weights in bf16 are most of it."""
    lines = refused()
    needed = parse_size_bytes(re.search(r"([\d.]+ GiB) are needed", lines[0])[1])
    sums = [parse_size_bytes(line.rpartition("=")[2].strip()) for line in lines if " = " in line]
    assert sum(sums) == pytest.approx(needed, rel=0.01)
    assert needed == pytest.approx(70.55e9 * 2 + 4 * 1010 * 80 * 2 * 8 * 128 * 2, rel=0.01)
    assert "gate_up" in lines[1]


@pytest.mark.parametrize(
    "overrides",
    [(), ("parallel.tp=2", "workload.prompt_tokens=30000"), ("dtype.weights=fp8_e4m3", "workload.prompt_tokens=20000")],
    ids=str,
)
def test_every_named_change_fits_and_a_smaller_one_does_not(overrides):
    """By planning the changed experiment as it would be run."""
    spec, job = loaded(*overrides)
    changes = list(smallest_changes((spec.system.chip,) * 8, job))
    assert changes
    for change in changes:
        changed, changed_job = loaded(*overrides, *change.split(" --set "))
        assert fits((changed.system.chip,) * 8, changed_job), change
        assert fullest_chip((changed.system.chip,) * 8, changed_job)
        key, _, value = change.partition("=")
        if key in {"workload.batch", "workload.new_tokens", "workload.prompt_tokens"}:
            assert not fits((spec.system.chip,) * 8, loaded(*overrides, f"{key}={int(value) + 1}")[1]), change


def test_seventy_billion_weights_on_one_h100():
    """Two chips hold the bf16 weights and this cache, one the same in eight bits; no batch and no context helps."""
    assert refused()[-1] == "    --set dtype.weights=fp8_e4m3"
    spec, job = loaded()
    assert list(smallest_changes((spec.system.chip,) * 8, job))[:2] == ["parallel.tp=2", "parallel.pp=2"]
    assert [c for c in smallest_changes((spec.system.chip,), job) if c.startswith(("parallel", "workload"))] == []


def test_more_chips_are_named_where_these_are_too_few():
    """405 billion bf16 weights and two long prompts are too much for one node; for two they are not."""
    lines = refused(
        "model=llama-3.1-405b",
        "parallel.tp=8",
        "workload={batch: 1, prompt_tokens: 100, new_tokens: 2}",
        "system.chip.peak={bf16: 1PFLOPS}",
    )
    assert lines[-2:] == ["  no single change on 8 chips would fit", "  on 16 such chips: --set parallel.tp=16"]


def test_a_tier_of_ones_own():
    """A cache in the near tier is read at that tier's rate and checked against its capacity."""
    spec, _ = loaded("model=llama-3.2-1b", "workload.new_tokens=2", "system.chip.kernels=ideal")
    near, far = (
        attrs.evolve(spec.system.chip.memory[-1], name="near", bandwidth_bytes_per_s=1e13),
        spec.system.chip.memory[-1],
    )
    chip = attrs.evolve(spec.system.chip, memory=(near, far))
    far_spec = attrs.evolve(spec, system=attrs.evolve(spec.system, chip=chip))
    near_spec = attrs.evolve(far_spec, tiers=attrs.evolve(spec.tiers, kv="near"))
    results = [run_experiment(s) for s in (far_spec, near_spec)]
    times = [
        sum(o.total_s for o in r.timeline.operations if (o.name, o.bound) == ("attention", "memory")) for r in results
    ]
    assert times[1] < 0.5 * times[0]
    tiers = {t["name"]: t["used_bytes"] for t in results[1].memory["tiers"]}
    assert tiers == {"near": results[1].memory["kv_bytes"], far.name: results[1].memory["weights_bytes"]}
    tiny = attrs.evolve(chip, memory=(attrs.evolve(near, capacity_bytes=1000), far))
    with pytest.raises(CapacityError, match=r"near holds 1000 B[^=]*_cache"):
        run_experiment(attrs.evolve(near_spec, system=attrs.evolve(spec.system, chip=tiny)))
    with pytest.raises(ConfigError, match="no memory tier 'hbm9'; accepted: near"):
        run_experiment(attrs.evolve(near_spec, tiers=attrs.evolve(spec.tiers, kv="hbm9")))
