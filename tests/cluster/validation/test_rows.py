"""Measured rows are read strictly, and no row is special to the code."""

import re
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.validation import read_rows
from cluster.validation.rows import CollectiveRow, DecodeRow
from configs.errors import ConfigError

PACKAGE = Path(__file__).parents[3] / "cluster" / "validation"
HEADER = (
    "id,system,topology,n_chips,n_nodes,collective,algorithm_or_note,dtype,message_bytes,message_convention,time_us\n"
)
ROW = "a-1,H100-80GB SXM5,8-GPU HGX,8,1,all_reduce,,fp32,1024,nccl: per-rank buffer bytes,12.5\n"


def write(folder, text):
    path = folder / "measured.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_catalogue_has_both_kinds():
    kinds = [type(row) for row in read_rows()]
    assert kinds.count(CollectiveRow) > 1000
    assert kinds.count(DecodeRow) > 1000


def test_columns_may_stand_in_any_order_beside_others(tmp_path):
    cells = dict(zip(HEADER.strip().split(","), ROW.strip().split(","), strict=True)) | {"mood": "fine"}
    names = sorted(cells)
    rows = read_rows([write(tmp_path, "﻿" + ",".join(names) + "\n" + ",".join(cells[n] for n in names) + "\n")])
    assert [(row.id, row.n_nodes, row.time_us) for row in rows] == [("a-1", 1, 12.5)]


def test_all_problems_come_at_once_with_their_lines(tmp_path):
    bad = "a-2,s,t,eight,1,all_reduce,,fp32,-4,c,nan\n"
    path = write(tmp_path, HEADER + ROW + bad + "a,b\n" + ROW)
    with pytest.raises(ConfigError) as caught:
        read_rows([path])
    assert [problem.removeprefix(f"{path}: ") for problem in caught.value.problems] == [
        "line 3: n_chips: 'eight' is not a whole number > 0",
        "line 3: message_bytes: '-4' is not a whole number > 0",
        "line 3: time_us: 'nan' is not a number > 0",
        "line 4: has 2 cells; accepted: 11, as the header",
        "line 5: id: 'a-1' stands in line 2 already",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: no column is known; accepted: cells between commas, with columns id, system"),
        (HEADER.replace(",", ";") + ROW, "no column is known"),
        (HEADER.replace("id,", "", 1) + ROW, "line 1: id: column missing"),
        (HEADER, "has no rows"),
        (HEADER.replace("dtype", "dtyp") + ROW, "line 1: dtype: column missing; did you mean 'dtyp'?"),
        (HEADER.replace("dtype", "system") + ROW, "line 1: system: column stands there twice"),
        (HEADER + '"a', "unexpected end of data"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path, capsys, text, says):
    assert main(["validate", str(write(tmp_path, text))]) == 2
    assert says in capsys.readouterr().err


def test_no_row_or_group_of_rows_is_named_in_the_code():
    code = "\n".join(path.read_text() for path in PACKAGE.glob("*.py"))
    prefixes = {row.id.rpartition("-")[0] for row in read_rows()}
    sources = {row.source for row in read_rows() if row.source}
    words = set(re.findall(r"""["'^(|]([a-z0-9_]+)(?:-\d+)?-?["'$)|]""", code))
    assert not words & (prefixes - {"op", "vllm", "sglang", "tt"})  # words of their own
    assert not set(re.findall(r"\b[a-z]\w*-\d{3,4}\b", code)) & {row.id for row in read_rows()}
    assert not [source for source in sources if source in code]
    assert ".id" not in (PACKAGE / "collective_cases.py").read_text() + (PACKAGE / "decode_cases.py").read_text()
    assert ".source" not in (PACKAGE / "collective_cases.py").read_text()


def test_tables_of_others_keep_what_is_not_stated_in_their_way(tmp_path):
    """Blank lines, blanks around names, words for a missing number, whole numbers as 8.0."""
    row = ROW.replace(",8,1,", ",8.0,n/a,").replace(",12.5", ",-")
    text = "\n\n" + HEADER.replace(",", ", ") + "\n" + row + "," * 10 + "\n"
    assert [(row.n_chips, row.n_nodes, row.time_us) for row in read_rows([write(tmp_path, text)])] == [(8, None, None)]
