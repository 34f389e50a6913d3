"""Collective algorithms as schedules: one object that is proven, executed and timed.

A new algorithm is one file in `algorithms/` and its rows in `ALGORITHMS`; the common test takes it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from inspect import signature
from types import MappingProxyType

from collectives import msccl, synthesis
from collectives.algorithms import (
    binary_tree,
    binomial,
    bruck,
    dimension_wise,
    direct,
    dissemination,
    double_binary_tree,
    halving_doubling,
    hierarchical,
    in_network,
    line,
    one_shot,
    pairwise,
    rail_ring,
    rail_tree,
    recursive_doubling,
    recursive_halving,
    ring,
    ring_bidirectional,
    ring_neighbours,
    torus,
    two_shot,
)
from collectives.checker import ScheduleError, check
from collectives.compose import GATHERS
from collectives.executor import begin_output, ends_with_something, execute, join, split
from collectives.group import GroupView
from collectives.operations import (
    OPERATIONS,
    REDUCTIONS,
    Detail,
    Operation,
    Rows,
    Table,
    chunk_sizes,
    cut,
    part_sizes,
)
from collectives.schedule import Local, RankStep, Schedule, Transfer, Transfers
from collectives.together import JointStep, execute_together, joint_steps
from configs.algorithm_names import PROTOCOL, Offered, is_algorithm_file, split_name
from configs.errors import ConfigError
from configs.fields import Bounds
from topology.graph import Topology

Builder = Callable[..., Schedule]
"""(group, detail, *, parameters) -> schedule; raises ConfigError where the algorithm does not fit the group.

The detail is the root, or what else the operation has (`collectives.operations.Detail`)."""

_RINGS = dict(zip(GATHERS, hierarchical.hierarchical("hierarchical"), strict=True))
_DIRECT = dict(zip(GATHERS, hierarchical.hierarchical("hierarchical_direct", "direct"), strict=True))

ALGORITHMS: Mapping[str, Mapping[str, Builder]] = {
    "all_gather": {
        "ring": ring.all_gather,
        "ring_neighbours": ring_neighbours.all_gather,
        "ring_bidirectional": ring_bidirectional.all_gather,
        "line": line.all_gather,
        "direct": direct.all_gather,
        "recursive_doubling": recursive_doubling.all_gather,
        "bruck": bruck.all_gather,
        "torus": torus.all_gather,
        "rail_ring": rail_ring.all_gather,
        "hierarchical": _RINGS["all_gather"],
        "hierarchical_direct": _DIRECT["all_gather"],
        "in_network": in_network.all_gather,
        "synthesised": synthesis.all_gather,
    },
    "reduce_scatter": {
        "ring": ring.reduce_scatter,
        "ring_neighbours": ring_neighbours.reduce_scatter,
        "ring_bidirectional": ring_bidirectional.reduce_scatter,
        "line": line.reduce_scatter,
        "direct": direct.reduce_scatter,
        "recursive_halving": recursive_halving.reduce_scatter,
        "torus": torus.reduce_scatter,
        "rail_ring": rail_ring.reduce_scatter,
        "hierarchical": _RINGS["reduce_scatter"],
        "hierarchical_direct": _DIRECT["reduce_scatter"],
        "in_network": in_network.reduce_scatter,
        "synthesised": synthesis.reduce_scatter,
    },
    "all_reduce": {
        "ring": ring.all_reduce,
        "ring_neighbours": ring_neighbours.all_reduce,
        "ring_bidirectional": ring_bidirectional.all_reduce,
        "line": line.all_reduce,
        "one_shot": one_shot.all_reduce,
        "two_shot": two_shot.all_reduce,
        "recursive_doubling": recursive_doubling.all_reduce,
        "halving_doubling": halving_doubling.all_reduce,
        "double_binary_tree": double_binary_tree.all_reduce,
        "torus": torus.all_reduce,
        "rail_ring": rail_ring.all_reduce,
        "rail_tree": rail_tree.all_reduce,
        "hierarchical": _RINGS["all_reduce"],
        "hierarchical_direct": _DIRECT["all_reduce"],
        "in_network": in_network.all_reduce,
        "synthesised": synthesis.all_reduce,
    },
    "all_to_all": {
        "direct": direct.all_to_all,
        "pairwise": pairwise.all_to_all,
        "bruck": bruck.all_to_all,
        "dimension_wise": dimension_wise.all_to_all,
    },
    "all_to_all_v": {
        "direct": direct.all_to_all_v,
        "pairwise": pairwise.all_to_all_v,
    },
    "broadcast": {
        "binomial": binomial.broadcast,
        "binary_tree": binary_tree.broadcast,
        "line": line.broadcast,
        "in_network": in_network.broadcast,
    },
    "reduce": {
        "binomial": binomial.reduce,
        "binary_tree": binary_tree.reduce,
        "line": line.reduce,
        "in_network": in_network.reduce,
    },
    "gather": {
        "binomial": binomial.gather,
        "direct": direct.gather,
    },
    "scatter": {
        "binomial": binomial.scatter,
        "direct": direct.scatter,
    },
    "permute": {
        "direct": direct.permute,
    },
    "barrier": {
        "dissemination": dissemination.barrier,
    },
}
"""Every algorithm by operation; of equally fast ones `auto` takes the first."""


PARAMETERS: Mapping[str, Bounds | tuple[str, ...]] = {
    "channels": Bounds(1, 32),
    "pieces": Bounds(1, 1024),
    "node": tuple(hierarchical.FLAT),
    "rail": tuple(hierarchical.FLAT),
    "inside": rail_tree.INSIDE,
}
"""What the parameters of algorithms may be; an algorithm takes those that its builder has as keywords."""


def _parameters(builder: Builder) -> dict[str, Bounds | tuple[str, ...]]:
    found = signature(builder).parameters.values()
    return {p.name: PARAMETERS[p.name] for p in found if p.kind is p.KEYWORD_ONLY}


OFFERED: Mapping[str, Offered] = {
    op: {name: _parameters(builder) for name, builder in row.items()} for op, row in ALGORITHMS.items()
}
"""Every algorithm by operation, with its parameters."""

PIECES_TRIED = (1, 64)
"""What `auto` tries of algorithms that are cut into pieces, besides their own default."""


def candidates(op: str) -> list[str]:
    """Return what `auto` chooses from: the algorithms, and those that are cut into pieces with few and many.

    >>> candidates("broadcast")[:4]
    ['binomial', 'binary_tree', 'binary_tree:pieces=1', 'binary_tree:pieces=64']
    """
    found = []
    for name, parameters in OFFERED[op].items():
        found += [name, *(f"{name}:pieces={k}" for k in PIECES_TRIED if "pieces" in parameters)]
    return found


NO_FILES: Mapping[str, Schedule] = MappingProxyType({})


def read_files(algorithms: Mapping[str, str]) -> dict[str, Schedule]:
    """Return, by name, the schedules of the algorithms (by operation) that are files; each is proven.

    Raises ConfigError for a file that is not right, or not for its operation.
    """
    files = {name: msccl.read(name) for name in dict.fromkeys(algorithms.values()) if is_algorithm_file(name)}
    for op, name in algorithms.items():
        if name in files and files[name].op != op:
            raise ConfigError((f"{name}: is for {files[name].op}; accepted here: an algorithm for {op}",))
    return files


@lru_cache(maxsize=64)
def _prove(schedule: Schedule, detail: Detail) -> None:
    """Check a schedule, once for each root that it is asked for."""
    check(schedule, detail)


def _made(op: str, algorithm: str, topology: Topology, ranks: tuple[int, ...], detail: Detail) -> Schedule:
    name, parameters = split_name(algorithm)
    parameters.pop(PROTOCOL, None)
    return ALGORITHMS[op][name](GroupView(topology, ranks), detail, **parameters)


MOST_KEPT = 64
"""Ranks of a group whose last schedules are kept: the same calls come again, and theirs are small."""
_kept = lru_cache(maxsize=32)(_made)


def build(
    op: str, algorithm: str, group: GroupView, detail: Detail = 0, files: Mapping[str, Schedule] = NO_FILES
) -> Schedule:
    """Return the schedule of a named algorithm, with its parameters, or the one of `files`, for a group.

    Raises ConfigError where it does not fit the group.
    """
    if algorithm not in files:
        kept = len(group) <= MOST_KEPT
        return (_kept if kept else _made)(op, algorithm, group.topology, group.ranks, detail)
    schedule = files[algorithm]
    if schedule.n_ranks != len(group):
        n = schedule.n_ranks
        raise ConfigError((f"{algorithm}: is for {n} ranks (ngpus), {len(group)} given; accepted: a group of {n}",))
    try:
        _prove(schedule, detail)
    except ScheduleError as error:
        raise ConfigError((f"{algorithm}: is not for root {detail}: {error}",)) from None
    return schedule


__all__ = [
    "ALGORITHMS",
    "NO_FILES",
    "OFFERED",
    "OPERATIONS",
    "REDUCTIONS",
    "Builder",
    "Detail",
    "GroupView",
    "JointStep",
    "Local",
    "Operation",
    "RankStep",
    "Rows",
    "Schedule",
    "ScheduleError",
    "Table",
    "Transfer",
    "Transfers",
    "begin_output",
    "build",
    "candidates",
    "check",
    "chunk_sizes",
    "cut",
    "ends_with_something",
    "execute",
    "execute_together",
    "join",
    "joint_steps",
    "part_sizes",
    "read_files",
    "split",
]
