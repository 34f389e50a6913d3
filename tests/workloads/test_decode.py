"""The decode program on a tiny model: any layout gives the unsharded model's ids and logits."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.spec.dtype import DtypeSpec
from tests.workloads.double import logits_of, run_job, tokens_of
from tests.workloads.reference import Reference
from tests.workloads.tiny import write_tiny
from workloads.decode import DecodeJob, check_job, plan_memory
from workloads.gguf_weights import gguf_model
from workloads.layout import Layout

FP32 = DtypeSpec("fp32", "fp32", "fp32")
BF16 = DtypeSpec("bf16", "bf16", "bf16")
RAGGED = ((5, 17, 100, 3, 3), (42,), (7, 8, 9))
NEW_TOKENS = 4


def job_of(model, layout=Layout(), prompts=RAGGED, dtype=FP32, **more):  # noqa: B008 (frozen)
    """Return a job for these prompts."""
    lengths = tuple(map(len, prompts))
    return DecodeJob(model, layout, dtype, lengths, NEW_TOKENS, prompts, keep_logits=True, **more)


def check_against_reference(path, layout, prompts=RAGGED, **more):
    """Assert that ids and logits are those of the reference, for every row."""
    job = job_of(gguf_model(path), layout, prompts, **more)
    check_job(job)
    chips = run_job(job)
    reference = Reference(path)
    expected = [reference.greedy(prompt, NEW_TOKENS) for prompt in prompts]
    np.testing.assert_array_equal(tokens_of(job, chips), [ids for ids, _ in expected])
    np.testing.assert_allclose(
        logits_of(job, chips), np.array([logits for _, logits in expected]), rtol=1e-3, atol=2e-4
    )


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(tp=2),
        Layout(tp=4),
        Layout(tp=5),
        Layout(tp=6),
        Layout(pp=3),
        Layout(dp=2),
        Layout(tp=4, pp=3, dp=3),
    ],
    ids=str,
)
def test_layouts_give_the_unsharded_ids_and_logits(tiny_path, layout):
    """Uneven heads, ffn, vocabulary, layers and rows change nothing."""
    check_against_reference(tiny_path, layout)


@pytest.mark.parametrize(
    "layout", [Layout(), Layout(tp=3), Layout(pp=2), Layout(tp=2, pp=4), Layout(tp=2, dp=2), Layout(dp=3)], ids=str
)
@pytest.mark.parametrize("parts", [2, 3])
def test_micro_batches_give_the_same(tiny_path, layout, parts):
    """Communication beside another part's compute changes no row; there are at most as many parts as rows."""
    check_against_reference(tiny_path, layout, micro_batches=parts)


@settings(max_examples=15, deadline=None)
@given(
    st.builds(Layout, tp=st.integers(1, 6), pp=st.integers(1, 4), dp=st.integers(1, 2)),
    st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=9).map(tuple), min_size=2, max_size=4),
)
def test_any_layout_and_any_prompts(tiny_path, layout, prompts):
    """The same with random layouts and random, ragged prompts."""
    check_against_reference(tiny_path, layout, tuple(prompts))


@pytest.mark.parametrize(
    "kind", [{"tied": False}, {"quantization": "Q8_0", "key_length": 32}, {"quantization": "BF16"}], ids=str
)
def test_file_variants(tmp_path, kind):
    """An own head, quantised rows whose shards cut through blocks, half-precision rows."""
    check_against_reference(write_tiny(tmp_path / "m.gguf", seed=3, **kind), Layout(tp=5, pp=2))


@pytest.mark.parametrize("head_count_kv", [1, 3, 6])
def test_kv_heads_are_replicated_where_a_rank_needs_them(tmp_path, head_count_kv):
    """Multi-query, grouped and full attention, with heads of one KV head on several ranks."""
    path = write_tiny(tmp_path / "m.gguf", head_count_kv=head_count_kv)
    check_against_reference(path, Layout(tp=4))


def test_all_ranks_of_the_last_stage_hold_own_logits_and_one_emits_tokens(tiny):
    """Tokens come from the first rank of the last stage, logits from all of that stage."""
    chips = run_job(job_of(tiny, Layout(tp=3, pp=2)))
    names = [{name for name, _ in chip.emitted} for chip in chips]
    assert names == [{"ready"}] * 3 + [{"ready", "tokens", "logits"}, *[{"ready", "logits"}] * 2]
    assert [chip.emitted["logits", 0].shape for chip in chips[3:]] == [(3, 34), (3, 34), (3, 33)]
    assert all(chip.emitted["logits", 0].dtype == np.float32 for chip in chips[3:])


def test_bf16_rounds_weights_cache_and_activations(tiny):
    """Every stored value is a bf16 value, and logits differ from fp32 by about 2^-8 of their size."""
    job = job_of(tiny, Layout(tp=2), dtype=BF16)
    chips = run_job(job)
    for tensor in chips[1].tensors.values():
        assert not np.any(tensor.values.view(np.uint32) & 0xFFFF), tensor.name
    exact_job = job_of(tiny, Layout(tp=2))
    rounded, exact = logits_of(job, chips)[:, 0], logits_of(exact_job, run_job(exact_job))[:, 0]
    error = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 5e-2


@pytest.mark.parametrize("layout", [Layout(), Layout(tp=4, pp=3, dp=2), Layout(tp=2)], ids=str)
@pytest.mark.parametrize("parts", [1, 2])
def test_shapes_mode_does_the_same_work(tiny, layout, parts):
    """The program without data launches the same kernels with the same work and emits the same shapes."""
    job = job_of(tiny, layout, dtype=BF16, micro_batches=parts)
    real, shapes = run_job(job), run_job(evolve(job, prompt_ids=None), real=False)
    for a, b in zip(real, shapes, strict=True):
        assert a.trace == b.trace
        assert {key: getattr(value, "shape", None) for key, value in a.emitted.items()} == {
            key: getattr(value, "shape", None) for key, value in b.emitted.items()
        }


def test_the_plan_is_what_is_placed(tiny):
    """Names, shapes and sizes of the plan are those of the placed tensors."""
    job = job_of(tiny, Layout(tp=4, pp=3, dp=3), dtype=BF16)
    for chip, shards in zip(run_job(job, real=False), plan_memory(job), strict=True):
        placed = [(t.name, t.shape, t.dtype, t.size_bytes) for t in chip.tensors.values()]
        assert placed == [(s.name, s.shape, s.dtype, s.size_bytes) for s in shards]


def test_shards_add_up_to_the_model(tiny):
    """Without replication all shards together are the stored tensors, and 8 + 1 tokens of cache per row."""
    job = job_of(tiny, Layout(tp=2, pp=4))
    n_stored = sum(int(np.prod(shape)) for shape in tiny.shape.tensors().values())
    n_norms = 64 * 4 * 2 + 64
    head = 101 * 64
    planned = [shard for shards in plan_memory(job) for shard in shards]
    assert sum(s.size_bytes for s in planned if s.role == "weights") == 4 * (n_stored + head + n_norms)
    assert sum(s.size_bytes for s in planned if s.role == "kv") == 4 * (4 * 2 * 2 * 3 * 9 * 16)


def test_jobs_travel_between_processes(tiny):
    """A job survives pickling."""
    job = job_of(tiny, Layout(tp=2))
    assert pickle.loads(pickle.dumps(job)) == job


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layout": Layout(tp=97)}, "parallel.tp: 97 is above the model's 96 ffn rows; at most 96"),
        ({"layout": Layout(pp=6)}, "parallel.pp: 6 is above the model's 4 layers and its head; at most 5"),
        ({"layout": Layout(dp=4)}, "parallel.dp: 4 is above the batch of 3"),
        (
            {"layout": Layout(tp=4, tp_grid=(2, 3))},
            "tp_grid: [2, 3] are 6 ranks; accepted: two numbers whose product is",
        ),
        ({"layout": Layout(tp=4, cp=2, tp_grid=(2, 2))}, "tp_grid: [2, 2] goes with pp and dp; accepted: cp 1, ep 1"),
        ({"layout": Layout(tp=4, sequence=True, tp_grid=(2, 2))}, "ep 1 and sequence false"),
        (
            {"layout": Layout(tp=80, tp_grid=(10, 8))},
            "tp_grid: [10, 8] are above the model's hidden size 64; at most 64",
        ),
        (
            {"layout": Layout(tp=2, tp_attention="batch")},
            "tp_attention: batch needs parallel.tp_grid; accepted without it",
        ),
        (
            {"layout": Layout(tp=2, tp_grid=(1, 2), tp_attention="batch"), "micro_batches": 2},
            "micro_batches: 2 are not possible with parallel.tp_attention batch; accepted: 1, or tp_attention heads",
        ),
        ({"new_tokens": 60}, "exceed the context of tiny, 64 tokens"),
        ({"new_tokens": 0}, "new_tokens: 0 must be at least 1"),
        ({"prompt_lengths": ()}, "there is no prompt"),
        ({"prompt_lengths": (5, 0, 3)}, "prompt 1 is empty"),
        ({"prompt_ids": ((1,), (101,), (-1,))}, "prompt_ids[1]: 101 is not a token id; accepted: 0 to 100"),
    ],
)
def test_impossible_jobs_are_refused(tiny, change, words):
    """Each message names the key and what is accepted."""
    with pytest.raises(ConfigError) as caught:
        check_job(evolve(job_of(tiny), **change))
    assert words in str(caught.value)
