"""What `auto` means: of the algorithms that fit a group, the one whose call on an idle machine is predicted shortest.

The choice is a pure function of the system, the contention and the call, so it is the same on every backend, with data
and without. It is remembered, and groups that look alike (the rows of a mesh) share it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from threading import RLock

import numpy as np
from attrs import define, field, frozen

from cluster.records import Collective
from collectives import OFFERED, OPERATIONS, GroupView, build, candidates
from configs.algorithm_names import AUTO, algorithm_problem, with_protocol
from configs.errors import ConfigError
from configs.spec.experiment import Contention
from configs.spec.system import SystemSpec
from topology import Topology, build_topology

MOST_COMPARED = 32
"""Ranks of a group that is compared with others, route by route."""
MOST_SYNTHESISED = 64
"""Ranks for which a schedule is synthesised unasked."""

LARGE, HUGE = 256, 8192
FOR_LARGE = ("torus", "dimension_wise", "direct", "two_shot", "ring_bidirectional", "ring_neighbours", "ring")
FOR_HUGE = ("torus", "ring_bidirectional", "ring_neighbours", "ring")
"""What is tried for groups of more ranks than these, as far as the operation has it: others take long to build or time,
some of them (`direct` among 100,000) for the length of their routes alone."""

Choose = Callable[[Collective], str]
"""Return the algorithm of a call whose algorithm is `auto`; raises ConfigError where none fits."""


@frozen
class Candidate:
    """An algorithm, with its predicted time, or why it has none."""

    algorithm: str
    time_ps: int | None
    reason: str = ""


@define(eq=False)
class Chooser:
    """Chooses algorithms for a system, and remembers."""

    system: SystemSpec
    contention: Contention = "fluid"
    _topology: Topology | None = None
    _chosen: dict[Hashable, str] = field(factory=dict)
    structures: dict[tuple[int, ...], Hashable] = field(factory=dict)
    _choosing: RLock = field(factory=RLock)

    @property
    def topology(self) -> Topology:
        """The system's topology, built on first use."""
        if self._topology is None:
            self._topology = build_topology(self.system)
        return self._topology

    def __call__(self, call: Collective) -> str:
        """Return the algorithm of the least predicted time; of several the first of the table."""
        call = representative(call)
        with self._choosing:  # chips of one host may run in several threads
            known = self._chosen.get(call)
            if known is None:
                known = self._chosen[call] = self._choose(call)
        return known

    def candidates(self, call: Collective) -> Iterator[Candidate]:
        """Yield every algorithm of the operation: with its time, or why it does not fit or is not tried."""
        from cluster.prediction import predict_quickly_ps  # noqa: PLC0415  numba takes a third of a second to import

        call = representative(call)
        offered = self.offered(call)
        tried = offered or tried_for(call.op, len(call.ranks))
        for name in offered or candidates(call.op):
            if name not in tried:
                yield Candidate(name, None, f"is not tried unasked for {len(call.ranks)} ranks")
                continue
            if name == "synthesised" and len(call.ranks) > MOST_SYNTHESISED:
                yield Candidate(name, None, f"not tried unasked for more than {MOST_SYNTHESISED} ranks")
                continue
            least = self.system.communication.in_network_min_ranks
            if name.startswith("in_network") and len(call.ranks) < least:
                yield Candidate(name, None, f"the library uses it for {least} ranks and more")
                continue
            try:
                time_ps = predict_quickly_ps(
                    self.system, self.topology, call._replace(algorithm=name), self.contention
                )  # fmt: skip
            except ConfigError as error:
                yield Candidate(name, None, "; ".join(error.problems))
                continue
            yield Candidate(name, time_ps, "" if time_ps is not None else "has too many transfers to be tried unasked")

    def offered(self, call: Collective) -> list[str]:
        """Return the algorithms under the library's protocols that serve a call; empty: all algorithms are tried."""
        size_bytes, n = call.n_elements * call.dtype.itemsize, len(call.ranks)
        return [
            with_protocol(name, key)
            for key, protocol in self.system.communication.used_protocols.items()
            if protocol.serves(call.op, n, size_bytes)
            for name in protocol.algorithms
            if algorithm_problem(name, call.op, OFFERED[call.op]) is None
        ]

    def _choose(self, call: Collective) -> str:
        if len(self.offered(call) or candidates(call.op)) == 1:
            return (self.offered(call) or candidates(call.op))[0]
        alike = (call._replace(ranks=()), self._structure(call.ranks))
        known = self._chosen.get(alike)
        if known is not None and self._fits(known, call):
            return known
        found = list(self.candidates(call))
        timed = [c for c in found if c.time_ps is not None]
        chosen = min(timed, key=lambda c: c.time_ps or 0).algorithm if timed else self._first_that_fits(call)
        self._chosen.setdefault(alike, chosen)
        return chosen

    def _first_that_fits(self, call: Collective) -> str:
        """Return the first algorithm of the table that fits, for groups in which none is predicted quickly."""
        for name in self.offered(call) or tried_for(call.op, len(call.ranks)):
            if self._fits(name, call):
                return name
        raise ConfigError((f"{call.op} among {len(call.ranks)} chips: no algorithm fits",))

    def _fits(self, name: str, call: Collective) -> bool:
        try:
            build(call.op, name, GroupView(self.topology, call.ranks), call.detail)
        except ConfigError:
            return False
        return True

    def _structure(self, ranks: tuple[int, ...]) -> Hashable:
        """Return what a group looks like: how its chips lie on the grid, and its routes with their links renumbered."""
        if ranks not in self.structures:
            self.structures[ranks] = ranks if len(ranks) > MOST_COMPARED else _structure(self.topology, ranks)
        return self.structures[ranks]


def tried_for(op: str, n_ranks: int) -> list[str]:
    """Return the candidates that are tried for a group of so many ranks; all of them where none of those is there.

    >>> tried_for("all_to_all", 4096)
    ['dimension_wise', 'direct']
    """
    every = candidates(op)
    if n_ranks <= LARGE:
        return every
    return [name for name in (FOR_LARGE if n_ranks <= HUGE else FOR_HUGE) if name in every] or every


def _structure(topology: Topology, ranks: tuple[int, ...]) -> Hashable:
    chips = np.array(ranks, np.int64)
    coords = np.stack(np.unravel_index(topology.positions[chips], topology.dims))
    src, dst = np.divmod(np.arange(len(ranks) ** 2), len(ranks))
    routes = topology.routes(chips[src[src != dst]], chips[dst[src != dst]])
    links, first, number = np.unique(routes.links, return_index=True, return_inverse=True)
    order = np.argsort(first)
    renumbered = np.empty(len(links), np.int64)
    renumbered[order] = np.arange(len(links))
    used = links[order]
    columns = (
        coords - coords.min(axis=1, keepdims=True), routes.start, renumbered[number], routes.weights,
        routes.latency_ps, topology.link_bandwidth_bytes_per_s[used], topology.link_latency_ps[used],
        topology.crosses(chips[src[src != dst]], chips[dst[src != dst]]),
    )  # fmt: skip
    return tuple(column.tobytes() for column in columns)


def representative(call: Collective) -> Collective:
    """Return the call that a choice is made for: without what does not matter to its time.

    The rows of an all_to_all_v depend on values; it stands for an even exchange of the next power of two of rows.
    """
    table = call.table
    if OPERATIONS[call.op].detail == "rows":
        n = len(call.ranks)
        most = max(*map(sum, table), *map(sum, zip(*table, strict=True)))
        table = ((1 << max(0, -(-most // n) - 1).bit_length(),) * n,) * n
    return call._replace(algorithm=AUTO, group="", reduction="sum", table=table)
