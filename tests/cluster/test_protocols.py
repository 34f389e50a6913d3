"""What a library's protocols add to a schedule: base, steps, messages, bytes on the wire; and which one is taken."""

from __future__ import annotations

import pytest
from attrs import evolve

from cluster import launch
from cluster.bench import bench
from cluster.experiment import idealised
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError
from configs.loader import load_experiment, load_system
from configs.spec.communication import CommunicationSpec, ProtocolSpec
from configs.spec.topology import LinkSpec
from tests.cluster import machines
from tests.collectives.rows import nodes
from topology import Switch, ideal

US = 1_000_000
LINK = LinkSpec(1e9, latency_ps=US // 2)
SLIM = ProtocolSpec(("ring", "direct"), base_ps=3 * US, step_ps=US, network_step_ps=5 * US, payload=0.5)


def time_ps(system, op, size_bytes, algorithm="ring"):
    """Return the time of an operation, in ps."""
    [row] = bench(system, op, algorithm=algorithm, sizes_bytes=[size_bytes], numerics="shapes")
    return round(row.time_s * 1e12)


def switch(n=4, **communication):
    """Return chips behind a switch; a route has two links."""
    return machines.system(Switch(chips=n, link=LINK), **communication)


def test_a_ring_under_a_protocol():
    """Launch + base + (n-1) (step + α + m / (payload B)): on a switch all chips do the same, or are played in full."""
    system = switch(launch_ps=7 * US, protocols={"slim": SLIM})
    part_ps = 1000 * US // 1000  # 1000 bytes at 1 GB/s
    assert time_ps(system, "all_gather", 4000) == 7 * US + 3 * US + 3 * (US + US + 2 * part_ps)
    for numerics in ("real", "shapes"):
        [row] = bench(system, "all_gather", algorithm="ring", sizes_bytes=[4000], numerics=numerics)
        assert round(row.time_s * 1e12) == time_ps(system, "all_gather", 4000)


def test_messages_of_a_step_leave_one_after_the_other():
    """The last of n-1 small messages leaves (n-2) times the message cost later."""
    system = switch(protocols={"slim": evolve(SLIM, message_ps=US, payload=1.0)})
    wait = time_ps(system, "all_to_all", 16, "direct") - 3 * US - US - US
    assert 2 * US <= wait < 2 * US + US // 10


def test_steps_over_the_network_cost_more():
    """A ring over two nodes of one chip crosses the network in every step, one in a node never."""
    apart = machines.system(nodes(2, 1, LINK), protocols={"slim": evolve(SLIM, payload=1.0)})
    together = machines.system(nodes(4, 2, LINK), protocols={"slim": evolve(SLIM, payload=1.0)})
    across = time_ps(apart, "all_gather", 8)
    [row] = bench(together, "all_gather", algorithm="ring", ranks=[0, 1], sizes_bytes=[8], numerics="shapes")
    assert across - round(row.time_s * 1e12) == pytest.approx(4 * US, abs=US // 100)


def test_auto_takes_the_fastest_protocol_and_a_name_can_say_which():
    """Small calls take the one that starts sooner, large ones the one that wastes less of the wire."""
    slim = evolve(SLIM, algorithms=("ring",))
    wide = evolve(slim, base_ps=100 * US, payload=1.0)
    system = switch(protocols={"slim": slim, "wide": wide, "off": None})
    chosen = [r.algorithm for r in bench(system, "all_gather", sizes_bytes=[400, 4_000_000], numerics="shapes")]
    assert chosen == ["ring:protocol=slim", "ring:protocol=wide"]
    assert time_ps(system, "all_gather", 400, "ring:protocol=wide") > time_ps(system, "all_gather", 400)
    with pytest.raises(ConfigError, match="'none' is not a protocol of this system; accepted: slim, wide"):
        time_ps(system, "all_gather", 400, "ring:protocol=none")


def test_a_protocol_has_limits():
    """What it does not serve takes the plain figures."""
    few = evolve(SLIM, max_ranks=3, max_size_bytes=1000)
    assert time_ps(switch(4, protocols={"few": few}), "all_gather", 4000) == time_ps(switch(4), "all_gather", 4000)
    assert not few.serves("all_gather", 2, 1001)
    assert few.serves("all_gather", 2, 1000)


def test_modes_of_launching():
    """The mode's launch comes on top; an unknown mode is refused."""
    plain, eager = (CommunicationSpec(1000, {"graph": 0, "eager": 500}, mode) for mode in ("graph", "eager"))
    assert (plain.call_ps, eager.call_ps) == (1000, 1500)
    with pytest.raises(ConfigError, match="mode: 'lazy' is not a way of launching; accepted: graph, eager"):
        CommunicationSpec(0, {"graph": 0, "eager": 500}, "lazy")


def test_a_profile_on_top_of_another():
    """`like` fills in what a profile does not say, with the sources; --set changes one figure of a named profile."""
    spec = load_system("dgx-h100-4-nodes", ["communication.protocols.LL.base=1us"], VOCABULARY).communication
    ll = spec.protocols["LL"]
    inner = load_system("dgx-h100", [], VOCABULARY).communication.protocols["LL"]
    assert (ll.base_ps, ll.step_ps, ll.algorithms) == (US, inner.step_ps, inner.algorithms)
    assert ll.network_step_ps > 0
    assert "tuning.cc" in spec.provenance["protocols.LL.step"].source
    assert "protocols.LL.base" not in spec.provenance


@pytest.mark.parametrize("name", ["dgx-h100", "dgx-h100-4-nodes", "wormhole-galaxy"])
def test_ideal_is_links_alone(name):
    """Without overheads a system, and those that it is composed of, have the plain links."""
    bare = ideal(load_system(name, [], VOCABULARY))
    assert bare.communication == CommunicationSpec()
    assert bare.chip.kernels.kinds == {}
    with launch(bare, n_chips=2, numerics="shapes") as cluster:
        assert cluster.run(send_nothing).time_s == 0
    experiment = load_experiment("galaxy-smollm2", (), VOCABULARY)
    assert idealised(experiment).system.communication == CommunicationSpec()


async def send_nothing(chip):
    """Do nothing."""
    del chip


@pytest.mark.parametrize(("name", "least", "most"), [("dgx-h100", 5, 8), ("hgx-b200", 6, 8), ("gb200-nvl72", 4, 9)])
def test_switches_add_only_from_their_published_number_of_ranks(name, least, most):
    """NCCL uses NVLS from 5 GPUs of an H100 node, 6 of a B200 node and 4 of a GB200 domain, and gains by it."""
    system = load_system(name, [], VOCABULARY)
    left_out = ["communication.protocols.NVLS=null"]
    left_out += ["communication.protocols.NVLS_small_chunks=null"] if "nvl72" in name else []
    without = load_system(name, left_out, VOCABULARY)
    for n in (2, least - 1, least, most):
        for size in (2**14, 2**34):
            rows = [
                next(iter(bench(s, "all_reduce", n_ranks=n, sizes_bytes=[size], numerics="shapes")))
                for s in (system, without)
            ]
            added = "NVLS" in rows[0].algorithm
            assert added <= (n >= least)
            assert added or size == 2**14 or n < least
            assert (rows[0].time_s < rows[1].time_s) == added


@pytest.mark.parametrize("op", ["all_gather", "reduce_scatter", "all_reduce"])
@pytest.mark.parametrize(
    ("name", "n"), [("wormhole-t3000-ring", 4), ("wormhole-t3000-ring", 8), ("blackhole-galaxy-ring", 8)]
)
def test_two_directions_double_a_ring_of_ethernet(name, n, op):
    """Large calls round a ring take half the time in two directions; on a line the second one is there already.

    Small ones do not: their time is that of the steps, and of these there are fewer, but not half of the whole call.
    """
    ring = load_system(name, [f"topology.dims=[{n}]"], VOCABULARY)
    protocol = {"all_gather": "Gather", "reduce_scatter": "Reduce", "all_reduce": "All_reduce"}[op]
    one, two = (f"{kind}:protocol={protocol}" for kind in ("ring", "ring_bidirectional"))
    assert time_ps(ring, op, 2**30, two) == pytest.approx(time_ps(ring, op, 2**30, one) / 2, rel=0.02)
    assert time_ps(ring, op, 2**12, two) > 0.6 * time_ps(ring, op, 2**12, one)
    line = load_system(name, [f"topology.dims=[{n}]", "topology.kind=line"], VOCABULARY)
    best = time_ps(line, op, 2**30, "line")
    assert best < time_ps(line, op, 2**30, two) * 1.01
    assert best > 1.5 * time_ps(ring, op, 2**30, two)  # n - 1 parts over each link, not half of them


@pytest.mark.parametrize(("shape", "gain"), [("4x4x8", 1.63), ("4x8x8", 1.31)])
def test_a_twisted_torus_gains(shape, gain):
    """An all-to-all on a twisted slice gains what was measured on TPU v4 (N. Jouppi et al., ISCA 2023), or more."""
    times = [
        time_ps(load_system(f"tpu-v4-{shape}", [f"topology.twist={twist}"], VOCABULARY), "all_to_all", 2**26, "direct")
        for twist in ("false", "true")
    ]
    assert gain < times[0] / times[1] < 1.4 * gain
