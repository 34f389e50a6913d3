"""Closed formulas for recognised shapes against the search for the least cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.spec.topology import LinkSpec, RoutingSpec
from topology import Compose, Line, Mesh, Ring, Switch, Topology, bisection_bytes_per_s
from topology.bisection import searched_bisection_bytes_per_s
from topology.recognised import recognised_bisection_bytes_per_s


def link(bandwidth: int) -> LinkSpec:
    """Return a link without latency."""
    return LinkSpec(bandwidth_bytes_per_s=bandwidth, latency_ps=0)


AXES = st.tuples(st.sampled_from([Line, Ring]), st.sampled_from([2, 4]), st.integers(1, 9))


def grid(axes: list[tuple[type, int, int]]) -> Topology:
    """Return the product of lines and rings, each with a bandwidth of its own."""
    spec = None
    for i, (kind, length, bandwidth) in enumerate(axes):
        row = kind((length,), link(bandwidth), axes=(f"a{i}",))
        spec = row if spec is None else Compose(spec, length, (f"a{i}",), network=row, each_nic=True)
    return spec.build(RoutingSpec())


@given(axes=st.lists(AXES, min_size=1, max_size=3).filter(lambda axes: sum(length for _, length, _ in axes) <= 8))
def test_grids_of_unequal_axes(axes) -> None:
    """The best straight cut is the least cut, however much wider one axis is than another."""
    topology = grid(axes)
    assert recognised_bisection_bytes_per_s(topology) == searched_bisection_bytes_per_s(topology)


@given(
    n_groups=st.sampled_from([2, 4]),
    n_chips=st.integers(1, 3),
    planes=st.lists(st.integers(1, 5), min_size=1, max_size=2),
    uplinks=st.lists(st.integers(1, 5), min_size=1, max_size=2),
    bandwidths=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_two_tiers_of_planes(n_groups, n_chips, planes, uplinks, bandwidths) -> None:
    """Groups of chips below switches, whose planes go up to further switches, tapered or not."""
    node = Switch(n_chips, link(bandwidths[0]), tuple(planes))
    network = Switch(n_groups, link(bandwidths[1]), tuple(uplinks))
    topology = Compose(node, n_groups, network=network, nics="switches", each_nic=True).build(RoutingSpec())
    assert recognised_bisection_bytes_per_s(topology) == searched_bisection_bytes_per_s(topology)


@pytest.mark.parametrize(
    "spec",
    [
        Mesh((3, 3), link(1)),
        Compose(Mesh((2, 2), link(1)), 2, network=Line((2,), link(1)), nics=(0,)),
        Compose(Switch(2, link(1)), 3, network=Switch(3, link(1)), nics="switches"),
        Compose(Switch(2, link(1)), 2, network=Switch(4, link(1))),
        Compose(Switch(2, link(1), (1, 2)), 2, network=Line((2,), link(1)), nics="switches", each_nic=True),
        Switch(4, link(1), (1, 1)),
    ],
)
def test_other_shapes_are_not_taken_for_these(spec) -> None:
    """Odd sides, chips with links of two sorts, odd groups, single tiers: no formula here."""
    assert recognised_bisection_bytes_per_s(spec.build(RoutingSpec())) is None


def test_it_is_asked_before_the_search() -> None:
    """A composed torus that is too wide to search has its bisection."""
    wide = grid([(Ring, 16, 3), (Ring, 16, 2), (Ring, 16, 1)])
    assert bisection_bytes_per_s(wide) == 2 * 16 * 16 * 1
