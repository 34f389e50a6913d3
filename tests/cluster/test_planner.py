"""The planner: its bounds hold, it finds what an exhaustive search finds, it says why, and refuses what is wrong."""

from __future__ import annotations

import json
from copy import deepcopy
from io import StringIO

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from cluster.cli import main
from cluster.experiment import prepare, run_experiment
from cluster.planner import plan
from cluster.planner.bounds import bound_of
from cluster.planner.search import score_of
from cluster.planner.shapes import one_replica
from cluster.planner.shown import print_plan
from cluster.planner.space import Candidate, Limit, Request, Shape, candidates, make_request, parse_limit
from cluster.sweeps.table import result_columns
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError, RunError
from configs.loader import load_experiment
from tests.cluster.test_cli import EXPERIMENT
from topology import build_topology
from workloads.conditions import Condition

WORKLOAD = {"prompt_tokens": 5, "new_tokens": 4}
BASE = {key: EXPERIMENT[key] for key in ("system", "model", "numerics")} | {"name": "plan", "workload": WORKLOAD}
RENT = "cost.price_per_chip_hour=1USD"
MOE = {
    "name": "tiny-moe",
    "family": "mixtral",
    "shape": {
        "n_layers": 3, "hidden": 64, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "ffn": 96, "vocab": 101,
        "rope_theta": 10000, "rms_eps": 0.00001, "max_context": 64, "n_experts": 4, "experts_per_token": 2,
        "tied_embeddings": True,
    },
}  # fmt: skip


def here(function, tasks, _n_workers):
    """Run tasks in this process."""
    return ((task, function(task)) for task in tasks)


def exhaustive(request, n_chips):
    """Return (candidate, row) of every candidate that runs."""
    found = []
    experts = getattr(load_experiment(request.base, request.overrides, VOCABULARY).model.shape, "n_experts", 0)
    for candidate in candidates(request, n_chips, experts > 0):
        try:
            spec = load_experiment(request.base, (*request.overrides, *candidate.overrides()), VOCABULARY)
            found.append((candidate, result_columns(run_experiment(spec))))
        except ConfigError:
            continue
    return found


def check_against_all(request, n_chips):
    """Require the bounds to hold for every candidate, and the winner and the runner-up to be those of all runs."""
    runs = exhaustive(request, n_chips)
    met = [(c, row) for c, row in runs if all(row[f"{limit.metric}_s"] < limit.below_s for limit in request.limits)]
    if not met:
        with pytest.raises(RunError, match="meets what is asked"):
            plan(request, run=here)
        return
    found = plan(request, run=here)
    entries = {entry.candidate: entry for entry in found.entries}
    for candidate, row in runs:
        entry = entries[candidate]
        assert entry.status in ("run", "bound", "slo"), (candidate, entry.reason)
        assert entry.bound.tpot_s(candidate.micro_batches) <= row["tpot_s"], candidate
        assert entry.bound.ttft_s() <= row["ttft_s"], candidate
        if entry.status == "bound":
            assert entry.least_score <= score_of(request.objective, row) * (1 + 1e-12 * (row["tpot_s"] > 0))
    scores = {candidate: score_of(request.objective, row) for candidate, row in met}
    assert found.winner.score == min(scores.values()) == scores[found.winner.candidate]
    others = [score for candidate, score in scores.items() if candidate.layout != found.winner.candidate.layout]
    assert (found.runner_up.score if found.runner_up else None) == (min(others) if others else None)


@st.composite
def requests(draw):
    """Small systems of every sort of network, and what may be asked of them; (request, chips)."""
    base = deepcopy(BASE)
    bandwidth, latency = (
        draw(st.sampled_from(["100MB/s", "1GB/s", "50GB/s"])),
        draw(st.sampled_from(["0ns", "300ns", "5us"])),
    )
    link = {"bandwidth": bandwidth, "latency": latency}
    base["system"]["topology"] = draw(
        st.sampled_from(
            [
                {"kind": "mesh", "dims": [2, 2], "link": link},
                {"kind": "torus", "dims": [3], "link": link},
                {"kind": "switch", "chips": 4, "planes": [2, 1], "link": link, "in_network": True},
                {"kind": "fully_connected", "chips": 4, "link": link},
            ]
        )
    )
    n_chips = 3 if base["system"]["topology"]["kind"] == "torus" else 4
    if draw(st.booleans()):
        base["system"]["communication"] = {"launch": "2us", "step": "100ns", "link_efficiency": 0.7}
    if draw(st.booleans()):
        base["system"]["chip"]["kernel_launch"] = "1us"
    if draw(st.booleans()):
        base["software"] = {"step": "3us", "row": "500ns", "kernel": "100ns", "call": "700ns"}
    if draw(st.booleans()):
        base["model"] = MOE
    base["contention"] = draw(st.sampled_from(["fluid", "none"]))
    overrides = [RENT]
    if draw(st.booleans()):
        overrides.append("parallel.sequence=true")
    objective = draw(st.sampled_from(["tpot", "throughput", "cost"]))
    limits = draw(st.sampled_from([(), (Limit("tpot", 1e-4),), (Limit("ttft", 2e-4),)]))
    grids = draw(st.booleans()) and base["model"] is not MOE
    where = (Condition.parse(draw(st.sampled_from(["cp == 1", "tp * pp > 1", "dp <= 2 and cp <= 2"]))),)
    batches = draw(st.sampled_from([(1,), (4,), (2, 4)]))
    return Request(base, objective, limits, batches, where, tuple(overrides), grids), n_chips


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests())
def test_the_same_as_an_exhaustive_search(case):
    """Nothing is lost by pruning, on any network, objective and limit."""
    check_against_all(*case)


@pytest.mark.heavy
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests())
def test_the_same_as_an_exhaustive_search_many_times(case):
    """The same, many times."""
    check_against_all(*case)


def test_bounds_are_of_the_layout_that_runs():
    """What the planner leaves alone of a layout holds for its bounds and its memory, too."""
    overrides = (RENT, "parallel.tp_attention=batch", "system.topology.dims=[2,2]")
    where = (Condition.parse("grid > 1 and pp == 1"),)
    check_against_all(Request(BASE, "throughput", (), (4,), where, overrides, grids=True), 4)


@pytest.mark.parametrize("objective", ["tpot", "cost"])
def test_bounds_hold_for_any_draw_of_experts(objective):
    """Steps that draw fewer experts than the one that the bound looks at are shorter."""
    model = deepcopy(MOE)
    model["shape"] |= {"ffn": 2048, "n_experts": 8}
    where = (Condition.parse("tp * cp * pp == 1"),)
    overrides = (RENT, "experts.skew=1.5", "system.topology.dims=[2,2]")
    check_against_all(Request({**BASE, "model": model}, objective, (), (4,), where, overrides), 4)


def test_bounds_of_fewer_rows_hold_for_more():
    """Tokens take turns at the copies of an expert: more rows may mean fewer tokens for one chip's."""
    model = deepcopy(MOE)
    model["shape"] |= {"ffn": 2048, "experts_per_token": 1}
    request = Request(
        {**BASE, "model": model}, "tpot", overrides=("experts.redundant=1", "system.chip.matrix_tile=[1,1,1]")
    )
    least = []
    for rows in range(4, 9):
        spec = one_replica(request, Shape(1, 1, 4, 1), rows)
        job, _ = prepare(spec)
        least.append(bound_of(spec.system, build_topology(spec.system), spec.contention, job).tpot_s(1))
    assert least == sorted(least)


def test_the_memory_prunes():
    """Layouts whose shards are too large are left out, and only those."""
    request = Request(BASE, "tpot", batches=(8,), overrides=("system.chip.memory[0].capacity=100KiB",))
    found = plan(request, run=here)
    fitting = {candidate for candidate, _ in exhaustive(request, 8)}
    left_out = {entry.candidate for entry in found.entries if entry.status == "memory"}
    possible = {entry.candidate for entry in found.entries if entry.status != "impossible"}
    assert all("pp" in entry.reason for entry in found.entries if entry.status == "impossible"), (
        "more stages than layers"
    )
    assert left_out == possible - fitting
    assert len(left_out) > 10
    assert len(fitting) > 3


def test_bounds_prune():
    """Where one layout is far better, most others do not run; the counts add up."""
    found = plan(Request(BASE, "throughput", batches=(1, 8)), run=here)
    counts = found.counts
    assert counts["run"] < counts["bound"]
    assert counts["candidates"] == sum(n for status, n in counts.items() if status != "candidates")


def test_candidates():
    """All products of divisors up to the number of chips, with even rows; conditions leave out the rest."""
    request = Request(BASE, "tpot", batches=(4,))
    found = candidates(request, 6, ep_possible=False)
    assert Candidate(Shape(3, 2, 1, 1), 1, 2, 4) in found
    assert Candidate(Shape(3, 1, 1, 1), 2, 1, 4) in found
    assert all(c.n_ranks <= 6 and 4 % (c.dp * c.micro_batches) == 0 for c in found)
    assert not any(c.dp == 3 for c in found), "4 rows do not divide by 3"
    narrow = Request(BASE, "tpot", batches=(4,), where=(Condition.parse("tp * pp == n_chips"),))
    assert {(c.shape.tp, c.shape.pp) for c in candidates(narrow, 6, False)} == {(1, 6), (2, 3), (3, 2), (6, 1)}
    assert str(Candidate(Shape(3, 2, 1, 1), 1, 2, 4)) == "tp 3 × pp 2, 2 micro-batches, batch 4"


@pytest.fixture
def toy(tmp_path):
    """The options of a small search: a system, a model and what is not searched."""
    for name in ("system", "model"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(EXPERIMENT[name]))
    return [str(tmp_path / "system.yaml"), str(tmp_path / "model.yaml"), "--workers", "1"]


def test_the_command(toy, capsys, tmp_path):
    """One document with the winner, the runner-up and all candidates; the winner is an experiment that runs."""
    best = tmp_path / "best.yaml"
    options = [
        "--context",
        "8",
        "--objective",
        "cost",
        "--slo",
        "tpot<50ms",
        "--batch",
        "1,8",
        "--where",
        "cp == 1",
        "--set",
        RENT,
    ]
    assert main(["plan", *toy, *options, "--out", str(best), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "chipmesh.plan.v1"
    assert found["counts"]["candidates"] == len(found["candidates"])
    winner = found["winner"]
    assert winner["tpot_at_least_s"] <= winner["result"]["tpot_s"] < 0.05
    assert sum(winner["time_per_token_s"].values()) == pytest.approx(winner["result"]["tpot_s"])
    assert (
        found["runner_up"]["result"]["cost_usd_per_million_tokens"] >= winner["result"]["cost_usd_per_million_tokens"]
    )
    first, *_ = best.read_text().splitlines()
    assert first == f"# chipmesh run best.yaml --set {RENT}"
    assert main(["run", str(best), "--set", RENT, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["time"]["tpot_s"] == winner["result"]["tpot_s"]
    assert again["cost"]["cost_usd_per_million_tokens"] == winner["result"]["cost_usd_per_million_tokens"]


def test_what_people_see():
    """The winner beside the runner-up, what makes the difference, and the fate of the others."""
    console = Console(record=True, width=200, file=StringIO())
    print_plan(console, plan(Request(BASE, "throughput", batches=(1, 8), overrides=(RENT,)), run=here))
    shown = console.export_text()
    assert all(text in shown for text in ("winner: ", "runner-up: ", "why: per token", "candidates: "))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--objective", "speed"], 2, "Invalid value"),
        (["--objective", "tpot", "--slo", "tpot=1"], 2, "--slo: 'tpot=1' is no objective; accepted: tpot<50ms"),
        (["--objective", "tpot", "--slo", "tpot<50"], 2, "--slo: '50' has no unit"),
        (["--objective", "tpot", "--batch", "8:2"], 2, "--batch: '8:2'; accepted: 8, or 1,4,16"),
        (["--objective", "tpot", "--where", "x > 1"], 2, "--where: 'x > 1': 'x' is not a value"),
        (["--objective", "tpot", "--where", "tp > 8"], 2, "no layout on 8 chips fits --where"),
        (["--objective", "tpot", "--set", "parallel.tp=2"], 2, "is set by the planner"),
        (["--objective", "tpot", "--new-tokens", "1"], 2, "--new-tokens: 1; accepted: 2 to"),
        (["--objective", "tpot", "--context", "1000"], 2, "--context: 1000, and 4 new tokens; accepted: at most 64"),
        (["--objective", "tpot", "--dtype", "bf61"], 2, "dtype.weights: 'bf61'"),
        (["--objective", "cost"], 2, "--objective cost: needs to know what a chip costs"),
        (["--objective", "tpot", "--batch", "1", "--slo", "tpot<1ns"], 1, "miss the objectives; the closest: "),
        (["--objective", "tpot", "--batch", "1", "--set", "system.chip.memory[0].capacity=2KiB"], 1,
         "do not fit the memory; the closest: "),
    ],
)  # fmt: skip
def test_refusals(toy, capsys, options, code, said):
    """Bad input is 2, nothing that fits is 1, with the reason."""
    assert main(["plan", *toy, *(["--context", "8"] if "--context" not in options else []), *options]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_limits_have_units():
    """A limit is of a time of the run, in a unit of time."""
    assert parse_limit(" ttft <= 1s ") == Limit("ttft", 1.0)
    with pytest.raises(ConfigError, match="--slo"):
        make_request("s", "m", "tpot", slo=["tokens>3"])
