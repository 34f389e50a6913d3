"""Every communication profile of the catalogue gives possible times, for all operations that it has, at any size."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.bench import bench
from cluster.vocabulary import VOCABULARY
from collectives import OFFERED
from configs.catalogue_files import catalogue_entry, catalogue_names
from configs.loader import load_communication, load_system
from topology import build_topology

OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "permute")
SIZES = [1 << k for k in range(8, 31, 2)]
NODES = {
    entry["communication"]: (name, entry.get("topology", {}).get("kind"))
    for name in reversed(catalogue_names("systems"))
    for entry in [catalogue_entry("systems", name)]
    if isinstance(entry.get("communication"), str)
}
ELSEWHERE = {
    "deepep-nvl72": "gb200-nvl72", "deepep-nvswitch3-ib": "dgx-h100-4-nodes", "deepep-nvswitch4": "hgx-b200",
    "mpi-slingshot-gpu": "alps-gh200-4-nodes", "mpi-slingshot-host": "alps-gh200-4-nodes",
    "mscclpp-nvswitch2": "dgx-a100", "nccl-nvswitch4-ib": "a4-highgpu-8g-4-nodes", "nccl-nvswitch4-xla": "hgx-b200",
    "nccl-symmetric-nvswitch3": "dgx-h100", "nccl-symmetric-nvswitch4": "hgx-b200", "serving-nvl72": "gb200-nvl72",
    "serving-nvswitch3": "dgx-h100", "serving-nvswitch4": "hgx-b200", "tt-fabric-blackhole": "blackhole-galaxy",
    "tt-fabric-wormhole": "wormhole-t3000", "tt-galaxy-decode": "wormhole-galaxy",
}  # fmt: skip
"""Systems for profiles that no system names by itself."""


def system_with(profile):
    """Return a system whose library has this profile."""
    name = ELSEWHERE.get(profile) or NODES[profile][0]
    return load_system(name, [f"communication={profile}"], VOCABULARY)


def few_ranks(topology):
    """Return two chips of each of two nodes, or the first four chips."""
    domains = topology.domain_of_chip
    if domains is None:
        return list(range(min(4, topology.n_chips)))
    _, first = np.unique(domains, return_index=True)
    low, high = sorted(first.tolist())[:2]
    return [low, low + 1, high, high + 1]


def served(profile):
    """Return the operations that a profile has a protocol for."""
    protocols = load_communication(profile).used_protocols.values()
    return [
        op for op in OPS
        if any(p.serves(op, 4, 256) and any(a.split(":")[0] in OFFERED[op] for a in p.algorithms) for p in protocols)
    ]  # fmt: skip


def heavy_between_nodes(profile):
    """Return a parameter, heavy where the profile's system has a network or a large domain."""
    kind = catalogue_entry("systems", ELSEWHERE.get(profile) or NODES[profile][0])["topology"]["kind"]
    return pytest.param(profile, marks=pytest.mark.heavy) if kind == "compose" or "nvl72" in profile else profile


@pytest.mark.parametrize("profile", [*map(heavy_between_nodes, catalogue_names("communication"))])
def test_times_grow_with_the_size_and_links_are_not_beaten(profile):
    """No size takes less time than a smaller one or more than four of it, no chip sends above its rate."""
    system = system_with(profile)
    topology = build_topology(system)
    ranks = few_ranks(topology)
    src = np.asarray(topology.link_src)
    rate = max(float((topology.link_bandwidth_bytes_per_s * topology.link_count)[src == chip].sum()) for chip in ranks)
    ops = served(profile)
    assert ops
    for op in ops:
        rows = list(bench(system, op, ranks=ranks, sizes_bytes=SIZES, numerics="shapes"))
        times = np.array([row.time_s for row in rows])
        assert (np.diff(times) >= -1e-12).all(), (op, times)
        assert (times[1:] < 4.2 * times[:-1]).all(), (op, times)
        added = any("in_network" in row.algorithm or "switch" in row.algorithm for row in rows)
        limit = 2 * rate if op == "all_reduce" and added else rate
        assert rows[-1].busbw_bytes_per_s <= limit * 1.001, op


@pytest.mark.parametrize("profile", [p for p in catalogue_names("communication") if "all_gather" in served(p)])
def test_small_messages_take_longer_among_more_ranks(profile):
    """Of a small all-gather, more ranks of a node have more to wait for."""
    system = system_with(profile)
    domains = build_topology(system).domain_of_chip
    n = 8 if domains is None else int((domains == domains[0]).sum())
    times = []
    for n_ranks in sorted({2, min(4, n), min(8, n, build_topology(system).n_chips)}):
        [row] = bench(system, "all_gather", n_ranks=n_ranks, sizes_bytes=[64 * n_ranks], numerics="shapes")
        times.append(row.time_s)
    assert times == sorted(times)
