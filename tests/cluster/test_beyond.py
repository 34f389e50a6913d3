"""A run says where its calls lie outside of what its library's constants were measured with."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.beyond import measured_range, notes_beyond
from cluster.experiment import run_experiment
from cluster.records import Collective
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment, load_system
from topology import build_topology


def notes(name, ranks, size_bytes, op="all_reduce", overrides=()):
    """Return the notes of one call."""
    system = load_system(name, overrides, VOCABULARY)
    call = Collective(op, "auto", "g", tuple(ranks), 0, (size_bytes,), np.dtype(np.int8))
    return notes_beyond(system.name, system.communication, build_topology(system), [call, "no call"])


def test_calls_within_are_not_noted():
    """Ranks, nodes and sizes of measured rows."""
    assert notes("dgx-h100", range(8), 1 << 20) == ()
    assert notes("dgx-h100-4-nodes", range(16), 1 << 20) == ()


@pytest.mark.parametrize(
    ("name", "ranks", "size_bytes", "op", "says"),
    [
        ("dgx-h100", range(8), 1 << 40, "all_reduce", "calls of 1 TiB, measured were"),
        ("dgx-h100", range(8), 1 << 38, "all_gather", "calls of 2 TiB, measured were"),
        ("dgx-superpod-h100", range(256), 1 << 20, "all_reduce", "calls of 256 ranks, measured were 16 ranks to"),
        ("dgx-superpod-h100", range(0, 256, 8), 1 << 20, "all_reduce", "calls of 32 nodes, measured were 2 nodes to"),
        ("blackhole-galaxy-ring", range(8), 1 << 20, "all_reduce", "no measured call stands behind"),
    ],
)
def test_what_lies_outside_is_said(name, ranks, size_bytes, op, says):
    """Which and how far."""
    [note] = notes(name, ranks, size_bytes, op)
    assert note.startswith(f"{name}: ")
    assert says in note


def test_ideal_and_own_libraries_have_no_range():
    """Nothing was measured of them, and nothing is claimed."""
    assert notes("dgx-h100", range(8), 1 << 40, overrides=["communication=ideal"]) == ()
    assert measured_range("mine") is None


def test_a_run_says_so():
    """In its result's notes."""
    texts = ["system=blackhole-quietbox", "model=llama-3.2-1b", "parallel={tp: 2}", "numerics=shapes"]
    workload = {"kind": "decode", "batch": 1, "prompt_tokens": 8, "new_tokens": 2}
    given = dict(text.split("=", 1) for text in texts) | {"parallel": {"tp": 2}, "workload": workload}
    result = run_experiment(load_experiment(given, [], VOCABULARY))
    assert any("no measured call stands behind" in note for note in result.notes)
