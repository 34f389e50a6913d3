"""A cache that is split along the sequence: the parts merge to the whole, in values and in work."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workloads.test_kernels import normal, stored
from workloads.array import ShapeArray
from workloads.attention import Attention, PartialAttention, RopeAppend
from workloads.context import WHOLE, MergeParts, Stripe
from workloads.rope import Rope
from workloads.rounding import NUMPY_DTYPES

HEADS, DIM, LENGTH = 4, 8, 40


@given(n=st.integers(1, 5), start=st.integers(0, 20), n_tokens=st.integers(0, 12))
def test_stripes_share_all_positions(n, start, n_tokens):
    """Each position is on one rank, at the place that follows those before it."""
    new = np.arange(start, start + n_tokens)
    caches = [np.full(40, -1) for _ in range(n)]
    for index, cache in enumerate(caches):
        stripe = Stripe(index, n)
        taken, places = stripe.own(start, n_tokens)
        cache[places] = new[taken]
        assert stripe.counts(start) == sum(stripe.count(length) for length in range(start + 1))
    for index, cache in enumerate(caches):
        assert [p for p in cache if p >= 0] == [p for p in new if p % n == index]
        assert all(p == place * n + index for place, p in enumerate(cache) if p >= 0)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 4),
    steps=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    ahead=st.integers(0, 9),
    window=st.sampled_from([None, 1, 3, 11]),
    softcap=st.sampled_from([None, 2.0]),
)
def test_parts_merge_to_the_whole(n, steps, ahead, window, softcap):
    """Rows at their own positions, windows without a key on some rank; the work of all parts is that of the whole."""
    whole, params = Attention(softcap=softcap), {"queries": (HEADS,)} | ({"window": window} if window else {})
    append, stripes = RopeAppend(Rope(1e4, DIM)), [Stripe(i, n) for i in range(n)]
    caches = {
        stripe: [stored(np.zeros((2, 1, stripe.count(LENGTH), DIM), np.float32)) for _ in "kv"]
        for stripe in (WHOLE, *stripes)
    }
    starts = (0, 0)
    for n_tokens in (ahead + 1, *steps):
        qkv = normal(2 * n_tokens, (HEADS + 2) * DIM)
        q = append.evaluate(qkv, *caches[WHOLE], starts=starts)
        expected = whole.evaluate(q, *caches[WHOLE], starts=starts, **params)
        parts, seen = [], 0
        for stripe in stripes:
            np.testing.assert_array_equal(append.evaluate(qkv, *caches[stripe], starts=starts, stripe=stripe), q)
            partial = PartialAttention(whole)
            parts.append(partial.evaluate(q, *caches[stripe], starts=starts, stripe=stripe, **params))
            assert parts[-1].shape == partial.infer(q, *caches[stripe], starts=starts, stripe=stripe, **params)[0]
            seen += partial.work(q, *caches[stripe], starts=starts, stripe=stripe, **params).vector_flops
        merged = MergeParts().evaluate(np.concatenate(parts), n_ranks=n, heads=HEADS, dtype="fp32")
        np.testing.assert_allclose(merged, expected, rtol=1e-4, atol=1e-5)
        assert seen == whole.work(q, *caches[WHOLE], starts=starts, **params).vector_flops
        starts = (starts[0] + n_tokens, starts[1] + 1)  # the second row's later tokens are written over


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_parts_travel_in_the_format_of_activations(dtype):
    """A row is its elements and eight bytes."""
    q = ShapeArray((3, HEADS * DIM), NUMPY_DTYPES[dtype])
    cache = stored(np.zeros((3, 1, LENGTH, DIM), np.float32), dtype)
    shape, packed = PartialAttention(Attention()).infer(q, cache, cache, queries=(HEADS,))
    assert (shape, packed) == ((HEADS * 3, DIM * 2 + 8), np.dtype(np.uint8))
