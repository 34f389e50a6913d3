"""Sweep files: what points they stand for, and what is refused."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.overrides import parse_override
from workloads.conditions import Condition
from workloads.sweeps import names_of, overrides, read_sweep, spaced

VALUES = st.lists(st.integers(0, 9) | st.sampled_from(["bf16", "1us", "a'b"]), min_size=1, max_size=4)
AXES = st.dictionaries(st.sampled_from(["parallel.tp", "seed", "workload.batch"]), VALUES, max_size=3)
KEY = st.sampled_from(["model", "dtype.kv", "system.topology.dims[0]"])


@given(AXES, st.lists(st.tuples(*[st.integers(0, 99)] * 3), max_size=4), st.lists(st.integers(0, 99), max_size=3))
def test_points_are_the_product(grid, rows, listed):
    """Grid, zip and list, in that order, the last one fastest."""
    beside = dict(
        zip(["model", "dtype.kv", "system.topology.dims[0]"], map(list, zip(*rows, strict=True)), strict=False)
    )
    written = [{"experiments.skew": value} for value in listed]
    if not (grid or beside or written):
        return
    sweep = read_sweep({"base": "x", "grid": grid, "zip": beside, "list": written})
    expected = [
        {**dict(zip(grid, values, strict=True)), **dict(zip(beside, row, strict=True)), **one}
        for values, row, one in itertools.product(
            itertools.product(*grid.values()), list(zip(*beside.values(), strict=True)) or [()], written or [{}]
        )
    ]
    assert list(sweep.points()) == expected
    assert sweep.n_points == len(expected)


@given(
    st.dictionaries(KEY, st.integers() | st.text(st.characters(min_codepoint=32, max_codepoint=126)) | st.booleans())
)
def test_overrides_say_what_the_point_says(point):
    """Every override gives its key its value, the general before the particular."""
    parsed = [parse_override(text) for text in overrides(point)]
    assert sorted((o.keys for o in parsed), key=len) == [o.keys for o in parsed]
    assert {json.dumps(o.value) for o in parsed} == {json.dumps(value) for value in point.values()}


@given(st.sampled_from(["log", "linear", "random"]), st.integers(1, 1000), st.integers(0, 1000), st.integers(1, 50))
def test_spaced_whole_numbers(kind, low, more, n):
    """They are whole, within the ends, each once; the ends are there unless drawn; the same each time."""
    values = spaced(kind, [low, low + more], n)
    assert all(isinstance(value, int) and low <= value <= low + more for value in values)
    assert len(set(values)) == len(values) <= n
    assert values == spaced(kind, [low, low + more], n)
    if kind != "random":
        assert list(values) == sorted(values)
        assert values[0] == low
        assert n == 1 or values[-1] == low + more


def test_spaced_with_units():
    """Equal ratios, equal differences; another seed draws others."""
    assert spaced("log", ["1GB/s", "100GB/s"], 3) == ("1GB/s", "10GB/s", "100GB/s")
    assert spaced("linear", [0.5, 1], 3) == (0.5, 0.75, 1.0)
    assert spaced("random", [0, 1.0], 4, 1) != spaced("random", [0, 1.0], 4, 2)


def test_paths_are_from_the_file(tmp_path):
    """A sweep knows its folder."""
    (tmp_path / "s.yaml").write_text("base: ./x.yaml\ngrid: {seed: [1]}\n")
    assert read_sweep(tmp_path / "s.yaml").folder == tmp_path


def test_names():
    """Whole keys always, last parts where one key alone has them."""
    found = names_of(["parallel.tp", "dtype.weights", "model.weights", "system.topology.dims[0]"])
    assert found["tp"] == found["parallel.tp"] == "parallel.tp"
    assert "weights" not in found
    assert found["dims[0]"] == "system.topology.dims[0]"


HOLDS = [
    ("tp * pp == n_chips", True),
    ("tp + 2 < pp", False),
    ("2 <= tp <= 4 and not pp == 5", True),
    ("system in ['a', 'b'] or tp == 0", True),
    ("system not in ['a', 'b']", False),
    ("n_chips / pp == 2.0 and n_chips % 3 == 2 and n_chips // 3 == 2", True),
    ("-tp == -2", True),
    ("system.topology.dims[0] == 8", True),
    ("overlap == true or overlap", False),
]
NAMED = {"tp": 2, "pp": 4, "n_chips": 8, "system": "a", "system.topology.dims[0]": 8, "overlap": False}


@pytest.mark.parametrize(("text", "holds"), HOLDS)
def test_conditions(text, holds):
    """They mean what they mean in Python."""
    assert Condition.parse(text).holds(NAMED) is holds


REFUSED = [
    "", "tp =", "tp ** 9999", "f(tp)", "().__class__", "[x for x in y]", "lambda: 1", "tp if pp else 1", "b'x' == tp",
    "tp == 1j", "tp == ...", "tp == None", "(" * 500, "-" * 999 + "1", "x" * 1001, "(tp := 1)", "tp[0:1]", "{1}",
    "f'{tp}'", 3, None,
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text)[:20])
def test_what_is_no_condition(text):
    """Nothing runs, nothing crashes."""
    with pytest.raises(ConfigError, match="accepted"):
        Condition.parse(text)


@pytest.mark.parametrize("text", ["system * 9", "tp / (pp - 4)", "tp < system", "[1] * 9", "not_there == 1", "-system"])
def test_what_cannot_be_told(text):
    """Arithmetic is for numbers."""
    with pytest.raises(ConfigError, match="where '"):
        Condition.parse(text).holds(NAMED)


def sweep_of(**sections):
    """Return a sweep's mapping."""
    return {"base": "b", "grid": {"seed": [1]}} | sections


BAD = [
    ({"grid": {"seed": [1]}}, "base: missing; accepted: an experiment"),
    (sweep_of(base=3), "base: 3 is not an experiment"),
    (sweep_of(gird={}), "'gird' is not a key of a sweep; accepted: base, grid, zip, list, where"),
    ({"base": "b"}, "has no points; accepted: at least one of grid, zip and list"),
    (sweep_of(grid=[1]), "[1] is not a mapping; accepted: dotted keys"),
    (sweep_of(grid={"seed": 3}), "grid.seed: 3 is not an axis; accepted: a list of values, or {log:"),
    (sweep_of(grid={"seed": []}), "an empty list is not an axis"),
    (sweep_of(grid={"a b": [1]}), "'a b' is not a key; accepted: a dotted key"),
    (sweep_of(grid={"seed": {"log": [0, 8], "n": 3}}), "log: [0, 8] begins at or below zero"),
    (sweep_of(grid={"seed": {"log": [8, 1], "n": 3}}), "log: [8, 1]; accepted: [low, high]"),
    (sweep_of(grid={"seed": {"log": [1, 10**400], "n": 3}}), "accepted: [low, high]"),
    (sweep_of(grid={"seed": {"linear": ["1us", "2ms"], "n": 3}}), "the same unit"),
    (sweep_of(grid={"seed": {"linear": [1, 8]}}), "n: nothing is not a number of values"),
    (sweep_of(grid={"seed": {"linear": [1, 8], "n": 10**9}}), "n: 1000000000 is not a number of values"),
    (sweep_of(grid={"seed": {"linear": [1, 8], "n": 3, "seed": 1}}), "is not an axis"),
    (sweep_of(grid={"seed": {"random": [1, 8], "n": 3, "seed": -1}}), "seed: -1 is not a seed"),
    (sweep_of(zip={"a": [1], "b": [1, 2]}), "zip: a has 1, b has 2; accepted: as many values for every key"),
    (sweep_of(zip={"seed": [1]}), "seed is in two of grid, zip and list; accepted: in one"),
    (sweep_of(list=[{}]), "is not a list of points; accepted: mappings of dotted keys to values"),
    (sweep_of(list=[{"a b": 1}]), "'a b' is not a key"),
    (sweep_of(grid={"a": list(range(2000)), "b": list(range(2000))}), "4,000,000 points; accepted: at most 1,000,000"),
    (sweep_of(where=["tpp == 1"]), "where[0]: 'tpp == 1': 'tpp' is not a value of a point; accepted: batch, cp"),
    (sweep_of(where="tp ="), "where[0]: 'tp =' is not a condition"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "words"), BAD)
def test_bad_sweeps(document, words):
    """What is wrong, where, and what is accepted."""
    with pytest.raises(ConfigError) as caught:
        read_sweep(document)
    assert words in str(caught.value)


def test_all_problems_at_once():
    """One message has them all."""
    with pytest.raises(ConfigError) as caught:
        read_sweep({"grid": {"seed": 3}, "where": ["tp ="], "x": 1})
    assert len(caught.value.problems) == 4
