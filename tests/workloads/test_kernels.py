"""Kernels against plain formulas, and their work against closed ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from configs.dtypes import DTYPES
from workloads.array import ShapeArray
from workloads.attention import Attention, RopeAppend
from workloads.chip import Tensor, Work
from workloads.elementwise import Add, GatedActivation, RmsNorm
from workloads.kernels import Embedding, LocalArgmax, Matmul, MergeArgmax, TakeRows
from workloads.rope import Rope
from workloads.rounding import FP32, NUMPY_DTYPES, dtype_name, round_to

RNG = np.random.default_rng(0)
BF16 = NUMPY_DTYPES["bf16"]


def normal(*shape):
    """Return random values."""
    return RNG.standard_normal(shape).astype(np.float32)


def stored(values, dtype="fp32", tier=1):
    """Return a stored tensor."""
    size_bytes = DTYPES[dtype].size_bytes(values.shape)
    return Tensor("t", values.shape, dtype, tier, size_bytes, round_to(dtype, values))


def shape_only(*shape, dtype=BF16):
    """Return an array without data."""
    return ShapeArray(shape, dtype)


@given(arrays(np.float32, 8, elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_rounding_to_bf16_is_to_the_nearest_even(values):
    """The rounded value is the multiple of the spacing that is nearest; ties go to the even mantissa."""
    bits = values.view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(round_to("bf16", values), expected)


def test_dtype_names():
    """Every numpy type has its format's name."""
    assert [dtype_name(dtype) for dtype in NUMPY_DTYPES.values()] == list(NUMPY_DTYPES)


@pytest.mark.parametrize("n_rows", [1, 4, 5, 40])
def test_products_of_any_number_of_rows(n_rows):
    """Both ways to multiply give the product, contiguous."""
    x, w = normal(n_rows, 33), normal(17, 33)
    product = Matmul().evaluate(x, stored(w))
    np.testing.assert_allclose(product, x @ w.T, rtol=1e-5, atol=1e-5)
    assert product.flags.c_contiguous


def test_matmul():
    """The product, its padded-free work, and float32 from the accumulator on demand."""
    x, w = normal(3, 8).astype(BF16), stored(normal(5, 8), "bf16")
    kernel = Matmul()
    expected = x.astype(np.float64) @ w.values.astype(np.float64).T
    np.testing.assert_allclose(kernel.evaluate(x, w), expected, rtol=1e-5, atol=1e-5)
    assert kernel.infer(x, w) == ((3, 5), BF16)
    assert kernel.infer(x, w, keep_fp32=True) == ((3, 5), FP32)
    assert kernel.work(x, w) == Work("bf16", ((1, 3, 8, 5),), 0, ((1, 80),), 2 * (24 + 15), "matmul")
    assert kernel.work(x, w, keep_fp32=True).activation_bytes == 2 * 24 + 4 * 15


@pytest.mark.parametrize(
    ("activations", "weights", "computed"),
    [("bf16", "fp32", "fp32"), ("fp32", "bf16", "fp32"), ("bf16", "bfp8", "bf16")],
)
def test_mixed_formats_are_computed_in_the_wider(activations, weights, computed):
    """The matrix unit runs at the wider operand's rate; the weights' own size is read."""
    w = Tensor("w", (32, 64), weights, 0, DTYPES[weights].size_bytes((32, 64)), None)
    work = Matmul().work(shape_only(1, 64, dtype=NUMPY_DTYPES[activations]), w)
    assert work.dtype == computed
    assert work.tensor_bytes == ((0, w.size_bytes),)


def test_rms_norm():
    """Each token is x / √(mean x² + eps) · w."""
    x, w = normal(3, 8), stored(normal(8))
    expected = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-5) * w.values
    np.testing.assert_allclose(RmsNorm(1e-5).evaluate(x, w), expected, rtol=1e-5)
    assert RmsNorm(1e-5).work(x, w) == Work("fp32", (), 4 * 24, ((1, 32),), 2 * 96, "norm")


def test_silu_mul_and_add():
    """Gates are g / (1 + e^-g) · u, also where e^-g leaves float32; and the sum."""
    x = normal(3, 8) * 30
    x[0, :2] = -500, 500
    gate, up = x[:, :4].astype(np.float64), x[:, 4:]
    expected = gate / (1 + np.exp(-gate)) * up
    np.testing.assert_allclose(GatedActivation("silu").evaluate(x), expected, rtol=1e-5, atol=1e-25)
    assert GatedActivation("silu").infer(x) == ((3, 4), FP32)
    assert GatedActivation("silu").work(x) == Work("fp32", (), 5 * 12, (), 4 * (24 + 12), "activation")
    np.testing.assert_array_equal(Add().evaluate(x, x), 2 * x)
    assert Add().work(x, x) == Work("fp32", (), 24, (), 3 * 96, "residual")


def test_embedding_gives_zeros_for_foreign_ids_and_charges_every_row():
    """Own rows are looked up; the work does not depend on the ids."""
    table = stored(normal(4, 6), "bf16")
    ids = np.array([9, 10, 13, 14], np.int32)
    kernel = Embedding(first_id=10)
    y = kernel.evaluate(ids, table, dtype="bf16")
    np.testing.assert_array_equal(y, np.stack([0 * y[0], table.values[0], table.values[3], 0 * y[0]]))
    assert kernel.infer(ids, table, dtype="bf16") == ((4, 6), BF16)
    work = kernel.work(ids, table, dtype="bf16")
    assert work == Work("bf16", (), 0, ((1, 4 * 12),), 4 * 4 + 4 * 12, "lookup")


def test_take_rows():
    """Only the taken rows move."""
    x = normal(5, 4)
    np.testing.assert_array_equal(TakeRows().evaluate(x, rows=(4, 1)), x[[4, 1]])
    assert TakeRows().infer(x, rows=(4, 1)) == ((2, 4), FP32)
    assert TakeRows().work(x, rows=(4, 1)).activation_bytes == 2 * 2 * 16


@given(arrays(np.float32, (3, 12), elements=st.integers(0, 3).map(float)), st.integers(1, 4))
def test_argmax_in_parts_is_argmax_with_the_lowest_id_first(logits, n_ranks):
    """Ties within a rank and between ranks go to the lowest id."""
    size = 12 // n_ranks
    parts = [LocalArgmax(i * size).evaluate(logits[:, i * size : (i + 1) * size]) for i in range(n_ranks)]
    merged = MergeArgmax().evaluate(np.concatenate(parts), n_ranks=n_ranks)
    np.testing.assert_array_equal(merged, logits[:, : size * n_ranks].argmax(1))
    assert merged.dtype == np.int32
    assert MergeArgmax().infer(np.concatenate(parts), n_ranks=n_ranks) == ((3,), np.dtype(np.int32))


def caches(n_rows, n_kv, length, dim, dtype="fp32"):
    """Return two empty caches."""
    return tuple(stored(np.zeros((n_rows, n_kv, length, dim), np.float32), dtype) for _ in "kv")


@pytest.mark.parametrize("starts", [(0, 0), (3, 3), (1, 4)])
def test_rope_turns_pairs_and_appends_at_each_rows_position(starts):
    """Pair j of the token at position p turns by p · theta^(-2j/dim); values are not turned."""
    heads, n_kv, dim, n_tokens = 3, 2, 4, 2
    qkv = normal(2 * n_tokens, (heads + 2 * n_kv) * dim)
    k, v = caches(2, n_kv, 8, dim, "bf16")
    q = RopeAppend(Rope(100.0, 4)).evaluate(qkv, k, v, starts=starts).reshape(2, n_tokens, heads, dim)
    given = qkv.reshape(2, n_tokens, -1, dim)
    for row, start in enumerate(starts):
        for t in range(n_tokens):
            turn = np.exp(1j * (start + t) * 100.0 ** (-np.arange(0, dim, 2) / dim))
            turned = given[row, t, :, 0::2] + 1j * given[row, t, :, 1::2]
            turned = np.stack([(turned * turn).real, (turned * turn).imag], -1).reshape(-1, dim)
            np.testing.assert_allclose(q[row, t], turned[:heads], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(k.values[row, :, start + t], turned[heads : heads + n_kv], rtol=5e-3, atol=1e-3)
            expected = round_to("bf16", given[row, t, heads + n_kv :])
            np.testing.assert_array_equal(v.values[row, :, start + t], expected)
    assert np.count_nonzero(k.values) == np.count_nonzero(v.values) == 2 * n_kv * n_tokens * dim
    assert not np.any(k.values.view(np.uint32) & 0xFFFF)


def test_rope_work():
    """Three flops per turned element; the new keys and values are written, nothing else of the cache."""
    k, v = caches(2, 2, 8, 4, "bf16")
    qkv = shape_only(2 * 3, (3 + 2 + 2) * 4)
    kernel = RopeAppend(Rope(100.0, 4))
    assert kernel.infer(qkv, k, v, starts=(0, 0)) == ((6, 12), BF16)
    expected = Work("bf16", (), 3 * 6 * 5 * 4, ((1, 2 * 6 * 2 * 4 * 2),), 2 * 6 * (28 + 12), "rope")
    assert kernel.work(qkv, k, v, starts=(0, 0)) == expected


@pytest.mark.parametrize("queries", [(3, 3), (1, 3), (1, 1), (2, 3, 3), (4,)])
@pytest.mark.parametrize(("starts", "n_tokens"), [((0, 0), 5), ((4, 4), 1), ((2, 5), 1), ((1, 3), 3)])
def test_attention_is_softmax_over_the_visible_prefix(queries, starts, n_tokens):
    """Head by head and token by token against the formula; what lies behind the position is not seen."""
    dim, n_heads = 4, sum(queries)
    q = normal(2 * n_tokens, n_heads * dim)
    k, v = (stored(normal(2, len(queries), 9, dim)) for _ in "kv")
    out = Attention().evaluate(q, k, v, starts=starts, queries=queries).reshape(2, n_tokens, n_heads, dim)
    kv_of = np.repeat(np.arange(len(queries)), queries)
    for row, start in enumerate(starts):
        for t in range(n_tokens):
            for head in range(n_heads):
                keys, values = (c.values[row, kv_of[head], : start + t + 1] for c in (k, v))
                query = q.reshape(2, n_tokens, n_heads, dim)[row, t, head]
                weights = np.exp(keys @ query / np.sqrt(dim))
                expected = weights @ values / weights.sum()
                np.testing.assert_allclose(out[row, t, head], expected, rtol=1e-4, atol=1e-5)


def test_attention_work_in_decode():
    """Per row and KV head two products with its own prefix; keys and values of the prefix are read once."""
    k, v = caches(3, 2, 16, 8, "bf16")
    work = Attention().work(shape_only(3, 4 * 8), k, v, starts=(9, 4, 9), queries=(2, 2))
    assert work.dtype == "bf16"
    assert work.matmuls == ((2, 2, 8, 5), (2, 2, 5, 8), (4, 2, 8, 10), (4, 2, 10, 8))
    assert work.vector_flops == 5 * 4 * (10 + 5 + 10)
    assert work.tensor_bytes == ((1, 2 * (10 + 5 + 10) * 2 * 8 * 2),)
    assert work.activation_bytes == 2 * (3 * 32 * 2)


def test_attention_work_in_prefill_counts_the_causal_half():
    """T tokens see (T + 1)/2 keys in the mean."""
    k, v = caches(2, 1, 64, 8)
    work = Attention().work(shape_only(2 * 15, 8, dtype=FP32), k, v, starts=(0, 0), queries=(1,))
    assert work.matmuls == ((2, 15, 8, 8), (2, 15, 8, 8))
    assert work.vector_flops == 5 * 2 * (15 * 16 // 2)
