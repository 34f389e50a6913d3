"""Norms, activations, windows and soft caps: values against plain formulas, work against closed ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workloads.test_kernels import caches, normal, shape_only, stored
from workloads.attention import Attention, RopeAppend
from workloads.chip import Work
from workloads.elementwise import (
    ACTIVATIONS,
    Activation,
    AddPositions,
    GatedActivation,
    LayerNorm,
    QueryKeyNorm,
    RmsNorm,
    SoftCap,
)
from workloads.kernels import Matmul
from workloads.moments import Moments, Normalise
from workloads.rope import Rope, RopeScaling
from workloads.rounding import FP32


def test_layer_norm():
    """Each token is (x - mean) / √(var + eps) · w + b; without a bias it is absent."""
    x, w, b = normal(3, 8) + 5, stored(normal(8)), stored(normal(8))
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * w.values
    np.testing.assert_allclose(LayerNorm(1e-5).evaluate(x, w), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(LayerNorm(1e-5).evaluate(x, w, b), expected + b.values, rtol=1e-4, atol=1e-5)
    assert LayerNorm(1e-5).work(x, w, b) == Work("fp32", (), 7 * 24, ((1, 32), (1, 32)), 2 * 96, "norm")


def test_rms_norm_with_an_offset():
    """The offset is added to the weight."""
    x, w = normal(3, 8), stored(normal(8))
    plain = RmsNorm(1e-5).evaluate(x, stored(w.values + 1))
    np.testing.assert_allclose(RmsNorm(1e-5, offset=1.0).evaluate(x, w), plain, rtol=1e-6)


@pytest.mark.parametrize(("kind", "whole"), [("rms", RmsNorm(1e-5, 1.0)), ("layer", LayerNorm(1e-5))])
def test_a_norm_of_shares(kind, whole):
    """The moments of uneven shares add up to those of whole tokens; all shares together do the work of the whole."""
    x, tensors = normal(3, 9) + 2, [normal(9) for _ in range(1 if kind == "rms" else 2)]
    shares = [slice(0, 5), slice(5, 9), slice(9, 9)]
    moments = sum(Moments(kind).evaluate(x[:, share]) for share in shares)
    kernel = Normalise(9, 1e-5, kind, 1.0 if kind == "rms" else 0.0)
    found = [kernel.evaluate(x[:, s], moments, *(stored(t[s]) for t in tensors)) for s in shares]
    expected = whole.evaluate(x, *map(stored, tensors))
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, rtol=1e-4, atol=1e-5)
    flops = Moments(kind).work(x).vector_flops + kernel.work(x, moments, *map(stored, tensors)).vector_flops
    assert flops == whole.work(x, *map(stored, tensors)).vector_flops


def test_query_key_norm():
    """Query and key heads are normalised each by itself, values pass."""
    qkv, q, k = normal(2, (3 + 2 + 2) * 4), stored(normal(4)), stored(normal(4))
    y = QueryKeyNorm(1e-6).evaluate(qkv, q, k, n_kv=2).reshape(2, 7, 4)
    heads = qkv.reshape(2, 7, 4)
    unit = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(y[:, :3], unit[:, :3] * q.values, rtol=1e-5)
    np.testing.assert_allclose(y[:, 3:5], unit[:, 3:5] * k.values, rtol=1e-5)
    np.testing.assert_array_equal(y[:, 5:], heads[:, 5:])
    work = QueryKeyNorm(1e-6).work(qkv, q, k, n_kv=2)
    assert work == Work("fp32", (), 4 * 2 * 20, ((1, 16), (1, 16)), 2 * 4 * 2 * 20, "norm")


EXACT = {
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
@given(x=st.floats(-30, 30, width=32))
def test_activations(kind, x):
    """To seven digits of the larger of x and the result."""
    y = Activation(kind).evaluate(np.float32([[x]]))
    assert y.dtype == np.float32
    assert float(y[0, 0]) == pytest.approx(EXACT[kind](x), rel=1e-5, abs=2e-7 * max(abs(x), 1))


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_gates(kind):
    """A gate is the activation times the other half, at the activation's flops and one more."""
    x = normal(3, 8)
    expected = Activation(kind).evaluate(x[:, :4]) * x[:, 4:]
    np.testing.assert_array_equal(GatedActivation(kind).evaluate(x), expected)
    flops = ACTIVATIONS[kind][1]
    assert GatedActivation(kind).work(x).vector_flops == (flops + 1) * 12
    assert Activation(kind).work(x) == Work("fp32", (), flops * 24, (), 2 * 96, "activation")
    assert {GatedActivation(kind).name, Activation(kind).name} == {f"{kind}_mul", kind}


def test_softcap_and_positions_and_bias():
    """Bounded logits; each row's positions from its start on; a bias on every row."""
    x, table = normal(4, 6), stored(normal(9, 6))
    np.testing.assert_allclose(SoftCap(2.0).evaluate(x), 2 * np.tanh(x / 2), rtol=1e-5)
    assert SoftCap(2.0).work(x).vector_flops == 3 * 24
    moved = AddPositions().evaluate(x, table, starts=(0, 5))
    np.testing.assert_array_equal(moved, x + table.values[[0, 1, 5, 6]])
    assert AddPositions().work(x, table, starts=(0, 5)) == Work("fp32", (), 24, ((1, 96),), 2 * 96, "lookup")
    w, b = stored(normal(5, 6)), stored(normal(5))
    np.testing.assert_allclose(Matmul().evaluate(x, w, b), x @ w.values.T + b.values, rtol=1e-5, atol=1e-5)
    assert Matmul().work(x, w, b) == Work("fp32", ((1, 4, 6, 5),), 20, ((1, 120), (1, 20)), 96 + 80, "matmul")


@given(
    st.integers(1, 7),
    st.integers(1, 5),
    st.lists(st.integers(0, 6), min_size=1, max_size=3),
    st.sampled_from([None, 0.5]),
)
def test_windows_and_soft_caps(window, n_tokens, starts, softcap):
    """A token sees the last `window` keys, its own included; the work counts just these."""
    starts, dim = tuple(starts), 4
    q = normal(len(starts) * n_tokens, 2 * dim)
    k, v = (stored(normal(len(starts), 1, 12, dim)) for _ in "kv")
    kernel = Attention(scale=0.7, softcap=softcap)
    out = kernel.evaluate(q, k, v, starts=starts, queries=(2,), window=window).reshape(len(starts), n_tokens, 2, dim)
    n_seen = 0
    for row, start in enumerate(starts):
        for t in range(n_tokens):
            seen = slice(max(0, start + t + 1 - window), start + t + 1)
            n_seen += seen.stop - seen.start
            for head in range(2):
                scores = 0.7 * k.values[row, 0, seen] @ q.reshape(*out.shape)[row, t, head]
                scores = scores if softcap is None else softcap * np.tanh(scores / softcap)
                weights = np.exp(scores)
                expected = weights @ v.values[row, 0, seen] / weights.sum()
                np.testing.assert_allclose(out[row, t, head], expected, rtol=1e-4, atol=1e-5)
    work = kernel.work(q, k, v, starts=starts, queries=(2,), window=window)
    assert work.vector_flops == (5 if softcap is None else 8) * 2 * n_seen
    n_read = sum(min(start + n_tokens, n_tokens - 1 + window) for start in starts)
    assert work.tensor_bytes == ((1, 2 * n_read * dim * 4),)


def test_partial_and_absent_rotation():
    """The rest of a head passes; without rotary positions all of it does, at no flops."""
    qkv = normal(2, 3 * 8)
    kernel = RopeAppend(Rope(100.0, 4))
    k, v = caches(2, 1, 4, 8)
    q = kernel.evaluate(qkv, k, v, starts=(1, 1))
    np.testing.assert_array_equal(q[:, 4:], qkv[:, 4:8])
    assert not np.allclose(q[:, :4], qkv[:, :4])
    assert kernel.work(qkv, k, v, starts=(1, 1)).vector_flops == 3 * 2 * 2 * 4
    still = RopeAppend(None)
    np.testing.assert_array_equal(still.evaluate(qkv, k, v, starts=(1, 1)), qkv[:, :8])
    np.testing.assert_array_equal(k.values[:, 0, 1], qkv[:, 8:16])
    assert still.work(qkv, k, v, starts=(1, 1)).vector_flops == 0
    assert still.infer(shape_only(2, 24, dtype=FP32), k, v, starts=(1, 1)) == ((2, 8), FP32)


def test_a_rank_without_heads():
    """Nothing to attend to is an empty result, not an error."""
    k, v = caches(2, 0, 4, 8)
    q = RopeAppend(Rope(100.0, 8)).evaluate(np.zeros((2, 0), np.float32), k, v, starts=(1, 3))
    out = Attention().evaluate(q, k, v, starts=(1, 3), queries=())
    assert out.shape == (2, 0)
    assert Attention().work(q, k, v, starts=(1, 3), queries=()).matmuls == ()
    assert not np.any(Matmul().evaluate(out, stored(np.zeros((5, 0), np.float32))))


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize(
    ("theta", "dim", "length", "factor"), [(1e4, 64, 4096, 40.0), (1.5e5, 64, 4096, 32.0), (1e6, 128, 32768, 4.0)]
)
def test_yarn(theta, dim, length, factor, truncate):
    """Pairs of more than 32 turns in the original context stay, of fewer than one are divided (arXiv 2309.00071, 3.2).

    Between, the kept share is a line over the pairs, from the pair of 32 turns to that of one, rounded outwards.
    """
    scaling = RopeScaling(kind="yarn", factor=factor, original_context=length, truncate=truncate)
    plain, scaled = Rope(theta, dim).frequencies(), Rope(theta, dim, scaling).frequencies()
    turns, pairs = length * plain / (2 * np.pi), np.arange(dim // 2)
    first, last = (dim * math.log(length / (2 * math.pi * r)) / (2 * math.log(theta)) for r in (32, 1))
    if truncate:
        first, last = math.floor(first), math.ceil(last)
    share = np.interp(pairs, [first, last], [1, 0])
    np.testing.assert_allclose(scaled, plain * share + plain / factor * (1 - share))
    kept, divided = (turns > 32) & (pairs <= first), (turns < 1) & (pairs >= last)
    np.testing.assert_allclose(scaled[kept], plain[kept])
    np.testing.assert_allclose(scaled[divided], plain[divided] / factor)
    assert kept.any()
    assert divided.any()
    assert scaling.amplitude == pytest.approx(0.1 * math.log(factor) + 1)


def test_the_amplitude_of_yarn():
    """Rotated queries and keys are as much longer; a given factor counts, and a factor of one changes nothing."""
    given_, unit = (RopeScaling(kind="yarn", factor=f, attention_factor=a) for f, a in ((8.0, 1.5), (1.0, None)))
    qkv = normal(3, 3 * 8)
    for scaling, amplitude in ((given_, 1.5), (unit, 1.0)):
        q = RopeAppend(Rope(1e4, 8, scaling)).evaluate(qkv, *caches(1, 1, 3, 8), starts=(0,))
        np.testing.assert_allclose(np.linalg.norm(q, axis=1), amplitude * np.linalg.norm(qkv[:, :8], axis=1), rtol=1e-5)
    np.testing.assert_array_equal(Rope(1e4, 8, unit).frequencies(), Rope(1e4, 8).frequencies())


def test_scaled_frequencies():
    """Linear divides all; llama3 leaves short waves, divides long ones, and never leaves the two."""
    plain = Rope(10000.0, 64).frequencies()
    linear = Rope(10000.0, 64, RopeScaling(kind="linear", factor=4.0)).frequencies()
    np.testing.assert_allclose(linear, plain / 4)
    bands = RopeScaling(kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=512)
    scaled = Rope(10000.0, 64, bands).frequencies()
    wavelength = 2 * np.pi / plain
    np.testing.assert_allclose(scaled[wavelength < 512 / 4], plain[wavelength < 512 / 4])
    np.testing.assert_allclose(scaled[wavelength > 512], plain[wavelength > 512] / 8)
    assert np.all((scaled <= plain) & (scaled >= plain / 8))
    assert np.all(np.diff(scaled) < 0)
