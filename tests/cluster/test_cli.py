"""The command in process: exit codes, one JSON document on stdout, the fields of design section 7, no tracebacks."""

from __future__ import annotations

import json
import math
from importlib.metadata import version

import pytest
import yaml

from cluster.cli import main
from tests.cluster.trace_checker import read

EXPERIMENT = {
    "system": {
        "name": "toy",
        "chip": {
            "name": "toy-chip",
            "peak": {"fp32": "1TFLOPS", "bf16": "1TFLOPS"},
            "memory": [{"name": "dram", "capacity": "1GiB", "bandwidth": "100GB/s"}],
        },
        "topology": {"kind": "mesh", "dims": [4, 2], "link": {"bandwidth": "1GB/s", "latency": "1us"}},
    },
    "model": {
        "name": "tiny",
        "family": "llama",
        "shape": {
            "n_layers": 5, "hidden": 64, "n_heads": 6, "n_kv_heads": 2, "head_dim": 16, "ffn": 96, "vocab": 101,
            "rope_theta": 10000, "rms_eps": 0.00001, "tied_embeddings": True, "max_context": 64,
        },
    },
    "parallel": {"tp": 3, "pp": 2},
    "numerics": "shapes",
    "workload": {"kind": "decode", "batch": 2, "prompt_tokens": 5, "new_tokens": 4},
}  # fmt: skip


@pytest.fixture
def experiment(tmp_path):
    """The path of a small experiment in shapes mode."""
    path = tmp_path / "toy-run.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return str(path)


@pytest.fixture
def document(capsys):
    """Return a function that runs a command and returns the one JSON document on stdout."""

    def run(*tokens):
        code = main([*tokens, "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        assert "Traceback" not in err
        return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    return run


@pytest.fixture
def refused(capsys):
    """Return a function that runs a command, requires exit code 2 and an empty stdout, and returns the message."""

    def run(*tokens, code=2):
        assert main(list(tokens)) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        assert all(line.startswith("chipmesh: ") for line in err.splitlines())
        return err

    return run


RUN_FIELDS = {
    "schema", "fingerprint", "spec", "system", "tokens", "time", "breakdown", "memory", "links", "timeline_sha256",
    "wall",
}  # fmt: skip


def test_version_is_that_of_the_distribution(capsys):
    """What --version prints is what pip knows."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("chipmesh")


def test_bench_refuses_a_picture_that_cannot_be_written_first(refused):
    """The folder of --svg is looked at before anything is computed, here what does not fit this machine."""
    said = refused("bench", "dgx-h100", "--op", "all_reduce", "--sizes", "1TiB", "--svg", "/nowhere/at/all.svg")
    assert "--svg: /nowhere/at/all.svg: its folder cannot be written" in said


def test_run_has_the_promised_fields(document, experiment):
    """Every field that scripts depend on is there."""
    found = document("run", experiment)
    assert set(found) >= RUN_FIELDS
    assert found["system"]["n_chips"] == 8
    assert set(found["tokens"]) >= {"prompt_ids", "output_ids", "text"}
    assert set(found["time"]) >= {"ttft_s", "tpot_s", "total_s", "tokens_per_s", "tokens_per_s_per_user"}
    assert set(found["breakdown"]) >= {
        "compute_s", "memory_s", "communication_s", "exposed_communication_s", "idle_s",
    }  # fmt: skip
    assert set(found["memory"]) >= {"weights_bytes", "kv_bytes", "capacity_bytes"}
    assert set(found["wall"]) >= {"setup_s", "run_s"}
    assert all(set(link) == {"name", "utilisation"} for link in found["links"])
    assert 0 < len(found["links"]) <= 10
    assert len(found["timeline_sha256"]) == 64


def test_run_adds_up(document, experiment):
    """TTFT and three steps are the end of the last token; the breakdown is the total; memory fits."""
    found = document("run", experiment)
    t, b = found["time"], found["breakdown"]
    assert t["ttft_s"] + 3 * t["tpot_s"] == pytest.approx(t["total_s"], rel=1e-6)
    assert t["tokens_per_s"] == pytest.approx(2 / t["tpot_s"])
    assert t["tokens_per_s_per_user"] == pytest.approx(1 / t["tpot_s"])
    parts = b["compute_s"] + b["memory_s"] + b["exposed_communication_s"] + b["idle_s"]
    assert parts == pytest.approx(t["total_s"])
    assert 0 < found["memory"]["weights_bytes"] < found["memory"]["capacity_bytes"] == 2**30
    utilisations = [link["utilisation"] for link in found["links"]]
    assert utilisations == sorted(utilisations, reverse=True)


def test_the_memory_of_the_fullest_chip_by_hand(document, experiment):
    """On one chip the weights are all weights of the model, and the cache 2 rows of 5 + 4 tokens in 5 layers."""
    found = document("run", experiment, "--set", "parallel={tp: 1, pp: 1}")
    attention = 64 * 16 * (6 + 2 + 2) + 6 * 16 * 64
    weights = 101 * 64 + 64 + 5 * (attention + 3 * 64 * 96 + 2 * 64)
    assert found["memory"]["weights_bytes"] == 2 * weights
    assert found["memory"]["kv_bytes"] == 9 * (2 * 5 * 2 * 2 * 16 * 2)


def test_run_is_the_same_each_time(document, experiment):
    """Two runs differ in wall time alone."""
    first, second = (document("run", experiment) for _ in range(2))
    del first["wall"], second["wall"]
    assert first == second


def test_set_changes_spec_fingerprint_and_time(document, experiment):
    """An override is in the spec, and changes fingerprint and timeline."""
    plain = document("run", experiment)
    faster = document("run", experiment, "--set", "system.topology.link.bandwidth=2GB/s", "--set", "workload.batch=3")
    assert faster["spec"]["workload"]["batch"] == 3
    assert faster["fingerprint"] != plain["fingerprint"]
    assert faster["timeline_sha256"] != plain["timeline_sha256"]


def test_contention_can_be_switched_off(document, experiment):
    """Alone on its links no transfer of this run is slower."""
    fluid = document("run", experiment)["time"]["total_s"]
    alone = document("run", experiment, "--set", "contention=none")["time"]["total_s"]
    assert alone <= fluid


def test_one_new_token_has_no_tpot(document, experiment):
    """With a single token TPOT is null and the rates are those of the whole run."""
    found = document("run", experiment, "--set", "workload.new_tokens=1")
    assert found["time"]["tpot_s"] is None
    assert found["time"]["tokens_per_s"] == pytest.approx(2 / found["time"]["total_s"])


def test_run_writes_its_result(document, experiment, tmp_path):
    """`--out` makes the folder and writes the same document."""
    out = tmp_path / "a" / "b"
    found = document("run", experiment, "--out", str(out))
    stored = json.loads((out / "result.json").read_text())
    assert stored["timeline_sha256"] == found["timeline_sha256"]


def test_run_for_people(capsys, experiment):
    """Without --json a summary is printed."""
    assert main(["run", experiment]) == 0
    out = capsys.readouterr().out
    for word in ("TTFT", "TPOT", "tokens/s", "fullest chip", "busiest links", "exposed communication"):
        assert word in out


BENCH_FIELDS = {
    "op", "algorithm", "n_ranks", "size_bytes", "time_s", "algbw_bytes_per_s", "busbw_bytes_per_s", "wrong",
}  # fmt: skip


def test_bench_rows(document):
    """Rows have the promised fields; sizes are those asked for; nothing is wrong."""
    found = document("bench", "wormhole-t3000", "--op", "all_reduce", "--sizes", "1KiB, 64KiB")
    assert [row["size_bytes"] for row in found["rows"]] == [1024, 65536]
    for row in found["rows"]:
        assert set(row) >= BENCH_FIELDS
        assert (row["op"], row["n_ranks"], row["wrong"]) == ("all_reduce", 8, 0)
        assert math.isclose(row["busbw_bytes_per_s"], row["algbw_bytes_per_s"] * 2 * 7 / 8)


def test_bench_by_hand(document):
    """Two chips of an n300 exchange halves of 1 MiB twice: 2 (711 ns + 2^19 B / 25 GB/s)."""
    found = document(
        "bench",
        "wormhole-n300",
        "--op",
        "all_reduce",
        "--sizes",
        "1MiB",
        "--ranks",
        "2",
        "--numerics",
        "shapes",
        "--algorithm",
        "ring",
    )
    [row] = found["rows"]
    assert row["time_s"] == pytest.approx(2 * (711e-9 + 2**19 / 25e9), rel=1e-6)
    assert row["wrong"] is None


def test_topo(document):
    """A 4 x 2 mesh of two links an edge by closed formulas."""
    found = document("topo", "wormhole-t3000")
    assert set(found) >= {"n_chips", "n_switches", "n_links", "diameter_hops", "bisection_bytes_per_s", "links"}
    assert (found["n_chips"], found["n_switches"], found["n_links"], found["diameter_hops"]) == (8, 0, 20, 4)
    assert found["bisection_bytes_per_s"] == 2 * 25e9
    assert len(found["links"]) == 10
    for link in found["links"]:
        assert set(link) >= {"src", "dst", "bandwidth_bytes_per_s", "latency_s"}
        assert link["latency_s"] == pytest.approx(711e-9)


def test_topo_with_faults(document, capsys):
    """Dead links and chips are left out and named; so are the chips that are cut off."""
    faults = ["--set", "faults={links: [[0, 1], chip0-chip2, {link: chip3-chip5, count: 1}], chips: [4]}"]
    found = document("topo", "wormhole-t3000", *faults)
    assert (found["n_chips"], found["n_links"], found["diameter_hops"]) == (7, 20 - 4 - 6 - 1, None)
    assert "chip4" not in {end for link in found["links"] for end in (link["src"], link["dst"])}
    assert found["faults"]["chips"] == ["chip4"]
    assert found["faults"]["links"][2] == {"link": "chip3-chip5", "count": 1}
    assert found["faults"]["n_cut_off_pairs"] == 6
    assert found["faults"]["islands"] == [["chip0"], ["chip1", "chip2", "chip3", "chip5", "chip6", "chip7"]]
    assert main(["topo", "wormhole-t3000", *faults]) == 0
    assert "6 pairs of chips are cut off from each other: chip0; chip1, chip2" in capsys.readouterr().out


def test_a_run_with_a_dead_chip(document, experiment):
    """Another chip takes its place: the same tokens' worth of work, on 7 chips."""
    found = document("run", experiment, "--set", "system.faults.chips=[1]")
    assert (found["system"]["n_chips"], found["system"]["n_chips_used"]) == (7, 6)
    assert found["memory"] == document("run", experiment)["memory"]


def test_list(document):
    """All kinds together hold what each of them lists, by name."""
    every = document("list")
    assert set(every) == {"chips", "systems", "models", "experiments", "algorithms"}
    for kind, entries in every.items():
        assert document("list", kind) == {kind: entries}
        names = [entry["name"] for entry in entries]
        assert len(names) == len(set(names)) > 0


@pytest.mark.parametrize("tokens", [["list"], ["topo", "dgx-h100"], ["bench", "wormhole-n300", "--op", "broadcast"]])
def test_for_people(capsys, tokens):
    """Without --json something readable is printed."""
    extra = ["--sizes", "1KiB"] if tokens[0] == "bench" else []
    assert main([*tokens, *extra]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 2


BAD = [
    (["nope"], "nope"),
    (["run", "galaxy-smolm2"], "galaxy-smollm2"),
    (["run", "/nowhere/x.yaml"], "no such file"),
    (["bench", "wormhole-n300"], "--op"),
    (["bench", "wormhole-n30", "--op", "all_reduce"], "did you mean 'wormhole-n300'"),
    (["bench", "wormhole-n300", "--op", "all_reduc"], "did you mean 'all_reduce'"),
    (["bench", "wormhole-n300", "--op", "all_reduce", "--algorithm", "rang"], "ring"),
    (["bench", "wormhole-n300", "--op", "all_reduce", "--ranks", "3"], "accepted: 2 to 2"),
    (["bench", "wormhole-n300", "--op", "all_reduce", "--ranks", "two"], "two"),
    (["bench", "wormhole-n300", "--op", "all_reduce", "--sizes", "1024"], "has no unit"),
    (["bench", "wormhole-n300", "--op", "all_reduce", "--sizes", "1KiB,,2KiB"], "is not a size"),
    (["bench", "wormhole-n300", "--op", "all_reduce", "--sizes", "1B"], "at least 4 B"),
    (["bench", "wormhole-n300", "--op", "all_reduce", "--numerics", "half"], "shapes"),
    (["topo", "dgx-h10"], "dgx-h100"),
    (["topo"], "SYSTEM"),
    (["list", "nothing"], "algorithms"),
    (["topo", "wormhole-n300", "--set", "topology.link.bandwidth=-1GB/s"], "is negative"),
]


@pytest.mark.parametrize(
    ("tokens", "message"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input(refused, tokens, message):
    """Bad input is exit code 2, with a message that has the way out."""
    assert message in refused(*tokens)
    assert message in refused(*tokens, "--json")


BAD_SETTINGS = [
    ("parallel.tp=9", "18 chips; accepted: at most 8"),
    ("system.chip.memory[0].capacity=10KiB", "are needed, dram holds 10 KiB"),
    ("dtype.activations=fp8", "activations"),
    ("workload.prompt=hello", "prompt"),
    ("numerics=real", "numerics=shapes"),
    ("collectives.all_reduce=tree", "tree"),
    ("system.topology.link.latency=1", "has no unit"),
    ("nonsense=1", "nonsense"),
]


@pytest.mark.parametrize(("setting", "message"), BAD_SETTINGS, ids=[s for s, _ in BAD_SETTINGS])
def test_bad_experiments(refused, experiment, setting, message):
    """An experiment that cannot work is refused before it runs."""
    assert message in refused("run", experiment, "--set", setting)


def test_an_unknown_peak_is_bad_input(refused, tmp_path):
    """A chip without a peak for the dtype is refused with the key to set."""
    spec = json.loads(json.dumps(EXPERIMENT))
    del spec["system"]["chip"]["peak"]["bf16"]
    path = tmp_path / "no-peak.yaml"
    path.write_text(yaml.safe_dump(spec))
    assert "peak.bf16" in refused("run", str(path))


def test_logits_need_values(refused, experiment, tmp_path):
    """`--save-logits` in shapes mode, or into a folder that is not there, is refused."""
    assert "--save-logits" in refused("run", experiment, "--save-logits", str(tmp_path / "l.npz"))
    assert "--save-logits" in refused("run", experiment, "--save-logits", str(tmp_path / "no" / "l.npz"))


@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_a_trace_is_written(document, experiment, tmp_path, name):
    """`--trace` writes the run's timeline, and says whose it is; the same bytes each time."""
    runs = [document("run", experiment, "--trace", str(tmp_path / f"{i}-{name}")) for i in range(2)]
    found = read(tmp_path / f"0-{name}")
    assert (found.about["timeline_sha256"], found.about["fingerprint"]) == (
        runs[0]["timeline_sha256"], runs[0]["fingerprint"],
    )  # fmt: skip
    assert {s.process for s in found.slices} == {f"chip {n}" for n in range(6)}
    assert len(found.flows) == 3 * 4 + 3 * 3
    assert {link["name"] for link in runs[0]["links"]} <= set(found.counters)
    assert {s.args.get("layer") for s in found.slices} == {None, 0, 1, 2, 3, 4}
    assert (tmp_path / f"0-{name}").read_bytes() == (tmp_path / f"1-{name}").read_bytes()
