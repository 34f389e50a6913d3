"""`chipmesh import`, and the options of `chipmesh topo` that write files."""

import json
from pathlib import Path

import pytest

from cluster.cli import main
from tests.topology.importers import files


def command(capsys: pytest.CaptureFixture[str], *tokens: str, code: int = 0) -> tuple[str, str]:
    """Run a command; return what it printed."""
    assert main(tokens) == code
    return capsys.readouterr()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file to import: GPUs behind NVSwitches."""
    path = tmp_path / "a100.xml"
    path.write_text(files.nvswitch_xml())
    return path


def test_import_prints_a_system_file_that_topo_and_bench_take(capsys, file, tmp_path) -> None:
    """The text on stdout is the system; its JSON has the keys and the values of `topo --json`."""
    text, err = command(capsys, "import", str(file), "--chip", "h100-sxm", "--link-latency", "700ns")
    assert err == ""
    system = tmp_path / "a100.yaml"
    system.write_text(text)
    imported = json.loads(
        command(capsys, "import", str(file), "--chip", "h100-sxm", "--link-latency", "700ns", "--json")[0]
    )
    assert imported == json.loads(command(capsys, "topo", str(system), "--json")[0])
    assert (imported["n_chips"], imported["n_switches"], imported["n_links"]) == (8, 6, 96)
    assert imported["links"][0] == {
        "src": "chip0", "dst": "switch0", "count": 2, "bandwidth_bytes_per_s": 50e9, "latency_s": pytest.approx(7e-7),
    }  # fmt: skip
    rows = json.loads(command(capsys, "bench", str(system), "--op", "all_reduce", "--sizes", "64KiB", "--json")[0])[
        "rows"
    ]
    assert all(row["wrong"] == 0 for row in rows)


def test_import_writes_the_file_and_says_what_it_assumed(capsys, file, tmp_path) -> None:
    """--out writes what would be printed; notes go to stderr, so that stdout is one document."""
    out = tmp_path / "system.yaml"
    text, _ = command(capsys, "import", str(file))
    document, err = command(capsys, "import", str(file), "--out", str(out), "--json")
    assert out.read_text() == text
    assert json.loads(document)["system"] == "a100"
    assert "latency of 48 edges is assumed, 1us (--link-latency)" in err
    shown, _ = command(capsys, "import", str(file), "--out", str(out))
    assert "6 switches, 96 physical links" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "xml"], "--format: 'xml' is not a format; accepted: auto, nccl, rccl, nvidia-smi"),
        (["--format", "tt-umd"], "a100.xml"),
        (["--chip", "h1000"], "chip: 'h1000' is not in the catalogue of chips"),
        (["--chip", "./none.yaml"], "none.yaml: no such file"),
        (["--link-latency", "700"], "--link-latency: '700' has no unit"),
        (["--link-bandwidth", "1GB"], "--link-bandwidth: '1GB' has the unit 'GB'"),
        (["--out", "no/folder/x.yaml"], "--out: no/folder/x.yaml: its folder does not exist"),
    ],
)
def test_bad_options_of_import(capsys, file, options, message) -> None:
    """Exit code 2, and a message that names the option."""
    out, err = command(capsys, "import", str(file), *options, code=2)
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_a_hostile_file_has_exit_code_2(capsys, tmp_path) -> None:
    """Entities are refused with the line."""
    path = tmp_path / "x.xml"
    path.write_text('<!DOCTYPE system [<!ENTITY a "b">]>\n<system>&a;</system>\n')
    _, err = command(capsys, "import", str(path), "--json", code=2)
    assert err == f"chipmesh: {path}:1: a document type; accepted: plain elements, without a DTD or entities\n"


def test_export_and_import_give_the_same_system(capsys, tmp_path) -> None:
    """A torus comes back from both formats with the same links."""
    before = json.loads(command(capsys, "topo", "wormhole-galaxy-torus", "--json")[0])
    for name, keys in (
        ("torus.json", ("dims", "n_links", "links")),
        ("torus.yml", ("dims", "n_chips", "diameter_hops")),
    ):
        target = tmp_path / name
        command(capsys, "topo", "wormhole-galaxy-torus", "--export", str(target))
        after = json.loads(command(capsys, "import", str(target), "--json")[0])
        assert after["kind"] == before["kind"]
        for key in set(keys) - {"links"}:
            assert after[key] == before[key]
        ends = [{(link["src"], link["dst"]) for link in found["links"]} for found in (before, after)]
        assert len(ends[0]) == len(ends[1])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (
            ["wormhole-galaxy", "--export", "x.yml"],
            "an ASTRA-sim network file cannot say this topology: axis x is neither",
        ),
        (["wormhole-galaxy", "--export", "x.txt"], "--export: x.txt; accepted: a file that ends in .json (networkx"),
        (["wormhole-galaxy", "--export", "no/x.json"], "--export: no/x.json: its folder does not exist"),
        (["wormhole-galaxy", "--svg", "no/x.svg"], "--svg: no/x.svg: its folder does not exist"),
        (
            ["wormhole-galaxy", "--run", "x.json"],
            "--run: colours the links of a picture; accepted: together with --svg",
        ),
        (["wormhole-galaxy", "--svg", "x.svg", "--run", "none.json"], "--run: none.json: no such file"),
    ],
)
def test_bad_options_of_topo(capsys, monkeypatch, tmp_path, tokens, message) -> None:
    """Exit code 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    _, err = command(capsys, "topo", *tokens, code=2)
    assert message in err
    assert not list(tmp_path.iterdir())


RUN = {"links": [{"name": "chip0→chip1", "utilisation": 0.25}]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "links: nothing; accepted: what `chipmesh run --json` prints"),
        (json.dumps({"links": [{"name": "chip0→chip1", "utilisation": "hot"}]}), "links: [{'name'"),
        (
            json.dumps({"links": [{"name": "chip0→chip9", "utilisation": 0.5}]}),
            "'chip0→chip9' is no link of wormhole-galaxy",
        ),
    ],
)
def test_a_run_that_is_none(capsys, tmp_path, document, message) -> None:
    """What does not hold the links of a run of this system is refused."""
    run = tmp_path / "run.json"
    run.write_text(document)
    target = tmp_path / "x.svg"
    _, err = command(capsys, "topo", "wormhole-galaxy", "--svg", str(target), "--run", str(run), code=2)
    assert message in err
    assert not target.exists()


def test_a_run_colours_the_picture(capsys, tmp_path) -> None:
    """A run's folder names all links that it has used, its JSON document the busiest ten; both can be given."""
    experiment = tmp_path / "e.yaml"
    experiment.write_text(
        "system: wormhole-galaxy\nmodel: smollm2-135m\nparallel: {tp: 4, pp: 8}\nnumerics: shapes\n"
        "workload: {kind: decode, prompt_tokens: 4, new_tokens: 2}\n"
    )
    out = tmp_path / "out"
    document, _ = command(capsys, "run", str(experiment), "--out", str(out), "--json")
    (tmp_path / "run.json").write_text(document)
    links = json.loads((out / "links.json").read_text())["links"]
    assert links[:10] == json.loads(document)["links"]
    assert len(links) > 10
    for run, coloured in ((out, 40), (tmp_path / "run.json", 5)):
        target = tmp_path / "x.svg"
        command(capsys, "topo", "wormhole-galaxy", "--svg", str(target), "--run", str(run))
        assert target.read_text().count('class="hot"') >= coloured


def test_a_picture_of_a_run_s_links_is_the_same_each_time(capsys, tmp_path) -> None:
    """The same input gives the same bytes."""
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    texts = set()
    for name in ("a.svg", "b.svg"):
        command(capsys, "topo", "wormhole-galaxy", "--svg", str(tmp_path / name), "--run", str(tmp_path / "run.json"))
        texts.add((tmp_path / name).read_text())
    assert len(texts) == 1
