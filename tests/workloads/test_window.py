"""Caches of layers with a window keep the window and no more, and every value is that of a cache of all positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.vocabulary import VOCABULARY
from configs.loader import load_model
from configs.spec.dtype import DtypeSpec
from tests.workloads.double import logits_of, run_job
from tests.workloads.test_kernels import caches, normal
from workloads.attention import Attention, RopeAppend
from workloads.chip import Work
from workloads.context import Stripe
from workloads.decode import DecodeJob, plan_rank
from workloads.huggingface import huggingface_model
from workloads.layout import Layout
from workloads.rope import Rope
from workloads.window import KeepWindow, capacity, with_room

MODEL = huggingface_model(Path(__file__).parents[1] / "data" / "oracles" / "mistral-window")
ROPE = RopeAppend(Rope(1e4, 4))


@settings(max_examples=30, deadline=None)
@given(
    window=st.integers(1, 6),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    n=st.integers(1, 3),
    steps=st.integers(1, 9),
)
def test_a_ring_gives_what_a_whole_cache_gives(window, lengths, n, steps):
    """Prompts of different lengths, longer and shorter than the window, over stripes of the sequence: bit for bit."""
    longest, rows = max(lengths), len(lengths)
    for index in range(n):
        stripe = Stripe(index, n)
        whole = caches(rows, 1, stripe.count(longest + steps), 4)
        ring = caches(rows, 1, capacity(longest + steps, window, stripe), 4)
        prompt = [with_room(cache, stripe.count(longest)) for cache in ring]
        qkv = normal(rows * longest, 12)
        for target in (whole, prompt):
            ROPE.evaluate(qkv, *target, starts=(0,) * rows, stripe=stripe)
        kept = KeepWindow().evaluate(qkv, *prompt, *ring, lengths=lengths, stripe=stripe)
        assert kept.tolist() == [min(stripe.count(length), ring[0].shape[2]) for length in lengths]
        for step in range(steps):
            starts, qkv, found = tuple(length + step for length in lengths), normal(rows, 12), []
            for target in (whole, ring):
                q = ROPE.evaluate(qkv, *target, starts=starts, stripe=stripe)
                found.append(Attention().attend(q, *target, starts, (1,), window, stripe))
            for exact, given_ in zip(*found, strict=True):
                np.testing.assert_array_equal(exact, given_)


def test_what_keeping_costs():
    """The kept positions of both caches are read and written."""
    ring = caches(2, 3, 4, 8)
    prompt = [with_room(cache, 9) for cache in ring]
    work = KeepWindow().work(normal(18, 8), *prompt, *ring, lengths=(9, 2))
    assert work == Work("fp32", (), 0, ((1, 4 * 4 * (4 + 2) * 3 * 8),), 8)


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=2, cp=2)], ids=str)
def test_a_model_with_a_window_and_without_one_that_is_filled(layout):
    """The oracle's window does less work per step once it is full, and has no room for more."""
    window = MODEL.shape.sliding_window
    job = DecodeJob(MODEL, layout, DtypeSpec(), (2 * window,), 3)
    shards = [shard for shard in plan_rank(job, 0) if shard.role == "kv"]
    assert {shard.shape[2] for shard in shards} == {-(-window // layout.cp)}
    real = run_job(evolve(job, prompt_ids=(tuple(range(2 * window)),), keep_logits=True))
    assert np.isfinite(logits_of(job, real)).all()
    assert [chip.trace for chip in real] == [chip.trace for chip in run_job(job, real=False)]
    assert sum(name == "keep_window" for name, _ in real[0].trace) == MODEL.shape.n_layers


@pytest.mark.parametrize(
    ("name", "window", "every"), [("mistral-7b", 4096, 1), ("gemma-2-9b", 4096, 2), ("gpt-oss-20b", 128, 2)]
)
def test_room_of_published_models(name, window, every):
    """All layers of Mistral and every other one of Gemma 2 and gpt-oss have room for the window, others for 8,000."""
    model = load_model(name, (), VOCABULARY)
    job = DecodeJob(model, Layout(), DtypeSpec(), (7990,), 10)
    rooms = [shard.shape[2] for shard in plan_rank(job, 0) if shard.name.endswith("k_cache")]
    assert rooms == [window if i % every == 0 else 8000 for i in range(model.shape.n_layers)]
