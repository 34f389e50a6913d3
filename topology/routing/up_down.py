"""Up and down a fat tree: to the lowest switch above both chips, and straight down."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from topology.graph import Topology
from topology.routes import Routes
from topology.routing.paths import OneOfMany, Spread, pair_hash, paths_of_columns


@frozen
class FatTreePlan:
    """Who is joined to whom in a fat tree of chips, leaf switches, spine switches in pods, and core switches.

    Chip c is chip `c % rails` of node `c // rails`; `down` nodes share the `rails` leaves of their unit: chip i of
    every node is at leaf i. Every leaf is joined to the `pod_spines` spines of its pod of `pod_leaves` leaves, and
    spine j of every pod to the same `spine_cores` cores. Leaves are numbered first, then spines, then cores.

    Edges: chip c is edge c; leaf l and spine s of its pod are the next, l * pod_spines + s; then spine p and its core
    c, p * spine_cores + c. All go upwards.
    """

    chips: int
    rails: int
    down: int
    pod_leaves: int
    pod_spines: int
    spine_cores: int

    @property
    def n_leaves(self) -> int:
        """Number of leaf switches."""
        return -(-(self.chips // self.rails) // self.down) * self.rails

    @property
    def n_pods(self) -> int:
        """Number of pods."""
        return -(-self.n_leaves // self.pod_leaves)

    @property
    def n_spines(self) -> int:
        """Number of spine switches of all pods."""
        return self.n_pods * self.pod_spines

    @property
    def n_cores(self) -> int:
        """Number of core switches."""
        return self.pod_spines * self.spine_cores

    def leaf(self, chip: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the chips' leaves."""
        return (chip // (self.rails * self.down) * self.rails + chip % self.rails).astype(np.int64)

    def place(self, chip: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the chips' places on their leaf, 0…down-1."""
        return (chip // self.rails % self.down).astype(np.int64)


@frozen
class UpDownRouter(OneOfMany):
    """Take the fewest links up and down; the way up is chosen by the pair.

    `modulo`: by the destination, so that no two chips of a leaf share a way down to it as long as there are as many
    ways (D-mod-k: E. Zahavi et al., "Optimized InfiniBand fat-tree routing for shift all-to-all communication
    patterns", Concurrency and Computation 22, 2010). `hash`: by a hash of source and destination, as ECMP does.
    """

    plan: FatTreePlan
    spread: Spread
    is_uniform = False

    def routes(self, topology: Topology, src: NDArray[np.int64], dst: NDArray[np.int64]) -> Routes:
        """Return 2, 4 or 6 links: chip, leaf, (spine, (core, spine,)) leaf, chip."""
        plan = self.plan
        src_leaf, dst_leaf = plan.leaf(src), plan.leaf(dst)
        src_pod, dst_pod = src_leaf // plan.pod_leaves, dst_leaf // plan.pod_leaves
        spine, core = self._choose(src, dst)
        first = 2 * plan.chips
        columns = [2 * src, 2 * dst + 1]
        if plan.pod_spines:
            ends = [first + 2 * (leaf * plan.pod_spines + spine) for leaf in (src_leaf, dst_leaf)]
            other_leaf = src_leaf != dst_leaf
            up, down = np.where(other_leaf, ends[0], -1), np.where(other_leaf, ends[1] + 1, -1)
            columns[1:1] = [up, down]
        if plan.spine_cores:
            first += 2 * plan.n_leaves * plan.pod_spines
            spines = [pod * plan.pod_spines + spine for pod in (src_pod, dst_pod)]
            ends = [first + 2 * (number * plan.spine_cores + core) for number in spines]
            other_pod = src_pod != dst_pod
            columns[2:2] = [np.where(other_pod, ends[0], -1), np.where(other_pod, ends[1] + 1, -1)]
        return paths_of_columns(topology, columns)

    def _choose(self, src: NDArray[np.int64], dst: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the spine within its pod and the core among that spine's, pair by pair."""
        plan = self.plan
        n_spines, n_cores = max(1, plan.pod_spines), max(1, plan.spine_cores)
        if self.spread == "hash":
            return pair_hash(src, dst) % n_spines, pair_hash(src, dst, salt=1) % n_cores
        round_, spine = np.divmod(plan.place(dst), n_spines)
        rounds = -(-plan.down // n_spines)
        return spine, (plan.leaf(dst) % plan.pod_leaves * rounds + round_) % n_cores
