"""Even splits and the mesh of ranks."""

from hypothesis import given
from hypothesis import strategies as st

from workloads.layout import Layout, Place, split_evenly

DEGREES = st.integers(1, 9)


@given(st.integers(0, 200), st.integers(1, 40))
def test_shares_cover_everything_in_order_and_differ_by_at_most_one(n, parts):
    """The shares are consecutive, the larger first."""
    shares = split_evenly(n, parts)
    assert [i for share in shares for i in share] == list(range(n))
    sizes = [len(share) for share in shares]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1


def test_nine_heads_over_four_ranks_and_thirty_layers_over_eight_stages():
    """The sizes of SmolLM2 on a Galaxy."""
    assert [len(share) for share in split_evenly(9, 4)] == [3, 2, 2, 2]
    assert [len(share) for share in split_evenly(30, 8)] == [4, 4, 4, 4, 4, 4, 3, 3]


@given(DEGREES, DEGREES, DEGREES)
def test_rank_and_place_are_inverse(tp, pp, dp):
    """Every rank has one place, the tensor-parallel index fastest."""
    layout = Layout(tp, pp, dp)
    places = [layout.place(rank) for rank in range(layout.n_ranks)]
    assert [layout.rank(place) for place in places] == list(range(layout.n_ranks))
    assert places[0] == Place(0, 0, 0)
    assert places[-1] == Place(dp - 1, pp - 1, tp - 1)


@given(DEGREES, DEGREES, DEGREES, st.data())
def test_groups_hold_the_rank_at_its_index(tp, pp, dp, data):
    """A rank stands in each of its groups at its index, and one name means one set of ranks."""
    layout = Layout(tp, pp, dp)
    rank, other = (data.draw(st.integers(0, layout.n_ranks - 1)) for _ in range(2))
    place = layout.place(rank)
    assert layout.tp_group(rank).ranks.index(rank) == place.tp
    assert layout.pp_group(rank).ranks.index(rank) == place.pp
    assert layout.dp_group(rank).ranks.index(rank) == place.dp
    for group in (layout.tp_group, layout.pp_group, layout.dp_group):
        assert (group(rank).name == group(other).name) == (group(rank).ranks == group(other).ranks)
