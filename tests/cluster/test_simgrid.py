"""The cases of tests/data/simgrid_reference.csv: finish and mean flow finish of SimGrid 4.1, within 0.1 %.

Collectives are run on chips through `launch`; patterns that are no collective are task graphs over our own routes.
"""

from __future__ import annotations

import csv
import random
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from cluster import launch
from cluster.backends.base import Setting
from cluster.backends.local import LocalBackend
from cluster.bench import bench
from cluster.records import merge
from cluster.timeline.build import build
from cluster.timeline.engine import play
from configs.spec.system import SystemSpec
from configs.spec.topology import LinkSpec, RoutingSpec
from tests.cluster.fluid_reference import Task, graph_of
from tests.cluster.machines import CHIP, US, array
from topology import Edges, Mesh, Ring, Switch, Topology, Torus
from topology.routing import ShortestPathRouter

CSV = Path(__file__).parents[1] / "data" / "simgrid_reference.csv"
REFERENCE = {row["case"]: row for row in csv.DictReader(CSV.read_text().splitlines())}
LINK, STAR_LINK = LinkSpec(12.5e9, US), LinkSpec(450e9, US)
PART = 1_000_000


def system(topology, ties="positive"):
    """Return a system with this topology."""
    return SystemSpec("simgrid", CHIP, topology, RoutingSpec(ties=ties))


def collective(spec, op, algorithm, order=None):
    """Return (finish, flows' ends) in ps of one collective with parts of 1 MB; ranks in `order`."""
    n = spec.topology.build(spec.routing).n_chips
    size = PART // 4 * (n if op == "all_to_all" else 1)

    async def program(chip):
        group = chip.group("given", order) if order else None
        await getattr(chip, op)(array(chip, size), group=group)

    with launch(spec, numerics="shapes", collectives={op: algorithm}) as cluster:
        finish = cluster.run(program).timeline.total_ps
    backend = LocalBackend(Setting(spec, n, "shapes", algorithms={op: algorithm}))
    records, traces = merge([(o.records, o.traces) for o in backend.run(program, (), lambda *_: None, lambda _: None)])
    topology = spec.topology.build(spec.routing)
    graph = build(spec, topology, records, traces).graph
    played = play(graph, topology.link_bandwidth_bytes_per_s)
    return finish, played.end_ps[graph.size_bytes > 0]


def flows(topology, pairs):
    """Return (finish, flows' ends) in ps of transfers (src, dst, bytes, start in ps)."""
    tasks = []
    for src, dst, size, start_ps in pairs:
        route = topology.route(src, dst)
        links = tuple(zip(route.links.tolist(), route.weights.tolist(), strict=True))
        tasks.append(Task(start_ps + route.latency_ps, size, links))
    played = play(graph_of(tasks), topology.link_bandwidth_bytes_per_s)
    return int(played.end_ps.max()), played.end_ps


def x_fastest(topology, rank):
    """Return our rank of the chip that the reference, whose x is fastest, calls `rank`."""
    width = topology.dims[0]
    return topology.rank_of((rank % width, rank // width))


def all_to_all(topology, ties="positive"):
    """All pairs at once."""
    return lambda: collective(system(topology, ties), "all_to_all", "direct")


def all_gather(topology, algorithm="ring"):
    """A ring all-gather among all chips."""
    return lambda: collective(system(topology), "all_gather", algorithm)


def row_major_ring():
    """A ring that goes along the rows of 8, whose ends are far apart."""
    mesh = Mesh(dims=(8, 4), link=LINK)
    topology = mesh.build(RoutingSpec())
    return collective(system(mesh), "all_gather", "ring", tuple(x_fastest(topology, r) for r in range(32)))


def incast():
    """Seven chips send to the first at once, rank r r MB."""
    star = Switch(chips=8, link=STAR_LINK).build(RoutingSpec())
    return flows(star, [(rank, 0, PART * rank, 0) for rank in range(1, 8)])


def transpose():
    """Chip (x, y) sends to chip (y, x)."""
    mesh = Mesh(dims=(4, 4), link=LINK).build(RoutingSpec())
    pairs = [(mesh.rank_of((x, y)), mesh.rank_of((y, x))) for x in range(4) for y in range(4) if x != y]
    return flows(mesh, [(src, dst, PART, 0) for src, dst in pairs])


def staggered():
    """200 random transfers that start within 1 ms, drawn as the parameters' column says."""
    mesh = Mesh(dims=(4, 4), link=LINK).build(RoutingSpec())
    rng = random.Random(1)
    pairs = []
    for _ in range(200):
        src, dst = rng.sample(range(16), 2)
        size = rng.randrange(10_000, 5_000_000)
        pairs.append((x_fastest(mesh, src), x_fastest(mesh, dst), size, rng.randrange(1000) * US))
    return flows(mesh, pairs)


def leaf_spine():
    """Four leaves of eight chips under one spine: 50 GB/s to a chip, 100 GB/s to the spine; all pairs at once."""
    chips, leaves, spine = np.arange(32), 32 + np.arange(4), np.full(4, 36)
    edges = Edges(
        src=np.concatenate([chips, leaves]).astype(np.int32),
        dst=np.concatenate([32 + chips // 8, spine]).astype(np.int32),
        bandwidth_bytes_per_s=np.array([50e9] * 32 + [100e9] * 4),
        latency_ps=np.full(36, US, np.int64),
        count=np.ones(36, np.int32),
    )
    topology = Topology.from_edges("graph", edges, n_chips=32, n_switches=5, router=ShortestPathRouter())
    return flows(topology, [(src, dst, PART, 0) for src, dst in permutations(range(32), 2)])


CASES = {
    **{f"mesh{x}x{y}_alltoall_XY": all_to_all(Mesh(dims=(x, y), link=LINK)) for x, y in ((4, 4), (8, 4), (8, 8))},
    **{
        f"torus{x}x{y}_alltoall_XY_tiepos": all_to_all(Torus(dims=(x, y), link=LINK))
        for x, y in ((4, 4), (8, 4), (8, 8))
    },
    "torus4x4_alltoall_XY_tiealt": all_to_all(Torus(dims=(4, 4), link=LINK), "alternate"),
    "torus4x4x4_alltoall_XYZ_tiepos": all_to_all(Torus(dims=(4, 4, 4), link=LINK)),
    "ring8_alltoall_tiepos": all_to_all(Ring(dims=(8,), link=LINK)),
    "ring8_alltoall_tiealt": all_to_all(Ring(dims=(8,), link=LINK), "alternate"),
    "ring8_allgather_ring": all_gather(Ring(dims=(8,), link=LINK)),
    "star8_450GBps_alltoall": all_to_all(Switch(chips=8, link=STAR_LINK)),
    "star8_450GBps_allgather_ring": all_gather(Switch(chips=8, link=STAR_LINK)),
    "star8_450GBps_incast7": incast,
    "mesh8x4_allgather_ring_neighbours": all_gather(Mesh(dims=(8, 4), link=LINK), "ring_neighbours"),
    "mesh8x4_allgather_ring_rowmajor": row_major_ring,
    "mesh4x4_transpose_XY": transpose,
    "mesh4x4_random200_staggered_XY": staggered,
    "leafspine4x8_alltoall_4to1": leaf_spine,
}


def test_every_case_is_here():
    """Each row of the file has its case."""
    assert set(CASES) == set(REFERENCE)
    assert len(REFERENCE) == 19


@pytest.mark.parametrize("case", CASES)
def test_finish_and_mean(case):
    """The last flow's end and the mean of all ends are SimGrid's, and so is the number of flows."""
    row = REFERENCE[case]
    finish_ps, ends_ps = CASES[case]()
    assert len(ends_ps) == int(row["n_flows"])
    assert finish_ps == ends_ps.max()
    assert finish_ps * 1e-12 == pytest.approx(float(row["finish_time_s"]), rel=1e-3)
    assert float(ends_ps.mean()) * 1e-12 == pytest.approx(float(row["mean_flow_finish_s"]), rel=1e-3)


BENCHED = {
    "mesh4x4_alltoall_XY": (Mesh(dims=(4, 4), link=LINK), "all_to_all", "direct", 16),
    "torus4x4_alltoall_XY_tiepos": (Torus(dims=(4, 4), link=LINK), "all_to_all", "direct", 16),
    "ring8_allgather_ring": (Ring(dims=(8,), link=LINK), "all_gather", "ring", 8),
    "star8_450GBps_alltoall": (Switch(chips=8, link=STAR_LINK), "all_to_all", "direct", 8),
    "mesh8x4_allgather_ring_neighbours": (Mesh(dims=(8, 4), link=LINK), "all_gather", "ring_neighbours", 32),
}


@pytest.mark.parametrize("case", BENCHED)
def test_bench_gives_the_same(case):
    """`bench` with the buffer of all parts gives the reference's finish time."""
    topology, op, algorithm, n = BENCHED[case]
    rows = bench(system(topology), op, algorithm=algorithm, sizes_bytes=[PART * n], numerics="shapes")
    assert next(iter(rows)).time_s == pytest.approx(float(REFERENCE[case]["finish_time_s"]), rel=1e-3)
