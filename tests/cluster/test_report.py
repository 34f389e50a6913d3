"""Reports without a browser: what is on the page, what is refused, nothing of a name is taken for markup."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.cli import main
from cluster.experiment import run_experiment
from cluster.report.origins import FORMATS, sources, spec_tree
from cluster.report.points import pareto_front
from cluster.report.run_page import run_page
from cluster.report.stored import read_stored
from cluster.report.timeline import _passed
from cluster.run_store import save_run
from cluster.sweeps import sweep
from cluster.vocabulary import VOCABULARY
from configs.fields import QUANTITIES
from configs.loader import load_experiment
from configs.plain import to_plain
from tests.cluster.stored import IMAGE, SCRIPT, store_run, store_sweep


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return store_run(tmp_path_factory.mktemp("stored"), "--set", "micro_batches=2")


@pytest.fixture(scope="module")
def sweep_folder(tmp_path_factory):
    return store_sweep(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def galaxy(tmp_path_factory):
    """The stored galaxy-smollm2, without values."""
    folder = tmp_path_factory.mktemp("galaxy")
    spec = load_experiment("galaxy-smollm2", ["numerics=shapes", "workload.new_tokens=3"], VOCABULARY)
    save_run(run_experiment(spec), folder)
    return read_stored(folder)


class Outline(HTMLParser):
    """The elements of a page, and its texts outside of scripts and styles."""

    def __init__(self):
        super().__init__()
        self.elements, self.texts, self.inside = [], [], ""

    def handle_starttag(self, tag, attrs):
        """Note an element."""
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, _tag):
        """Note that a script or style has ended."""
        self.inside = ""

    def handle_data(self, data):
        """Note a text."""
        if self.inside not in ("script", "style"):
            self.texts.append(data)


def page_of(folder):
    """Return the outline of a folder's report, and the data in it."""
    out = folder / "report.html"
    assert main(["report", str(folder)]) == 0
    text = out.read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(text)
    packed = re.findall(r'<script type="text/plain" id="packed[a-z-]*">([^<]*)</script>', text)
    now, later = (json.loads(zlib.decompress(base64.b64decode(part))) for part in packed)
    return outline, now | {"specs": later}


@pytest.fixture(scope="module")
def pages(run_folder, sweep_folder):
    """The outline and the data of both pages."""
    return {"run": page_of(run_folder), "sweep": page_of(sweep_folder)}


def test_the_page_of_a_run(pages, run_folder):
    """It has all sections, and a place for every figure."""
    outline, data = pages["run"]
    sections = [attrs["id"] for tag, attrs in outline.elements if tag == "section"]
    assert sections == ["overview", "timeline", "links", "times", "roofline", "memory", "spec", "sources"]
    places = {attrs["data-figure"] for _, attrs in outline.elements if "data-figure" in attrs}
    assert places == set(data["figures"])
    assert {"beside", "chip 0", "chip 5"} <= {row["label"] for row in data["timeline"]["rows"]}
    rows = sum(row["n"] for row in data["timeline"]["rows"])
    assert rows == len(data["timeline"]["gap"]) == read_stored(run_folder).operations.num_rows


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_names_are_words(pages, kind):
    """Markup in names is shown as it is written; nothing is loaded from elsewhere; only our own scripts are there."""
    outline, _ = pages[kind]
    words = " ".join(outline.texts)
    assert SCRIPT in words
    assert IMAGE in words or kind == "sweep"
    assert not [tag for tag, _ in outline.elements if tag in ("img", "iframe", "object", "base")]
    assert not [attrs for _, attrs in outline.elements if {"src", "onerror"} & attrs.keys()]
    links = [attrs["href"] for _, attrs in outline.elements if "href" in attrs]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert [tag for tag, _ in outline.elements].count("script") == 5  # two of data, two of Bokeh, ours


def test_the_page_of_a_sweep(pages):
    """Every point is there, failed ones with their error, and every point that could be loaded has its spec."""
    _, data = pages["sweep"]
    points = data["points"]
    assert len(points["columns"]["point"]) == 24
    failed = [i for i, status in enumerate(points["columns"]["status"]) if status == "failed"]
    assert failed
    assert all(points["columns"]["error"][i] for i in failed)
    assert set(points["fingerprint"]) == set(data["specs"])
    spec = data["specs"][points["fingerprint"][0]]
    assert spec["parallel"]["tp"] == points["columns"]["parallel.tp"][0]
    assert "provenance" not in json.dumps(spec)
    assert set(points["axes"]["parallel.tp"]) == {"system.name", "workload.batch", "parallel.pp"}
    assert not {"parallel.tp", "tp", "parallel.pp"} & set(points["axes"]["n_chips_used"])


def test_json(run_folder, tmp_path, capsys):
    """The document names the file and its size."""
    assert main(["report", str(run_folder), "--out", str(tmp_path / "page.html"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "chipmesh.report.v1"
    assert document["kind"] == "run"
    assert document["size_bytes"] == (tmp_path / "page.html").stat().st_size < 5e6


def test_refusals(run_folder, sweep_folder, tmp_path, capsys):
    """A folder that is no run's or sweep's, lacks a file or has one of another version: exit code 2, and what to do."""

    def refused(*tokens):
        assert main(["report", *map(str, tokens)]) == 2
        return capsys.readouterr().err

    assert "no such folder" in refused(tmp_path / "none")
    assert "neither result.json nor results.parquet" in refused(tmp_path)
    assert "is a folder" in refused(run_folder, "--out", tmp_path)
    assert "its folder does not exist" in refused(run_folder, "--out", tmp_path / "no" / "page.html")
    old = tmp_path / "old"
    old.mkdir()
    (old / "result.json").write_text('{"schema": "chipmesh.run.v0"}')
    assert "schema: 'chipmesh.run.v0'" in refused(old)
    (old / "result.json").write_text("{")
    assert "is not JSON" in refused(old)
    for path in run_folder.iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    (old / "kernels.parquet").write_bytes((sweep_folder / "results.parquet").read_bytes())
    assert "kernels.parquet: schema: ''" in refused(old)
    (old / "loads.parquet").unlink()
    (old / "kernels.parquet").write_bytes((run_folder / "kernels.parquet").read_bytes())
    assert "loads.parquet: no such file" in refused(old)
    (old / "loads.parquet").write_text("none")
    assert "is not a Parquet file" in refused(old)


def test_a_sweep_without_specs_says_what_to_do(sweep_folder, tmp_path, capsys):
    """Sweeps of older versions have none; the same sweep command writes them."""
    (tmp_path / "results.parquet").write_bytes((sweep_folder / "results.parquet").read_bytes())
    assert main(["report", str(tmp_path)]) == 2
    assert "run the sweep again" in capsys.readouterr().err


def test_roofline_marks_are_where_the_formula_puts_them(galaxy):
    """Every kernel with arithmetic is on the roofline once per tier; none is above a roof."""
    page = run_page(galaxy)
    source = page.figures["roofline0"].select_one({"name": "roofline0-source"}).data
    kernels = [row for row in galaxy.kernels.to_pylist() if row["flops"] and row["duration_ps"]]
    assert len(source["x"]) == sum(sum(size > 0 for size in row["moved_bytes"]) for row in kernels)
    chip = galaxy.spec["system"]["chip"]
    peak, bandwidth = max(chip["peak_flops"].values()), chip["memory"][1]["bandwidth_bytes_per_s"]
    for x, y, tier in zip(source["x"], source["y"], source["tier"], strict=True):
        assert y <= peak * 1.001
        assert tier == "sram" or y <= x * bandwidth * 1.01  # durations are whole picoseconds
    moves = [row for row in galaxy.kernels.to_pylist() if not row["flops"] and row["duration_ps"]]
    assert len(page.words["roofs"][0].moves) == len(moves)


def test_layers_add_up(galaxy):
    """The bars of the layers are the accounts of the layers."""
    page = run_page(galaxy)
    unit = {"ps": 1e-12, "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}
    figure = page.figures["layers"]
    size = unit[figure.yaxis.axis_label.split("(")[1].rstrip(")")]
    bars = [r.data_source.data for r in figure.renderers]
    drawn = sum(top - bottom for data in bars for top, bottom in zip(data["top"], data["bottom"], strict=True))
    told = sum(row["total_s"] for row in galaxy.result["operations"] if row["layer"] is not None)
    assert drawn * size == pytest.approx(told)


def test_memory_bars_end_at_the_capacity(galaxy):
    """Weights, KV cache and what is free add up to the capacity of every chip."""
    page = run_page(galaxy)
    free = page.figures["memory0"].renderers[-1].data_source.data
    capacity = galaxy.result["memory"]["capacity_bytes"]
    assert free["top"] == pytest.approx([capacity / 2**20] * 32)
    assert "chip 2" in page.words["memories"][0]


def test_sources_have_values():
    """Every figure of known origin of a catalogue experiment shows its value and who says so."""
    rows = sources(to_plain(load_experiment("dgx-h100-4-nodes-deepseek-v3", (), VOCABULARY)))
    assert len(rows) > 10
    assert all(row["value"] and row["value"] != "–" and row["source"] for row in rows)
    assert {row["confidence"] for row in rows} <= {"vendor", "measured", "secondary", "estimate"}


def test_every_unit_has_a_format():
    """A quantity that a spec can have is shown with its unit."""
    assert set(FORMATS) == set(QUANTITIES)
    assert all(format_of(1.0).strip("0123456789.") for format_of in FORMATS.values())


def test_the_spec_is_whole():
    """Every value of a spec that is not empty is a line of the tree."""
    plain = to_plain(load_experiment("galaxy-smollm2", (), VOCABULARY))
    lines = json.dumps(spec_tree(plain))
    for words in ("smollm2-135m", "81.92 TFLOPS", "711 ns", "12 GiB", "tp", "Once upon a time"):
        assert words in lines


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1), st.integers(1, 60))
def test_time_passed(intervals, edge):
    """The time that intervals have spent until a moment is the sum of their parts before it."""
    start, length = np.array(intervals).T
    end, edges = start + length, np.array([0.0, edge])
    spent = _passed(start, edges) - _passed(end, edges)
    assert spent[1] == np.sum(np.clip(edge - start, 0, length))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_pareto_front(points):
    """A point is on the front if no other is at least as good in both and better in one; of equals the first is."""
    x, y = np.array([p[0] for p in points], float), np.array([p[1] for p in points], float)
    best = [
        i for i, p in enumerate(points)
        if not any((q[0] >= p[0] and q[1] >= p[1] and q != p) or (q == p and j < i) for j, q in enumerate(points))
    ]  # fmt: skip
    assert sorted(pareto_front(x, y).tolist()) == best


def test_a_sweep_of_failures_has_a_page(tmp_path):
    """Where no point has succeeded, the page shows the errors."""
    points = {"base": "galaxy-smollm2", "list": [{"numerics": "shapes", "parallel.tp": 64}, {"parallel.tp": 65}]}
    sweep(points, out=tmp_path / "failed", n_workers=1).table()
    _, data = page_of(tmp_path / "failed")
    assert data["points"]["front"] == []
    assert all(data["points"]["columns"]["error"])
