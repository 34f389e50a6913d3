"""Every number format: known values, error bounds, and what a rounding must be (one row per format)."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from configs.dtypes import DTYPES
from configs.spec.dtype import DtypeSpec
from tests.workloads.double import logits_of, run_job
from workloads.chip import Tensor
from workloads.decode import DecodeJob
from workloads.experts import ExpertMatmul
from workloads.huggingface import huggingface_model
from workloads.kernels import Matmul
from workloads.latent import HeadMatmul
from workloads.layout import Layout
from workloads.rounding import NUMPY_DTYPES, ROUNDINGS, round_to

ORACLES = Path(__file__).parents[1] / "data" / "oracles"


@frozen
class Row:
    """What holds for a format.

    relative: the bound of the error as a fraction of the element.  of_largest: the same of its block's (row's, if
    there are no blocks) largest element; the error is at most the sum.  size: of a tensor [3, 40].  error: of the
    logits of the tiny model, as a fraction of the largest.
    """

    relative: float
    of_largest: float
    size: int
    error: float


ROWS = {
    "fp32": Row(0, 0, 480, 0),
    "bf16": Row(2**-8, 0, 240, 0.05),
    "fp16": Row(2**-11, 2**-25, 240, 0.01),
    "fp8_e4m3": Row(2**-4, 2**-9 / 448, 3 * (40 + 2), 0.3),
    "fp8_e5m2": Row(2**-3, 2**-16 / 57344, 3 * (40 + 2), 0.6),
    "int8": Row(0, 0.504 / 127, 3 * (40 + 2), 0.1),
    "mxfp4": Row(1 / 4, 1 / 4, 3 * 2 * 17, 2),
    "nvfp4": Row(1 / 4, 1 / 6, 3 * (3 * 9 + 4), 2),
    "bfp8": Row(0, 2**-6, 3 * 3 * 17, 0.1),
    "bfp4": Row(0, 2**-2, 3 * 3 * 9, 2),
}
"""The common table: a new format is one more row."""

VALUES = st.floats(-1000, 1000, width=32).map(lambda x: 0.0 if abs(x) < 0.5 else x)
"""Within a factor that no shared scale has to round to zero for."""


def test_the_table_has_every_format():
    """A row here, a rounding, a size."""
    assert list(ROWS) == list(DTYPES) == list(ROUNDINGS)


@pytest.mark.parametrize("dtype", ROWS)
@settings(max_examples=60, deadline=None)
@given(x=arrays(np.float32, (2, 40), elements=VALUES))
def test_rounding(dtype, x):
    """Idempotent, odd, order-preserving within a block, near: a float32 array of the same shape."""
    row, y = ROWS[dtype], round_to(dtype, x)
    assert (y.shape, y.dtype) == (x.shape, np.float32)
    np.testing.assert_array_equal(round_to(dtype, y), y)
    np.testing.assert_array_equal(round_to(dtype, -x), -y)
    block = DTYPES[dtype].block if DTYPES[dtype].block > 1 else 40
    for first in range(0, 40, block):
        part, rounded = x[:, first : first + block], y[:, first : first + block]
        largest = np.abs(part).max(axis=1, keepdims=True)
        assert np.all(np.abs(rounded - part) <= 1.0001 * (row.relative * np.abs(part) + row.of_largest * largest))
        order = np.argsort(part, axis=1)
        assert np.all(np.diff(np.take_along_axis(rounded, order, axis=1), axis=1) >= 0)


@pytest.mark.parametrize("dtype", ROWS)
def test_rows_do_not_see_each_other(dtype):
    """A row rounds alike alone and among others, so that batches and layouts of rows change nothing."""
    x = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32) * np.float32([[1], [9], [0], [0.1], [3]])
    alone = np.concatenate([round_to(dtype, x[i : i + 1]) for i in range(5)])
    np.testing.assert_array_equal(round_to(dtype, x), alone)
    np.testing.assert_array_equal(round_to(dtype, np.zeros((2, 40), np.float32)), 0)
    assert round_to(dtype, np.zeros((3, 0), np.float32)).shape == (3, 0)


@pytest.mark.parametrize(("dtype", "row"), ROWS.items())
def test_sizes(dtype, row):
    """Elements, shared exponents of whole blocks, scales of rows."""
    assert DTYPES[dtype].size_bytes((3, 40)) == row.size
    assert DTYPES[dtype].size_bytes((3, 0)) == 0


KNOWN = [
    ("fp16", [65504, 65520, 2**-24, 2**-26], [65504, np.inf, 2**-24, 0]),
    ("fp8_e4m3", [448, 17, 19, 1 / 512, 1 / 2048], [448, 16, 20, 1 / 512, 0]),  # the largest makes the scale 1
    ("fp8_e5m2", [57344, 9, 11, 5, 2**-16], [57344, 8, 12, 5, 2**-16]),
    ("int8", [127, 0.5, 1.5, -2.6, 100.4], [127, 0, 2, -3, 100]),
    ("int8", [254, 1, 3, -5, 200], [254, 0, 4, -4, 200]),
    ("mxfp4", [6, 5, 2.5, 1.25, 0.75, 0.25, -0.2], [6, 4, 2, 1, 1, 0, 0]),  # exponent 2: scale 1
    ("mxfp4", [7.9, 1, 0.5], [6, 1, 0.5]),  # the standard's scale saturates above 6
    ("nvfp4", [2688, 2240, 1000, 500, 100], [2688, 1792, 896, 448, 0]),  # row scale 1, block scale 448
    ("bfp8", [1, 1.99, 1 / 64, 1 / 128, 3 / 128], [1, 127 / 64, 1 / 64, 0, 2 / 64]),
    ("bfp4", [4, 7, 0.5, 1.5, -2.6], [4, 7, 0, 2, -3]),
    ("bfp4", [7.9, 1], [7, 1]),  # no carry into the exponent
]


@pytest.mark.parametrize(("dtype", "values", "expected"), KNOWN)
def test_known_values(dtype, values, expected):
    """Values worked out by hand from the definitions."""
    np.testing.assert_array_equal(round_to(dtype, np.float32(values)), np.float32(expected))


@pytest.mark.parametrize("dtype", [name for name, dtype in DTYPES.items() if dtype.carrier == "bf16"])
def test_formats_hold_no_more_values_than_their_bits(dtype):
    """A block has at most 2^bits different values."""
    width = DTYPES[dtype].block if DTYPES[dtype].block > 1 else 4096
    x = np.random.default_rng(1).standard_normal((1, width)).astype(np.float32)
    n_bits = {"mxfp4": 4, "nvfp4": 4, "bfp8": 8, "bfp4": 4, "bf16": 16}.get(dtype, 8)
    assert len(np.unique(round_to(dtype, x))) <= 2**n_bits


@pytest.mark.parametrize("dtype", ["int8", "fp8_e4m3", "mxfp4", "bfp8"])
def test_products_round_what_they_take_in(dtype):
    """Activations travel as bf16, and a product rounds its input row by row, at that format's rate."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 64)).astype(NUMPY_DTYPES["bf16"])
    w = run_weights(rng, dtype)
    kernel = Matmul("m", dtype)
    expected = round_to(dtype, x.astype(np.float32)) @ w.values.T
    np.testing.assert_allclose(kernel.evaluate(x, w), expected, rtol=1e-5, atol=1e-5)
    assert kernel.work(x, w).dtype == dtype
    assert kernel.name == f"m_{dtype}"


@pytest.mark.parametrize("dtype", ["int8", "mxfp4"])
def test_experts_round_what_they_take_in(dtype):
    """Each expert's rows like those of any product."""
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((3, 64)).astype(np.float32), run_weights(rng, dtype)
    kernel = ExpertMatmul("e", dtype)
    rounded, (first, second) = round_to(dtype, x), w.values.reshape(2, 16, 64)
    expected = np.concatenate([rounded[:1] @ first.T, rounded[1:] @ second.T])
    np.testing.assert_allclose(kernel.evaluate(x, w, loads=(1, 2)), expected, rtol=1e-5, atol=1e-5)
    assert (kernel.name, kernel.work(x, w, loads=(1, 2)).dtype) == (f"e_{dtype}", dtype)


@pytest.mark.parametrize("dtype", ["int8", "mxfp4"])
def test_products_of_heads_round_what_they_take_in(dtype):
    """Each head's part of a row by itself, at that format's rate."""
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((3, 2 * 64)).astype(np.float32), run_weights(rng, dtype)
    kernel = HeadMatmul("h", inputs=dtype)
    matrices = w.values.reshape(2, 16, 64)
    expected = [round_to(dtype, x[:, 64 * h : 64 * (h + 1)]) @ matrices[h].T for h in range(2)]
    np.testing.assert_allclose(kernel.evaluate(x, w, n_heads=2), np.concatenate(expected, 1), rtol=1e-5, atol=1e-5)
    assert (kernel.name, kernel.work(x, w, n_heads=2).dtype) == (f"h_{dtype}", dtype)


def test_latent_attention_in_fp8():
    """Every product by a matrix takes in the format asked for, but for the router and the attention on latents."""
    model = huggingface_model(ORACLES / "deepseek-v3")
    job = DecodeJob(model, Layout(), DtypeSpec("fp8_e4m3", "bf16", "fp8_e4m3"), (4,), 2)
    (chip,) = run_job(job, real=False)
    narrow = {name.removesuffix("_fp8_e4m3") for name, work in chip.trace if work.dtype == "fp8_e4m3"}
    products = {name.removesuffix("_fp8_e4m3") for name, work in chip.trace if work.matmuls}
    assert products - narrow == {"router_matmul", "latent_attention"}


def run_weights(rng, dtype):
    """Return a stored matrix [32, 64] of a format."""
    values = round_to(dtype, rng.standard_normal((32, 64)))
    return Tensor("w", (32, 64), dtype, 0, DTYPES[dtype].size_bytes((32, 64)), values)


@pytest.fixture(scope="module")
def exact(tiny):
    """A job in fp32 and its logits."""
    fp32 = DtypeSpec("fp32", "fp32", "fp32")
    job = DecodeJob(tiny, Layout(tp=2), fp32, (5, 3), 1, ((5, 17, 100, 3, 3), (7, 8, 9)), keep_logits=True)
    return job, logits_of(job, run_job(job))


@pytest.mark.parametrize("role", ["weights", "kv", "activations"])
@pytest.mark.parametrize("dtype", ROWS)
def test_a_model_in_any_format(exact, dtype, role):
    """Weights, cache and activations may each have any format; vectors keep 16 bits; the error is the format's."""
    job, logits = exact
    rounded = evolve(job, dtype=evolve(job.dtype, **{role: dtype}))
    chips = run_job(rounded)
    error = np.abs(logits_of(rounded, chips) - logits).max() / np.abs(logits).max()
    assert error <= ROWS[dtype].error
    assert (error > 0) == (dtype != "fp32")
    for tensor in chips[0].tensors.values():
        if len(tensor.shape) == 1:
            assert DTYPES[tensor.dtype].bits >= 16
        np.testing.assert_array_equal(round_to(tensor.dtype, tensor.values), tensor.values)
    shapes = run_job(evolve(rounded, prompt_ids=None), real=False)
    assert [chip.trace for chip in shapes] == [chip.trace for chip in chips]


def test_casts_are_those_of_ml_dtypes():
    """All 256 codes of fp8, as fractions of their largest, stay what they are."""
    for dtype, kind, limit in (
        ("fp8_e4m3", ml_dtypes.float8_e4m3fn, 448),
        ("fp8_e5m2", ml_dtypes.float8_e5m2, 57344),
    ):
        codes = np.arange(256, dtype=np.uint8).view(kind).astype(np.float32)
        codes = codes[np.isfinite(codes)]
        assert codes.max() == limit
        np.testing.assert_array_equal(round_to(dtype, codes), codes)
