"""Rows are predicted by the ordinary engine, once each, or skipped with a reason."""

import json

import pytest

from cluster.bench import bench
from cluster.cli import main
from cluster.validation import validate, validate_rows
from cluster.validation.rows import CollectiveRow
from cluster.vocabulary import VOCABULARY
from configs.loader import load_system
from tests.cluster.validation.test_rows import HEADER, ROW, write


def row(**changed):
    cells = {
        "id": "a-1", "system": "H100-80GB SXM5", "topology": "8-GPU HGX", "n_chips": 8, "n_nodes": 1,
        "collective": "all_reduce", "algorithm_or_note": "", "dtype": "fp32", "message_bytes": 2**20,
        "message_convention": "nccl: per-rank buffer bytes (in=out)", "time_us": 100.0,
    }  # fmt: skip
    return CollectiveRow(**cells | changed)


def test_the_prediction_is_that_of_bench():
    prediction = validate_rows([row()], n_workers=1).predictions[0]
    (expected,) = bench(load_system("dgx-h100", [], VOCABULARY), "all_reduce", sizes_bytes=[2**20], numerics="shapes")
    assert prediction.predicted == expected.time_s
    assert prediction.error == pytest.approx(abs(expected.time_s * 1e6 - 100) / 100)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"time_us": None}, "no time"),
        ({"message_bytes": None}, "no message size"),
        ({"system": "abacus"}, "no catalogue system"),
        ({"message_convention": "tokens"}, "convention"),
        ({"collective": "gossip"}, "not a collective"),
    ],
)
def test_what_cannot_be_predicted_says_why(changed, reason):
    validation = validate_rows([row(**changed)])
    assert not validation.predictions
    assert reason in validation.skipped[0].reason
    document = validation.to_json()
    assert (document["n"], document["skipped"], document["median_abs_error"]) == (0, 1, None)


def test_processes_change_nothing(tmp_path):
    path = write(tmp_path, HEADER + ROW + ROW.replace("a-1", "a-2").replace("H100-80GB", "H200-141GB"))
    alone, together = validate([path], n_workers=1), validate([path], n_workers=2)
    assert alone == together


def test_the_command_writes_json_picture_and_rows(tmp_path, capsys):
    path, svg, csv = write(tmp_path, HEADER + ROW), tmp_path / "p.svg", tmp_path / "p.csv"
    assert main(["validate", str(path), "--json", "--svg", str(svg), "--csv", str(csv)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["n"], document["skipped"]) == (1, 0)
    assert document["groups"][0]["worst"]["id"] == "a-1"
    assert svg.read_text().startswith("<svg")
    assert csv.read_text().splitlines()[1].startswith("a-1,collective,")
    assert main(["validate", str(path)]) == 0
    assert "1 rows" in capsys.readouterr().out
