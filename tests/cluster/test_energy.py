"""Energy and cost against hand computation, the engine's own link loads, and each other."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cli import main
from cluster.energy import Energy, cost_of
from cluster.experiment import run_experiment
from cluster.records import Compute
from cluster.sweeps.table import result_columns
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError
from configs.loader import load_chip, load_experiment
from configs.spec.cost import CostSpec
from tests.cluster.test_cli import EXPERIMENT

CHIPS = "system.chip"
LIMIT, IDLE = (f"{CHIPS}.power=100W",), (f"{CHIPS}.power=100W", f"{CHIPS}.idle_power=40W")
OPERATIONS = (
    *IDLE, f"{CHIPS}.energy_per_flop={{bf16: 0.5pJ, fp32: 2pJ}}", f"{CHIPS}.memory[0].energy_per_byte=30pJ",
    f"{CHIPS}.energy_per_link_bit=10pJ",
)  # fmt: skip
WHOLE = "workload.new_tokens=1"  # its span is the whole run


def run(*overrides):
    """Run the small experiment in shapes mode."""
    return run_experiment(load_experiment(EXPERIMENT, overrides, VOCABULARY))


@pytest.mark.parametrize("layout", ["{tp: 3, pp: 2}", "{tp: 2, dp: 2}", "{}"])
def test_only_the_limit_is_known(layout):
    """All chips in use at their limit, over the rate of the tokens: an upper bound, and said to be one."""
    result = run(*LIMIT, f"parallel={layout}")
    n = result.spec.parallel.n_ranks
    assert result.energy.energy_j_per_token == pytest.approx(n * 100 / result.times.tokens_per_s)
    assert (result.energy.method, result.energy.confidence) == ("limit", "estimate")
    assert any("upper bound" in note for note in result.notes)


def test_idle_power_and_the_time_in_kernels():
    """Over the whole run the chips' time in kernels is that of the breakdown."""
    result = run(*IDLE, WHOLE)
    kernels_s = result.timeline.breakdown.compute_s + result.timeline.breakdown.memory_s
    energy_j = 6 * (40 * result.times.total_s + 60 * kernels_s)
    assert result.energy.method == "busy"
    assert result.energy.energy_j_per_token == pytest.approx(energy_j / 2)


def test_the_operations_of_a_run():
    """Kernels one by one, and the bytes that the engine put on the links."""
    result = run(*OPERATIONS, WHOLE)
    timeline, tokens = result.timeline, 2
    kernels = [record for record in (timeline.records[i] for i in timeline.record) if isinstance(record, Compute)]
    compute_pj = sum(k.flops * {"bf16": 0.5, "fp32": 2.0}[k.dtype] for k in kernels)
    memory_pj = sum(30.0 * sum(k.moved_bytes) for k in kernels)
    carried = sum(link.utilisation * 1e9 * timeline.total_ps * 1e-12 for link in timeline.links)
    assert result.energy.method == "operations"
    assert result.energy.parts_j_per_token == pytest.approx({
        "idle": 6 * 40 * result.times.total_s / tokens,
        "compute": compute_pj * 1e-12 / tokens,
        "memory": memory_pj * 1e-12 / tokens,
        "links": carried * 8 * 10e-12 / tokens,
    })  # fmt: skip
    assert min(result.energy.parts_j_per_token.values()) > 0
    assert result.energy.energy_j_per_token == pytest.approx(sum(result.energy.parts_j_per_token.values()))


def test_weights_are_read_once_a_step():
    """On one chip a token takes at least the energy of reading all weights; the prefill does not count."""
    result = run(*OPERATIONS, "parallel={}", "workload.batch=1", "workload.new_tokens=9")
    weights_j = 30e-12 * result.memory["weights_bytes"]
    assert weights_j < result.energy.parts_j_per_token["memory"] < 1.5 * weights_j


def test_what_is_unknown_is_null(capsys, tmp_path):
    """Without power there is no energy, and no cost with electricity; the rent needs none."""
    bought = "cost={price: 1kUSD, years: 3, electricity_per_kwh: 0.1USD}"
    result = run(bought)
    assert (result.energy.energy_j_per_token, result.cost.cost_usd_per_million_tokens) == (None, None)
    assert any("toy-chip: its power is unknown" in note for note in result.notes)
    assert any("cost: electricity has a price" in note for note in result.notes)
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(EXPERIMENT))
    assert main(["run", str(path), "--set", "cost.price_per_chip_hour=3.6USD", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["energy"]["energy_j_per_token"] is None
    per_million = 6 * 0.001 / found["time"]["tokens_per_s"] * 1e6
    assert found["cost"]["cost_usd_per_million_tokens"] == pytest.approx(per_million)
    assert main(["run", str(path), "--set", "cost.price_per_chip_hour=3.6USD", "--set", LIMIT[0]]) == 0
    shown = capsys.readouterr().out
    assert "energy: at most" in shown
    assert "USD per million tokens" in shown


def test_columns_of_a_sweep():
    """Both are columns with their unit in the name."""
    row = result_columns(run(*LIMIT, "cost.price_per_chip_hour=1USD"))
    assert row["energy_j_per_token"] == pytest.approx(600 / row["tokens_per_s"])
    assert row["energy_method"] == "limit"
    assert row["cost_usd_per_million_tokens"] == pytest.approx(6e6 / 3600 / row["tokens_per_s"])


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 1), st.floats(1, 3), st.floats(1, 1e5), st.floats(1e-3, 1e3), st.integers(1, 64))
def test_what_chips_cost_that_are_bought(utilisation, pue, rate, joules, n):
    """Written off over all hours, paid by the tokens of the busy ones; the electricity of both, idle or not."""
    cost = CostSpec(price_usd=8766.0, years=1, electricity_per_kwh_usd=3.6, pue=pue, utilisation=utilisation)
    chip = load_chip("h200-sxm")
    found = cost_of(cost, Energy(joules), [chip] * n, rate)
    tokens = rate * utilisation * 3600  # of an hour
    idle_j = n * chip.idle_power_w * 3600 * (1 - utilisation)
    hour_usd = n * 1.0 + (joules * tokens + idle_j) / 1e6 * pue
    assert found.cost_usd_per_million_tokens == pytest.approx(hour_usd / tokens * 1e6)


@pytest.mark.parametrize(
    ("cost", "problem"),
    [
        ("{}", "neither given; accepted: exactly one of price_per_chip_hour and price"),
        ("{price: 1USD, price_per_chip_hour: 1USD, years: 1}", "both given"),
        ("{price: 1USD}", "cost.years: missing"),
        ("{price_per_chip_hour: 1USD, years: 2}", "cost.years: is for chips that are bought"),
        ("{price_per_chip_hour: 1USD, electricity_per_kwh: 1USD}", "cost.electricity_per_kwh: is in the rent"),
        ("{price: 1USD, years: 1, pue: 1.2}", "cost.pue: 1.2 multiplies what electricity costs"),
        ("{price_per_chip_hour: 2.5}", "price_per_chip_hour: 2.5 has no unit; accepted: a price such as 999USD"),
        ("{price_per_chip_hour: 2USD, utilisation: 0}", "utilisation: 0 is out of range"),
        ("{rent: 2USD}", "cost.rent: unknown key; accepted: price_per_chip_hour, price, years"),
        ("3USD", "cost: '3USD' is not a mapping"),
    ],
)
def test_bad_prices(cost, problem):
    """What is wrong is named, and what is accepted."""
    with pytest.raises(ConfigError, match="cost") as caught:
        run(f"cost={cost}")
    assert any(problem in line for line in caught.value.problems), caught.value.problems


def test_more_idle_than_the_limit():
    """A chip draws no more idle than at its limit."""
    with pytest.raises(ConfigError, match=r"system.chip.idle_power: 120 W is above power, 100 W"):
        run(*LIMIT, f"{CHIPS}.idle_power=120W")
