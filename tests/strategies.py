"""Hypothesis strategies that several test folders share: links and topologies of every kind."""

from __future__ import annotations

from hypothesis import strategies as st

from configs.spec.topology import LinkSpec, RoutingSpec
from topology import Dragonfly, FatTree, FullyConnected, Line, Mesh, Ring, Switch, Torus

BANDWIDTHS = (1e9, 3e9, 12.5e9, 25e9, 450e9)


def links():
    """Links of uneven but readable figures."""
    return st.builds(
        LinkSpec,
        bandwidth_bytes_per_s=st.sampled_from(BANDWIDTHS),
        latency_ps=st.integers(0, 2_000_000),
        count=st.integers(1, 4),
    )


@st.composite
def topologies(draw):
    """Small topologies of every kind, with the routings that fit them all."""
    link = draw(links())
    n = draw(st.integers(2, 9))
    dims = draw(st.sampled_from([(2, 2), (3, 2), (3, 3), (2, 2, 2), (4, 2)]))
    planes = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    spec = draw(
        st.sampled_from(
            [
                Ring(dims=(n,), link=link),
                Line(dims=(n,), link=link),
                Mesh(dims=dims, link=link),
                Torus(dims=dims, link=link),
                Torus(dims=(3, 6), link=link, twist=True),
                FullyConnected(chips=n, link=link),
                Switch(chips=n, planes=planes, link=link),
                FatTree(chips=n, radix=6, link=link),
                Dragonfly(groups=3, routers=2, global_links=2, link=link),
            ]
        )
    )
    routing = RoutingSpec(
        kind=draw(st.sampled_from(["dimension_order", "shortest", "ecmp"])),
        ties=draw(st.sampled_from(["positive", "alternate"])),
        spread=draw(st.sampled_from(["modulo", "hash"])),
        planes=draw(st.sampled_from(["split", "hash"])),
    )
    return spec.build(routing)


def switches_that_add():
    """Chips behind planes of switches that add and multicast."""
    planes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
    specs = st.builds(Switch, chips=st.integers(2, 9), planes=planes, link=links(), in_network=st.just(True))
    return specs.map(lambda spec: spec.build(RoutingSpec()))
