"""Micro-batches over pipeline stages: with as many as stages, the slowest stage never waits while decoding."""

from __future__ import annotations

import numpy as np
import pytest

from cluster import launch
from cluster.timeline.accounts import by_name
from cluster.vocabulary import VOCABULARY
from configs.loader import load_model
from configs.spec.dtype import DtypeSpec
from workloads.decode import DecodeJob, decode
from workloads.layout import Layout

SYSTEM = {
    "name": "a line of stages",
    "chip": {
        "name": "chip",
        "peak": {"fp32": "10TFLOPS", "bf16": "100TFLOPS"},
        "memory": [{"name": "HBM", "capacity": "12GiB", "bandwidth": "1TB/s"}],
    },
    "topology": {"kind": "line", "dims": [6], "link": {"bandwidth": "500GB/s", "latency": "1ns"}},
}
NEW_TOKENS = 12


def busy(pp, parts, rows):
    """Return the fraction of a decode step during which each stage works."""
    model = load_model("smollm2-135m", (), VOCABULARY)
    job = DecodeJob(model, Layout(pp=pp), DtypeSpec(), (1,) * rows, NEW_TOKENS, micro_batches=parts)
    with launch(SYSTEM, n_chips=pp, numerics="shapes") as cluster:
        timeline = cluster.run(decode, job).timeline
    marks = [mark.end_ps for mark in timeline.marks if mark.operation == "tokens"]
    begin, end = marks[3], marks[-1]
    kernels = {o.name for o in by_name(timeline.operations) if o.bound in {"compute", "memory"}}
    kernel = np.array([timeline.names[n] in kernels for n in timeline.name])
    inside = np.clip(timeline.end_ps, begin, end) - np.clip(timeline.start_ps, begin, end)
    return np.bincount(timeline.chip[kernel], inside[kernel], pp) / (end - begin)


@pytest.mark.parametrize("pp", [2, 3, 6])
def test_no_bubble_with_as_many_parts_as_stages(pp):
    """A stage works min(1, parts · its time / all stages' time): one part leaves bubbles, as many as stages none."""
    alone = busy(pp, 1, 2 * pp)
    assert 0.97 < alone.sum() <= 1
    for parts in (2, pp, 2 * pp):
        share = busy(pp, parts, 2 * pp)
        assert share.max() == pytest.approx(min(1, parts * alone.max()), rel=0.03)
    assert pp * alone.max() >= 1
