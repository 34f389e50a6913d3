"""Every family on its small model: logits and greedy ids equal an independent implementation's at any layout.

tests/data/oracles holds random models in Hugging Face folders with the logits that Hugging Face transformers gives;
`plain_models` writes models of the other families and computes them plainly.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError
from configs.loader import load_model
from configs.spec.dtype import DtypeSpec
from tests.workloads.double import logits_of, run_job, tokens_of
from tests.workloads.plain_models import PLAIN, greedy, write_folder
from workloads.decode import DecodeJob, check_job
from workloads.huggingface import huggingface_model
from workloads.layout import Layout

ORACLES = Path(__file__).parents[1] / "data" / "oracles"
NAMES = sorted(path.name for path in ORACLES.iterdir())
FP32 = DtypeSpec("fp32", "fp32", "fp32")

LAYOUTS = [Layout(tp=tp) for tp in (1, 2, 3, 4, 8)] + [Layout(pp=pp) for pp in (2, 3)]
LAYOUTS += [Layout(dp=2), Layout(tp=2, pp=2, dp=2), Layout(tp=3, pp=3), Layout(tp=8, pp=2, dp=2), Layout(tp=5, dp=2)]
LAYOUTS += [Layout(cp=2), Layout(cp=3), Layout(tp=2, cp=2), Layout(tp=3, cp=2, pp=2), Layout(tp=2, cp=4, dp=2)]
LAYOUTS += [Layout(tp=2, sequence=True), Layout(tp=3, pp=2, sequence=True), Layout(tp=2, cp=2, dp=2, sequence=True)]
EXPERT_LAYOUTS = [Layout(ep=ep) for ep in (2, 4, 8)] + [Layout(tp=2, pp=2, dp=2, ep=2), Layout(tp=3, ep=3)]
EXPERT_LAYOUTS += [
    Layout(pp=2, ep=2),
    Layout(ep=4, redundant_experts=3),
    Layout(tp=2, ep=16),
    Layout(cp=2, ep=2),
    Layout(tp=2, pp=2, cp=2, ep=2),
]


GRIDS = [(2, 2), (2, 4), (4, 2), (3, 2), (1, 4), (5, 1)]
GRID_LAYOUTS = [Layout(tp=x * y, tp_grid=(x, y)) for x, y in GRIDS]
GRID_LAYOUTS += [Layout(tp=x * y, tp_grid=(x, y), tp_attention="batch") for x, y in [(2, 2), (3, 2), (1, 4)]]
GRID_LAYOUTS += [Layout(tp=4, pp=2, dp=2, tp_grid=(2, 2), tp_attention="batch")]
GRID_LAYOUTS += [Layout(tp=4, pp=2, dp=2, tp_grid=(2, 2)), Layout(tp=6, pp=3, tp_grid=(2, 3))]

RAGGED = ((5, 17, 96, 3, 3, 8), (42,), (7, 8, 9))


def check(model, layout, prompts, ids, logits, **more):
    """Assert the ids, and the logits to 1e-4 of the largest, of a model at a layout."""
    job = DecodeJob(model, layout, FP32, tuple(map(len, prompts)), logits.shape[1], prompts, keep_logits=True, **more)
    check_job(job)
    chips = run_job(job)
    np.testing.assert_array_equal(tokens_of(job, chips), ids)
    np.testing.assert_allclose(logits_of(job, chips), logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())


EVERYTHING = [(name, layout) for name in NAMES for layout in LAYOUTS]
EVERYTHING += [(name, layout) for name in ("mixtral", "deepseek-v3") for layout in EXPERT_LAYOUTS]
EVERYTHING += [("deepseek-v3", Layout(tp=10)), ("deepseek-v3", Layout(tp=9, cp=2))]  # more ranks than heads


EVERYTHING += [(name, layout) for name in NAMES if name not in ("mixtral", "deepseek-v3") for layout in GRID_LAYOUTS]


THOROUGH = ("llama-gqa", "mixtral", "deepseek-v3")
"""Models that the default suite decodes at every layout; each of the others at one of three."""


EVERY_ROW = [
    pytest.param(name, layout, marks=[] if name in THOROUGH or i % 3 == 0 else [pytest.mark.heavy])
    for i, (name, layout) in enumerate(EVERYTHING)
]


@pytest.mark.parametrize(("name", "layout"), EVERY_ROW, ids=str)
def test_oracle(name, layout):
    """Uneven heads, ranks without a head, replicated KV heads, stages without a layer, ranks without a row."""
    expected = np.load(ORACLES / name / "expected.npz")
    prompts = tuple(map(tuple, expected["prompt_ids"].tolist()))
    check(huggingface_model(ORACLES / name), layout, prompts, expected["greedy_ids"], expected["logits"])


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("layout", [Layout(ep=2), Layout(tp=2, pp=2, ep=2), Layout(cp=2, ep=2), Layout(tp=2)], ids=str)
@pytest.mark.parametrize("name", ["mixtral", "deepseek-v3"])
def test_parts_of_experts_rows(name, layout, parts):
    """Parts that take turns share experts with the same parts of other ranks; two copies of every row."""
    known = np.load(ORACLES / name / "expected.npz")
    prompts = tuple(map(tuple, known["prompt_ids"].tolist())) * 4
    ids, logits = (np.concatenate([known[key]] * 4) for key in ("greedy_ids", "logits"))
    model = huggingface_model(ORACLES / name)
    check(model, layout, prompts, ids, logits, micro_batches=parts)


@pytest.mark.parametrize("parts", [1, 2])
def test_parts_without_data_have_all_tokens(parts):
    """In the prefill and afterwards every token uses k experts, in whatever parts."""
    model = huggingface_model(ORACLES / "mixtral")
    job = DecodeJob(model, Layout(tp=2), FP32, (5,) * 4, 3, micro_batches=parts)
    n_rows = [
        sum(m * count for count, m, _, _ in work.matmuls)
        for name, work in run_job(job, real=False)[0].trace
        if name == "experts_down"
    ]
    assert sum(n_rows) == model.shape.n_layers * model.shape.experts_per_token * 4 * (5 + 2)


@pytest.mark.parametrize("name", ["mixtral", "deepseek-v3"])
def test_a_grid_needs_dense_blocks(name):
    """Experts and latent attention are refused on a grid."""
    job = DecodeJob(huggingface_model(ORACLES / name), Layout(tp=4, tp_grid=(2, 2)), FP32, (3,), 2)
    with pytest.raises(ConfigError, match="latent attention are not cut along both sides; accepted: no tp_grid"):
        check_job(job)


@pytest.fixture(scope="module", params=PLAIN)
def plain(request, tmp_path_factory):
    """A random model, and the ids and logits of a plain forward pass for ragged prompts."""
    folder = write_folder(tmp_path_factory.mktemp("plain") / request.param, request.param)
    found = [greedy(folder, request.param, prompt, 6) for prompt in RAGGED]
    ids, logits = zip(*found, strict=True)
    return huggingface_model(folder), np.array(ids), np.array(logits)


@pytest.mark.parametrize("layout", [*LAYOUTS, *GRID_LAYOUTS], ids=str)
def test_plain_forward_pass(plain, layout):
    """Rows of different lengths; windows, soft caps, post norms, learned positions, biases, fused tensors."""
    check(plain[0], layout, RAGGED, *plain[1:])


@pytest.mark.parametrize("layout", [Layout(tp=3), Layout(tp=2, pp=3), Layout(tp=4, pp=2, tp_grid=(2, 2))], ids=str)
def test_halves_that_take_turns(plain, layout):
    """Every family decodes the same in two halves of the rows, which see their own rows of the caches."""
    check(plain[0], layout, RAGGED, *plain[1:], micro_batches=2)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(tp=8, pp=2, dp=2),
        Layout(tp=6, tp_grid=(3, 2)),
        Layout(tp=6, tp_grid=(3, 2), tp_attention="batch"),
    ],
    ids=str,
)
def test_shapes_mode_does_the_same_work(plain, layout):
    """The program without data launches the same kernels with the same work."""
    model, (_, logits) = plain[0], plain[1:]
    bf16 = DtypeSpec("bf16", "bf16", "bf16")
    job = DecodeJob(model, layout, bf16, tuple(map(len, RAGGED)), logits.shape[1], RAGGED)
    real, shapes = run_job(job), run_job(evolve(job, prompt_ids=None), real=False)
    assert [chip.trace for chip in real] == [chip.trace for chip in shapes]


def test_sizes_that_may_be_nothing():
    """No dense layers, and a window from the first layer on: 0 is a size like any other there."""
    for name, size in (("deepseek-v3", "n_dense_layers"), ("qwen2.5-7b", "first_window_layer")):
        shape = load_model(name, (), VOCABULARY).shape
        assert getattr(evolve(shape, **{size: 0}), size) == 0
        with pytest.raises(ConfigError, match=f"{size}: -1; accepted: ≥ 0"):
            evolve(shape, **{size: -1})


@pytest.mark.parametrize("name", ["mixtral-8x7b", "qwen3-30b-a3b", "gpt-oss-20b", "deepseek-v3"])
def test_a_token_goes_to_experts_that_there_are(name):
    """More experts per token than the model has are refused."""
    shape = load_model(name, (), VOCABULARY).shape
    with pytest.raises(ConfigError, match="experts_per_token: 300; accepted: at most n_experts"):
        evolve(shape, experts_per_token=300)
    with pytest.raises(ConfigError, match="n_experts: 1000000000 is above 10000"):
        evolve(shape, n_experts=10**9)
