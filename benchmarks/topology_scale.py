"""What large topologies cost: seconds and megabytes to build one, seconds for the routes of a million pairs of chips.

    python benchmarks/topology_scale.py

Each row is measured in a process of its own, after the imports, in CPU seconds: one thread, which waits for nothing.
"""

from __future__ import annotations

import multiprocessing
import resource
import time

import numpy as np

from configs.spec.topology import LinkSpec, RoutingSpec, TopologySpec
from topology import Dragonfly, FatTree, Mesh, Switch, Topology, Torus

LINK = LinkSpec(bandwidth_bytes_per_s=50e9, latency_ps=500_000)
N_PAIRS = 1_000_000
ROWS: dict[str, tuple[TopologySpec, RoutingSpec]] = {
    "torus 16x24x24": (Torus((16, 24, 24), LINK), RoutingSpec()),
    "twisted torus 16x16x32": (Torus((16, 16, 32), LINK, twist=True), RoutingSpec()),
    "mesh 96x96": (Mesh((96, 96), LINK), RoutingSpec()),
    "switch of 4,096, 18 planes": (Switch(4096, LINK, planes=(1,) * 18), RoutingSpec()),
    "switch of 4,096, one plane each": (Switch(4096, LINK, planes=(1,) * 18), RoutingSpec(planes="hash")),
    "fat tree of 4,096": (FatTree(4096, 64, LINK, tiers=3, rails=8), RoutingSpec()),
    "fat tree of 4,096, ecmp": (FatTree(4096, 64, LINK, tiers=3, rails=8), RoutingSpec(kind="ecmp")),
    "fat tree of 4,096, shortest": (FatTree(4096, 64, LINK, tiers=3, rails=8), RoutingSpec(kind="shortest")),
    "dragonfly of 9,312": (Dragonfly(97, 12, 8, LINK, chips=8), RoutingSpec()),
    "dragonfly of 9,312, valiant": (Dragonfly(97, 12, 8, LINK, chips=8), RoutingSpec(kind="valiant")),
}


def pairs(n_chips: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a million pairs of different chips, seeded."""
    rng = np.random.default_rng(0)
    src = rng.integers(0, n_chips, N_PAIRS)
    return src, (src + rng.integers(1, n_chips, N_PAIRS)) % n_chips


def measure(name: str) -> None:
    """Print one row."""
    spec, routing = ROWS[name]
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    topology: Topology = spec.build(routing)
    build_s = time.process_time() - began
    build_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) * 1024 / 1e6
    src, dst = pairs(topology.n_chips)
    topology.routes(src[:1000], dst[:1000])
    began = time.process_time()
    routes = topology.routes(src, dst)
    routes_s = time.process_time() - began
    n = topology.n_chips
    print(f"{name:32} {n:6} {build_s:8.3f} s {build_mb:7.0f} MB {routes_s:8.3f} s {len(routes.links) / N_PAIRS:6.1f}")


def main() -> None:
    """Print the table."""
    print(f"{'':32} {'chips':>6} {'build':>10} {'memory':>10} {'routes':>10} {'links':>6}")
    context = multiprocessing.get_context("spawn")
    for name in ROWS:
        process = context.Process(target=measure, args=(name,))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
