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


LAYOUTS = st.builds(Layout, tp=DEGREES, pp=DEGREES, dp=DEGREES, ep=st.integers(1, 3), cp=st.integers(1, 3))


SIDES = st.tuples(st.integers(1, 4), st.integers(1, 5))
GRIDS = st.builds(lambda grid, pp, dp: Layout(grid[0] * grid[1], pp, dp, tp_grid=grid), SIDES, DEGREES, DEGREES)


@given(LAYOUTS)
def test_rank_and_place_are_inverse(layout):
    """Every rank has one place, the tensor-parallel index fastest."""
    places = [layout.place(rank) for rank in range(layout.n_ranks)]
    assert [layout.rank(place) for place in places] == list(range(layout.n_ranks))
    assert places[0] == Place(0, 0, 0)
    assert places[-1] == Place(layout.dp - 1, layout.pp - 1, layout.tp - 1, layout.ep - 1, layout.cp - 1)


@given(GRIDS, st.integers(0, 100))
def test_a_grid_shares_both_sides(layout, n):
    """Shares cover both sides; a line's shares are neighbours; every matrix element is on one rank."""
    places = [Place(0, 0, tp) for tp in range(layout.tp)]
    assert [i for place in places if layout.across(place)[0] == place.tp for i in layout.part(n, place)] == [*range(n)]
    assert sorted(i for place in places for i in layout.own_hidden(n, place)) == [*range(n)]
    held = sorted((i, j) for place in places for i in layout.part(n, place) for j in layout.hidden_part(n, place))
    assert held == [(i, j) for i in range(n) for j in range(n)]
    for place in places:
        assert layout.part(n, place)[:1] == layout.shares(n, place)[0][:1]


@given(LAYOUTS | GRIDS, st.data())
def test_groups_hold_the_rank_at_its_index(layout, data):
    """A rank stands in each of its groups at its index, and one name means one set of ranks."""
    rank, other = (data.draw(st.integers(0, layout.n_ranks - 1)) for _ in range(2))
    place = layout.place(rank)
    groups = {
        layout.shard_group: layout.index(place),
        layout.cp_group: place.cp,
        layout.ep_group: place.ep,
        layout.pp_group: place.pp,
        layout.dp_group: place.dp,
        layout.across_group: layout.across(place).index(layout.index(place)),
        layout.along_group: layout.along(place).index(layout.index(place)),
    }
    for group, index in groups.items():
        assert group(rank).ranks.index(rank) == index
        assert (group(rank).name == group(other).name) == (group(rank).ranks == group(other).ranks)
