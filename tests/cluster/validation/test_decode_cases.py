"""Decode rows become runs by rules on their columns; what they predict keeps what measurements show."""

from __future__ import annotations

from attrs import evolve

from cluster.experiment import run_experiment
from cluster.validation.decode_cases import decode_case
from cluster.validation.decode_work import DecodeWork, fewer_layers
from cluster.validation.rows import DecodeRow
from cluster.validation.vocabulary import Case, Skipped
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment, load_model
from configs.spec import DtypeSpec
from workloads.layout import Layout

ROW = DecodeRow(
    "a", "HGX B200", "B200", 4, "Llama-3.1-70B", "fp4", "", 4, 1, None, 1, 64, 1024, 1024, "tpot_ms", 9.3, "trtllm",
    notes="serving benchmark at fixed concurrency",
)  # fmt: skip
FP4 = DtypeSpec("nvfp4", "fp8_e4m3", "nvfp4", head="bf16")


def work(**columns) -> DecodeWork:
    """Return what predicts a row with other columns."""
    case = decode_case(evolve(ROW, **columns))
    assert isinstance(case, Case), case
    return case.work


def reason(**columns) -> str:
    """Return why a row with other columns is skipped."""
    case = decode_case(evolve(ROW, **columns))
    assert isinstance(case, Skipped), case
    return case.reason


def test_a_row_becomes_a_run():
    """Every column has its part in it."""
    expected = DecodeWork(
        "hgx-b200", "serving-nvswitch4", "trtllm", "llama-3.1-70b", Layout(4), FP4, 64, 1024, 1024, "serving"
    )
    assert work() == expected
    assert work(chip="H100 SXM", system="HGX H100", software="vllm 0.12.0").communication == "serving-nvswitch3"
    assert work(notes="disaggregated; one decode worker").method == "step"
    assert work(metric="e2e_latency_s", value=2.0).method == "batch"
    mixture = work(model="gpt-oss-120b", tp=1, dp=4, ep=4)
    assert mixture.layout == Layout(1, ep=4)
    assert (mixture.dtype.weights, mixture.dtype.feed_forward) == ("bf16", "mxfp4")


def test_what_is_skipped_has_a_reason():
    """A hidden batch, an unknown model, a layout that does not fit the chips."""
    assert reason(batch_total=None) == "the batch is not given"
    assert reason(model="Falcon-9000") == "no catalogue model"
    assert reason(chip="abacus", system="desk") == "no catalogue system"
    assert reason(tp=8) == "the layout does not fit the number of chips"
    assert reason(metric="mfu") == "not a metric of the simulator"
    assert reason(notes="disaggregated", input_len=8192).startswith("the batch is bounded")


def test_few_layers_tell_the_time_of_all():
    """Step times of two shallow runs give that of the whole model, to the picosecond's rounding."""
    few = DecodeWork("dgx-h100", "ideal", "ideal", "llama-3.2-1b", Layout(2), DtypeSpec(), 4, 64, 0, "step")
    assert fewer_layers(load_model("llama-3.2-1b", [], VOCABULARY).shape) == (1, 2)
    experiment = {
        "system": {"name": "x", "chip": "h100-sxm", "topology": {"kind": "switch", "chips": 2, "planes": [5, 4, 4, 5],
                   "link": {"bandwidth": "25GB/s", "latency": "250ns"}}},
        "model": "llama-3.2-1b", "parallel": {"tp": 2}, "numerics": "shapes",
        "workload": {"batch": 4, "prompt_tokens": 64, "new_tokens": 2},
    }  # fmt: skip
    whole = run_experiment(load_experiment(experiment, [], VOCABULARY))
    assert abs(few.run()["tpot_s"] - whole.times.tpot_s) < 1e-3 * whole.times.tpot_s


def test_more_chips_and_no_gain():
    """At 64 rows in FP4, eight B200 are hardly faster than four, and stages do not make a token come sooner."""
    four, eight = (evolve(work(), layout=Layout(tp), method="step").run()["tpot_s"] for tp in (4, 8))
    assert eight > 0.85 * four
    plain, staged = (evolve(work(), layout=Layout(2, pp=pp), rows=8, method="step").run()["tpot_s"] for pp in (1, 2))
    assert staged > 0.98 * plain
