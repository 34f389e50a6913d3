"""Two-dimensional weight-stationary tensor parallelism: what a layer sends falls as 1/√n (arXiv 2211.05102, 3.2.2)."""

from __future__ import annotations

from math import isqrt, sqrt

import pytest
from attrs import evolve

from cluster import launch
from cluster.experiment import run_experiment
from cluster.records import Collective
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment, load_model
from configs.spec.dtype import DtypeSpec
from tests.cluster.machines import CHIP, switch
from workloads.decode import DecodeJob, decode
from workloads.layout import Layout

RINGS = {"all_reduce": "ring", "all_gather": "ring", "reduce_scatter": "ring"}
SENT = {"all_gather": lambda k: k - 1, "reduce_scatter": lambda k: (k - 1) / k, "all_reduce": lambda k: 2 * (k - 1) / k}
"""Of its input's bytes, what a chip sends in an operation of k chips."""
N_TOKENS = 1024
BANDWIDTH = 1e12
WIDE = evolve(CHIP, memory=(evolve(CHIP.memory[1], capacity_bytes=2**45),))


def shape_of(n_layers):
    """Return PaLM 540B with heads and vocabulary for up to 1,024 chips, a key and a value per head."""
    model = load_model("palm-540b", (), VOCABULARY)
    sizes = {"n_layers": n_layers, "n_heads": 1024, "n_kv_heads": 1024, "head_dim": 18, "vocab": 1024}
    return evolve(model, shape=evolve(model.shape, **sizes))


def layer(n, grid):
    """Return what one layer adds: bytes that chip 0 sends, and the seconds that it communicates."""
    found = []
    for n_layers in (1, 2):
        job = DecodeJob(shape_of(n_layers), Layout(tp=n, tp_grid=grid), DtypeSpec(), (1,) * N_TOKENS, 1)
        machine = evolve(switch(n, BANDWIDTH, 0), chip=WIDE)
        with launch(machine, numerics="shapes", collectives=RINGS) as cluster:
            timeline = cluster.run(decode, job).timeline
        up = next(link for link in timeline.links if link.name.startswith("chip0→"))
        found.append((up.utilisation * BANDWIDTH * timeline.total_ps * 1e-12, timeline.breakdown.communication_s))
    return [after - before for before, after in zip(*found, strict=True)]


def line_bytes(n, x, y):
    """Return what a layer's four collectives send by the closed formula, without (k - 1)/k, and for the norm."""
    shape = shape_of(1).shape
    heads = shape.n_heads * shape.head_dim
    inside = 3 * heads + 2 * shape.ffn + heads + shape.ffn  # q, k, v, gate, up; what o and down take in
    per_token = (y - 1) / y * 2 * shape.hidden / x + (x - 1) / x * inside / y
    limit = 2 * shape.hidden / x + inside / y
    return 2 * N_TOKENS * per_token, 2 * N_TOKENS * limit, 4 * 2 * N_TOKENS * 2 * (n - 1) / n


@pytest.mark.parametrize("n", [16, 64, pytest.param(256, marks=pytest.mark.heavy)])
def test_bytes_of_a_layer(n):
    """Each chip sends the closed formula and takes its time: as 1/√n but for (k - 1)/k, constant in one dimension."""
    x, y = isqrt(n) // 2, isqrt(n) * 2
    sent, limit, sums = line_bytes(n, x, y)
    found, seconds = layer(n, (x, y))
    assert found == pytest.approx(sent + sums, rel=1e-6)
    assert seconds == pytest.approx(found / BANDWIDTH, rel=1e-3)
    assert limit * sqrt(n) == pytest.approx(line_bytes(16, 2, 8)[1] * 4)
    assert sent < limit
    flat, _ = layer(n, None)
    assert flat == pytest.approx(2 * N_TOKENS * 2 * (n - 1) / n * 18432, rel=1e-6)
    assert (found < flat) == (n > 16)


def calls_of(name, *more):
    """Return the bytes that chip 0 sends in a layer of a decode step of PaLM, by operation and ranks."""
    changes = ("workload.new_tokens=2", "workload.prompt_tokens=1", "model.shape.n_layers=4", *more)
    timeline = run_experiment(load_experiment(name, changes, VOCABULARY)).timeline
    sent = {}
    for record, number, at in zip(timeline.chip == 0, timeline.record, timeline.layer, strict=True):
        call = timeline.records[number]
        if record and at == 3 and isinstance(call, Collective):
            key = (call.op, len(call.ranks))
            n_rows = sum(call.table[0][1:]) if call.op == "all_to_all_v" else SENT[call.op](len(call.ranks))
            sent[key] = sent.get(key, 0) + n_rows * call.n_elements * call.dtype.itemsize / 2
    return sent


def test_palm_on_64_tpu_v4():
    """64 tokens in bf16, 4 × 16 chips. By heads: three of four ranks across have one of 48, with a key and a value.

    By rows: q, k and v of a row go to its chip, and come back.
    """
    e, f, dim, n = 18432, 73728, 256, 64
    between = {
        ("all_reduce", 64): 2 * 63 / 64 * n * 2 * 4,
        ("all_gather", 16): 15 / 16 * n * 2 * e / 4,
        ("reduce_scatter", 16): 15 / 16 * n * 2 * e / 4,
    }
    assert calls_of("tpu-v4-palm-540b-2d", "parallel.tp_attention=heads") == between | {
        ("reduce_scatter", 4): 3 * n * 2 * (3 * dim + 2 * f / 64),
        ("all_gather", 4): 3 * n * 2 * (dim + f / 64),
    }
    columns, outs = 50 * dim / 64, 48 * dim / 64
    assert calls_of("tpu-v4-palm-540b-2d") == between | {
        ("reduce_scatter", 4): 3 * n * 2 * (columns + 2 * f / 64),
        ("all_gather", 4): 3 * n * 2 * (outs + f / 64),
        ("all_to_all_v", 64): 63 * 2 * (columns + outs),
    }
    assert calls_of("tpu-v4-palm-540b") == {("all_reduce", 64): 2 * 63 / 64 * n * 2 * e}
