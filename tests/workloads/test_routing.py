"""Which experts tokens go to when there are no values."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workloads.routing import Choice, balanced_traffic, evenly_spaced, traffic_of


@given(
    st.lists(st.integers(0, 40) | st.integers(0, 2000), min_size=1, max_size=9).map(tuple),
    st.sampled_from([(8, 2, 1, 1), (8, 3, 4, 2), (16, 8, 8, 4), (12, 5, 2, 2), (3, 1, 1, 1)]),
    st.sampled_from([0, 1, 3, 8, 20]),
)
def test_kinds_of_tokens_stand_for_all_of_them(tokens, sizes, n_redundant):
    """Balanced traffic, which counts kinds of tokens, is that of all tokens one by one."""
    n, k, n_groups, n_kept = sizes
    choice = Choice(n, k, n_groups, n_kept, n_redundant)
    first = np.concatenate([i * n // len(tokens) + np.arange(count) for i, count in enumerate(tokens)]) % n
    assert balanced_traffic(tokens, choice) == traffic_of(evenly_spaced(first, choice), tokens, choice)
