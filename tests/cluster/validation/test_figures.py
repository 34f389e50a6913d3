"""The kept errors: the page shows them, CI compares with them, runs take their bands from them."""

import importlib.util
from pathlib import Path

import pytest

from cluster.uncertainty import band_of, stored_figures
from cluster.validation import validate_rows
from cluster.validation.figures import figures_of, grown
from cluster.vocabulary import VOCABULARY
from configs.loader import load_system
from configs.spec.software import SoftwareSpec
from tests.cluster.validation.test_validate import row

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_is_written_from_the_kept_figures():
    """docs/fidelity.md has the tables of today's figures; `python docs/fidelity.py docs/fidelity.md` writes them."""
    spec = importlib.util.spec_from_file_location("fidelity", DOCS / "fidelity.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (DOCS / "fidelity.md").read_text()
    assert script.page(text) == text


def test_the_bars_hold():
    """Half of the collectives are within 12 %, nine tenths within 35 %; no system with many rows is off by 30 %."""
    collective = stored_figures()["collective"]
    assert collective["all"]["median"] <= 0.12
    assert collective["all"]["p90"] <= 0.35
    assert collective["sizes"]["< 16 KiB"]["median"] <= 0.25
    assert all(s["median"] <= 0.30 for s in collective["systems"].values() if s["n"] > 20)


def test_growth_is_told():
    """More than a point worse is told, less is not."""
    figures = figures_of(validate_rows([row(time_us=32.0), row(id="a-2", time_us=None)], n_workers=1))
    assert (figures["collective"]["all"]["n"], figures["collective"]["skipped"]) == (1, 1)
    worse = figures_of(validate_rows([row(time_us=40.0)], n_workers=1))
    assert grown(figures, figures) == []
    assert [line.split(":")[0] for line in grown(worse, figures)] == ["collective 1 to 64 MiB"] * 2 + ["collective"] * 2


def test_ideal_systems_have_no_band():
    """Nothing that was measured is ideal."""
    assert band_of(load_system("dgx-h100", ["communication=ideal"], VOCABULARY)) is None


FIGURES = {"all": {"n": 9, "median": 0.2, "p90": 0.4}, "systems": {"dgx-h100": {"n": 5, "median": 0.1, "p90": 0.3}}}
HELD = {"n": 8, "median": 0.15, "p90": 0.25}
HOLDOUTS = {
    "all": {"n": 9, "median": 0.5, "p90": 0.9},
    "families": {"Hopper": {"kernels": ["nvidia-hopper"], "model": {"held_out": HELD}}},
    "profiles": {"aws-trainium1": {"rows": 3, "sources": 1}, "old": {"rows": 3, "sources": 1}},
}


@pytest.mark.parametrize(
    ("system", "software", "band", "basis"),
    [
        ("dgx-h100", "vllm", [0.15, 0.3], "5 measured rows of dgx-h100; the errors on models left out count"),
        ("dgx-h100", "old", [0.5, 0.9], "5 measured rows of dgx-h100; old rests on one source"),
        (
            "trn1-32xlarge",
            "vllm",
            [0.5, 0.9],
            "9 measured rows of all systems; none is of this one; aws-trainium1 rest",
        ),
        ("tpu-v4-superpod", "vllm", [0.2, 0.4], "9 measured rows of all systems; none is of this one"),
    ],
)
def test_a_band_says_what_it_is_based_on(system, software, band, basis, monkeypatch):
    """The rows of the same system, or those of all; what was held out, if that was worse."""
    monkeypatch.setattr("cluster.uncertainty.stored_figures", lambda: {"decode": FIGURES})
    monkeypatch.setattr("cluster.uncertainty.stored_held_out", lambda: HOLDOUTS)
    found = band_of(load_system(system, ["communication.launch=1us"], VOCABULARY), SoftwareSpec(software))
    assert found.to_json()["tpot_rel"] == band
    assert found.basis.startswith(basis)


def test_the_bars_of_decoding_hold():
    """On NVIDIA, Wormhole and MI300X half of the rows are within 15 %; no system with many rows is off by 30 %."""
    decode = stored_figures()["decode"]["systems"]
    measured = [s for s in decode if s.startswith(("dgx", "hgx", "gb", "gh", "wormhole", "mi300x"))]
    assert all(decode[s]["median"] <= 0.20 for s in measured if decode[s]["n"] >= 10)
    assert all(s["median"] <= 0.30 for s in decode.values() if s["n"] > 20)
    assert decode["mi300x-node"]["p90"] <= 0.35


def test_a_library_measured_by_one_source_widens_the_band():
    """As kernels and software do that rest on one."""
    several, one = (band_of(load_system(name, [], VOCABULARY)) for name in ("dgx-h100", "a3-megagpu-8g-4-nodes"))
    assert "rests on one source" not in several.basis
    assert "nccl-nvswitch3-tcpxo rests on one source" in one.basis
    assert one.p90 >= several.p90
