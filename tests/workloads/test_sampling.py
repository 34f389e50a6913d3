"""Sampling: the distributions are those of the definitions, and draws do not depend on how the vocabulary is split."""

from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve

from configs.spec.workload import SamplingSpec
from tests.workloads.double import run_job, tokens_of
from tests.workloads.test_decode import job_of
from tests.workloads.tiny import write_tiny
from workloads.array import ShapeArray
from workloads.gguf_weights import gguf_model
from workloads.layout import Layout, split_evenly
from workloads.sampling import Draw, gumbel

VOCAB = 23
KINDS = [
    SamplingSpec(),
    SamplingSpec("temperature", temperature=0.7, seed=5),
    SamplingSpec("top_k", temperature=1.3, k=6, seed=5),
    SamplingSpec("top_p", temperature=0.9, p=0.6, seed=5),
    SamplingSpec("top_p", p=0.8, k=9, seed=5),
]


def draw(logits, spec, n_ranks, step=0):
    """Return the ids that ranks with a share of the vocabulary each pick together."""
    one = Draw(spec, tuple(range(len(logits))), step)
    shares, params = split_evenly(logits.shape[1], n_ranks), one.params(logits.shape[1], n_ranks)
    local = [one.local(ids).evaluate(logits[:, ids.start : ids.stop], **params) for ids in shares]
    return one.merge(logits.shape[1]).evaluate(np.concatenate(local), n_ranks=n_ranks)


@pytest.mark.parametrize("spec", KINDS, ids=str)
def test_a_draw_does_not_depend_on_the_split(spec):
    """One rank or many, uneven shares too, and shares smaller than k."""
    logits = np.random.default_rng(0).standard_normal((40, VOCAB)).astype(np.float32)
    whole = draw(logits, spec, 1)
    assert len(set(whole.tolist())) > 3
    for n_ranks in (2, 3, 5, 23):
        np.testing.assert_array_equal(draw(logits, spec, n_ranks), whole)


def expected(logits, spec):
    """Return the distribution by the definition."""
    p = np.exp(logits / spec.temperature)
    order = np.argsort(-logits)
    p[order[spec.k or len(p) :]] = 0
    p /= p.sum()
    if spec.p is not None:
        kept = 1 + np.searchsorted(np.cumsum(p[order]), spec.p)
        p[order[kept:]] = 0
    return p / p.sum()


@pytest.mark.parametrize("spec", KINDS[1:], ids=str)
def test_frequencies_are_the_probabilities(spec):
    """Over 4000 rows: no more than five standard deviations off, and never outside of the support."""
    one, n = np.random.default_rng(1).standard_normal(VOCAB).astype(np.float32), 4000
    counts = np.bincount(draw(np.tile(one, (n, 1)), spec, 2), minlength=VOCAB)
    p = expected(one.astype(np.float64), spec)
    assert not counts[p == 0].any()
    assert np.all(np.abs(counts - n * p) <= 5 * np.sqrt(n * p * (1 - p)) + 1e-9)


def test_limits():
    """The best of one, a tiny nucleus and a cold temperature are greedy; the best of all is plain sampling."""
    logits = np.random.default_rng(2).standard_normal((30, VOCAB)).astype(np.float32)
    greedy, warm = draw(logits, SamplingSpec(), 2), draw(logits, SamplingSpec("temperature", seed=3), 2)
    for spec in (SamplingSpec("top_k", k=1), SamplingSpec("top_p", p=1e-9), SamplingSpec("temperature", 1e-6)):
        np.testing.assert_array_equal(draw(logits, spec, 3), greedy)
    for spec in (SamplingSpec("top_k", k=VOCAB, seed=3), SamplingSpec("top_p", p=1.0, seed=3)):
        np.testing.assert_array_equal(draw(logits, spec, 3), warm)


def test_streams_of_rows_and_steps_differ():
    """And a stream may be entered anywhere."""
    whole = gumbel(1, 2, 3, range(1000))
    np.testing.assert_array_equal(whole[333:777], gumbel(1, 2, 3, range(333, 777)))
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert np.abs(np.corrcoef(whole, gumbel(*other, range(1000)))[0, 1]) < 0.2
    assert abs(whole.mean() - np.euler_gamma) < 0.2


@pytest.mark.parametrize("spec", KINDS, ids=str)
def test_values_have_the_inferred_shapes(spec):
    """Of the local kernel and the merge, and their work needs no values."""
    one, logits = Draw(spec, (0, 1, 2), 0), ShapeArray((3, 8), np.dtype(np.float32))
    params = one.params(VOCAB, 3)
    (shape, dtype), work = one.local(range(8)).infer(logits, **params), one.local(range(8)).work(logits, **params)
    real = one.local(range(8)).evaluate(np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32), **params)
    assert real.shape == shape
    assert work.vector_flops >= 0
    merged = one.merge(VOCAB).infer(ShapeArray((9, shape[1]), dtype), n_ranks=3)
    assert merged[0] == (3,)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny model."""
    return gguf_model(write_tiny(tmp_path_factory.mktemp("tiny") / "m.gguf"))


@pytest.mark.parametrize("spec", KINDS[1:], ids=str)
def test_every_layout_draws_the_same(tiny, spec):
    """Rows keep their streams whichever replica, half or stage works on them."""
    jobs = [job_of(tiny, layout) for layout in (Layout(), Layout(tp=3), Layout(tp=2, pp=2, dp=3))]
    jobs.append(job_of(tiny, Layout(tp=2, pp=2), micro_batches=2))
    found = [tokens_of(job, run_job(job)) for job in (evolve(job, sampling=spec) for job in jobs)]
    for ids in found[1:]:
        np.testing.assert_array_equal(ids, found[0])
