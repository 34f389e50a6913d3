"""Play Chakra execution traces on a system: kernels as long as they were, communication over the system's links.

A rank's nodes run in the order of their dependencies, of several possible ones that of the lowest id; rank r is chip r.
Kernels of a chip follow one another. Communication goes on beside them until a node needs it. What became of the nodes:

    COMP                    a kernel of the recorded time, or what the chip's roofline makes of its operations and bytes
    MEM_LOAD, MEM_STORE     its bytes to or from the chip's farthest memory, if it has no recorded time
    COMM_COLL               a collective by an algorithm of the system's library
    COMM_SEND, COMM_RECV    a message
    METADATA, INVALID       nothing; nor do nodes of the host (is_cpu_op) take time
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from attrs import define, field, frozen

from cluster.calls import refuse_misuse
from cluster.chakra.read import Execution, TraceNode
from cluster.chakra.schema import OPERATIONS, NodeType
from cluster.cost import duration
from cluster.records import Await, Collective, Communication, Compute, Receive, Record, RecordTable, Send, Start, Trace
from cluster.selection import Chooser
from cluster.timeline import Timeline, time_run
from collectives import OFFERED, Rows
from configs.algorithm_names import AUTO, algorithm_problem
from configs.dtypes import DTYPES
from configs.errors import ConfigError, ProgramError
from configs.spec.chip import ChipSpec
from configs.spec.experiment import Contention
from configs.spec.system import SystemSpec
from topology import build_topology, chips_of
from workloads.chip import Work

Kernels = Literal["recorded", "roofline"]
Algorithms = Literal["recorded", "auto"]
BOUNDS = ("compute", "memory", "pause")
_SILENT = (NodeType.METADATA, NodeType.INVALID)
_MEMORY = (NodeType.MEM_LOAD, NodeType.MEM_STORE)


@frozen(eq=False)
class Replayed:
    """What replaying traces gives."""

    system: SystemSpec
    n_ranks: int
    about: Mapping[str, Any]
    counts: Mapping[str, int]
    timeline: Timeline
    notes: tuple[str, ...]

    @property
    def total_s(self) -> float:
        """Simulated time until the last node has ended."""
        return self.timeline.total_ps * 1e-12


def replay(
    execution: Execution,
    system: SystemSpec,
    *,
    kernels: Kernels = "recorded",
    algorithms: Algorithms = "recorded",
    dtype: str = "bf16",
    contention: Contention = "fluid",
) -> Replayed:
    """Play traces on a system and return when everything happened.

    kernels: their recorded times, where there are any, or always the chip's roofline, with operations in `dtype` where
    the trace does not say. algorithms: those that the trace says, where it does, or always the system's choice.
    Raises ConfigError for what cannot be played, ProgramError where ranks do not fit together.
    """
    if dtype not in DTYPES:
        raise ConfigError((f"--dtype: {dtype!r}; accepted: {', '.join(DTYPES)}",))
    topology = build_topology(system)
    if len(execution.ranks) > topology.n_chips:
        raise ConfigError((f"{len(execution.ranks)} ranks on {system.name}; accepted: at most {topology.n_chips}",))
    chips = chips_of(system, topology)
    chooser = Chooser(system, contention, topology)
    table = RecordTable()
    tables = _sent_rows(execution)
    traces = []
    for rank, nodes in enumerate(execution.ranks):
        calls = _Calls(execution, rank, chooser, algorithms, tables)
        traces.append(_Rank(rank, chips[rank], calls, table, kernels, dtype).trace(nodes))
    try:
        timeline = time_run(system, topology, contention, table.records, traces)
    except ConfigError as error:
        hint = "; accepted: a system that its algorithms fit, or --algorithms auto"
        raise ConfigError(tuple(problem + hint * (algorithms == "recorded") for problem in error.problems)) from None
    counts = Counter(node.kind.name for nodes in execution.ranks for node in nodes)
    return Replayed(system, len(traces), execution.about, counts, timeline, tuple(_notes(execution)))


def _notes(execution: Execution) -> list[str]:
    n_host = sum(node.get("is_cpu_op", bool, False) for nodes in execution.ranks for node in nodes)
    return [f"{n_host} nodes of the host (is_cpu_op) take no time"] if n_host else []


@define(eq=False)
class _Rank:
    """Turns one rank's nodes into its trace."""

    rank: int
    chip: ChipSpec
    calls: _Calls
    table: RecordTable
    kernels: Kernels
    dtype: str
    numbers: list[int] = field(factory=list)
    layers: list[tuple[int, int]] = field(factory=list)
    started: dict[int, tuple[int, Communication]] = field(factory=dict)
    """Nodes whose communication is under way: their number among all that were started, and what it is."""
    n_started: int = 0

    def trace(self, nodes: tuple[TraceNode, ...]) -> Trace:
        """Return the rank's trace."""
        through: dict[int, frozenset[int]] = {}  # of a node that takes no time: what it waits for stands for it
        busy = []
        for node in nodes:
            needs = frozenset().union(*(through.get(needed, frozenset({needed})) for needed in node.needs))
            if node.kind in _SILENT or node.get("is_cpu_op", bool, False):
                through[node.id] = needs
            else:
                busy.append((node, needs))
        for i, (node, needs) in enumerate(busy):
            following = busy[i + 1] if i + 1 < len(busy) else None
            self._wait(needs)
            self._layer(node)
            record = self._record(node)
            if isinstance(record, Compute) or following is None or node.id in following[1]:
                self._note(record)
            else:
                self._note(Start(record))
                self.started[node.id] = self.n_started, record
                self.n_started += 1
        layers = np.array(self.layers, np.int32).reshape(-1, 2)
        return Trace(self.rank, np.array(self.numbers, np.int32), layers)

    def _note(self, record: Record) -> None:
        self.numbers.append(self.table.number(record))

    def _wait(self, needs: frozenset[int]) -> None:
        for node in sorted(needs & self.started.keys()):
            number, operation = self.started.pop(node)
            self._note(Await(operation, self.n_started - 1 - number))

    def _layer(self, node: TraceNode) -> None:
        layer = node.get("layer", int, -1)
        if layer != (self.layers[-1][1] if self.layers else -1):
            self.layers.append((len(self.numbers), layer))

    def _record(self, node: TraceNode) -> Compute | Communication:
        match node.kind:
            case NodeType.COMM_COLL:
                return self.calls.collective(node)
            case NodeType.COMM_SEND:
                return Send(self._peer(node, "comm_dst"), self._tag(node), _size_bytes(node))
            case NodeType.COMM_RECV:
                return Receive(self._peer(node, "comm_src"), self._tag(node))
        return self._kernel(node)

    def _peer(self, node: TraceNode, name: str) -> int:
        peer, n = node.get(name, int), len(self.calls.execution.ranks)
        if not 0 <= peer < n or peer == self.rank:
            raise ConfigError((f"{node.where}: {name}: {peer}; accepted: another rank, from 0 to {n - 1}",))
        return peer

    def _tag(self, node: TraceNode) -> str:
        return node.get("tag", str, "") if "tag" in node.attributes else str(node.get("comm_tag", int, 0))

    def _kernel(self, node: TraceNode) -> Compute:
        flops, size_bytes = node.get("num_ops", int, 0), node.get("tensor_size", int, 0)
        moved = node.get("moved_bytes", tuple, ()) or (0,) * (len(self.chip.memory) - 1) + (size_bytes,)
        dtype = node.get("dtype", str, "") or self.dtype
        recorded_ps = node.get("duration_ps", int, node.duration_micros * 10**6)
        if min(flops, size_bytes, recorded_ps) < 0:
            raise ConfigError((f"{node.where}: negative work or time; accepted: numbers ≥ 0",))
        bound: Any = node.get("bound", str, "memory" if node.kind in _MEMORY else "compute")
        if bound not in BOUNDS:
            raise ConfigError((f"{node.where}: bound: {bound!r}; accepted: {', '.join(BOUNDS)}",))
        has_work = flops > 0 or size_bytes > 0
        is_recorded = node.duration_micros > 0 or "duration_ps" in node.attributes
        if has_work and (self.kernels == "roofline" or not is_recorded):
            work = Work(dtype, vector_flops=flops, tensor_bytes=((len(self.chip.memory) - 1, size_bytes),))
            recorded_ps, bound = duration(self.chip, work)
        return Compute(node.name, recorded_ps, bound, flops, dtype, moved)


def _size_bytes(node: TraceNode) -> int:
    size_bytes = node.get("comm_size", int)
    if size_bytes < 0:
        raise ConfigError((f"{node.where}: comm_size: {size_bytes}; accepted: a number of bytes ≥ 0",))
    return size_bytes


Call = tuple[tuple[int, ...], int]
"""A group of ranks, and the how-manieth of its all_to_all_v calls."""


@define(eq=False)
class _Calls:
    """Makes collectives of one rank's nodes."""

    execution: Execution
    rank: int
    chooser: Chooser
    algorithms: Algorithms
    tables: Mapping[Call, Rows]
    _n_uneven: Counter[tuple[int, ...]] = field(factory=Counter)

    def collective(self, node: TraceNode) -> Collective:
        """Return the collective of a node, with its algorithm."""
        ranks = _ranks(self.execution, self.rank, node)
        op = _operation(node)
        shape, dtype, table = (_size_bytes(node),), np.dtype(np.uint8), Rows()
        if "shape" in node.attributes:
            shape, dtype = node.get("shape", tuple), _dtype(node)
        elif op == "all_to_all":  # whole parts
            shape = (-(-shape[0] // len(ranks)) * len(ranks),)
        if op == "all_to_all_v":
            table = self.tables[ranks, self._n_uneven[ranks]]
            self._n_uneven[ranks] += 1
        name = node.get("group", str, f"pg {node.get('pg_name', str, '')}".strip())
        call = Collective(
            op, AUTO, name, ranks, node.get("root", int, 0), shape, dtype, node.get("reduction", str, "sum"), table
        )  # fmt: skip
        _check(node, call, ranks.index(self.rank))
        recorded = node.get("algorithm", str, AUTO)
        if self.algorithms == "auto" or recorded == AUTO:
            return call._replace(algorithm=self.chooser(call))
        problem = algorithm_problem(recorded, op, OFFERED[op])
        if problem is not None or recorded.endswith(".xml"):
            why = problem or f"{recorded!r} is a file; accepted: --algorithms auto"
            raise ConfigError((f"{node.where}: algorithm: {why}",))
        return call._replace(algorithm=recorded)


def _check(node: TraceNode, call: Collective, place: int) -> None:
    """Raise ConfigError unless the call can be right."""
    shape = (call.table.sent[place], *call.shape[1:]) if isinstance(call.table, Rows) and call.table else call.shape
    try:
        refuse_misuse(call.op, len(call.ranks), place, shape, call.root, call.reduction, Rows(call.table))
    except ProgramError as error:
        raise ConfigError((f"{node.where}: {error}",)) from None


def _operation(node: TraceNode) -> str:
    if "op" in node.attributes:
        op = node.get("op", str)
        if op in OFFERED and op != "permute":
            return op
        raise ConfigError((f"{node.where}: op: {op!r}; accepted: {', '.join(OFFERED)} without permute",))
    number = node.get("comm_type", int)
    if number not in OPERATIONS:
        raise ConfigError((f"{node.where}: comm_type: {number}; accepted: 0 to {max(OPERATIONS)}",))
    return OPERATIONS[number]


def _ranks(execution: Execution, rank: int, node: TraceNode) -> tuple[int, ...]:
    """Return the group of a collective: that of its pg_name; all ranks without one, as for 0."""
    name = node.get("pg_name", str, "")
    dims = node.get("involved_dim", tuple, ())
    if not all(dims):
        how = "all dimensions, or a communicator group (pg_name)"
        raise ConfigError(
            (f"{node.where}: involved_dim: {dims} needs ASTRA-sim's logical dimensions; accepted: {how}",)
        )
    if name in ("", "0") and name not in execution.groups:
        return tuple(range(len(execution.ranks)))
    if name not in execution.groups:
        known = ", ".join(execution.groups) or "none"
        why = f"pg_name: {name!r} is not in the file of the groups; known: {known}; give it with --comm-groups"
        raise ConfigError((f"{node.where}: {why}",))
    ranks = execution.groups[name]
    if rank not in ranks:
        raise ConfigError((f"{node.where}: pg_name: {name!r} has the ranks {ranks}, not {rank}",))
    return ranks


def _dtype(node: TraceNode) -> np.dtype[Any]:
    name, shape = node.get("dtype", str), node.get("shape", tuple)
    if not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ConfigError((f"{node.where}: shape: {shape}; accepted: whole numbers ≥ 0",))
    try:
        import ml_dtypes  # noqa: F401, PLC0415  gives numpy the names of narrow formats

        dtype: np.dtype[Any] = np.dtype(name)
    except TypeError:
        what = "a number format of numpy or ml_dtypes"
        raise ConfigError((f"{node.where}: dtype: {name!r}; accepted: {what}",)) from None
    return dtype


def _sent_rows(execution: Execution) -> dict[Call, Rows]:
    """Return the tables of all all_to_all_v calls, put together from the members' own rows."""
    rows: dict[Call, dict[int, tuple[int, ...]]] = {}
    for rank, nodes in enumerate(execution.ranks):
        n_calls: Counter[tuple[int, ...]] = Counter()
        for node in nodes:
            if node.kind is NodeType.COMM_COLL and node.attributes.get("op") == "all_to_all_v":
                ranks = _ranks(execution, rank, node)
                rows.setdefault((ranks, n_calls[ranks]), {})[rank] = node.get("sent_rows", tuple)
                n_calls[ranks] += 1
    tables = {}
    for (ranks, call), found in rows.items():
        wrong = [rank for rank in ranks if len(found.get(rank, ())) != len(ranks)]
        if wrong:
            why = f"call {call} of all_to_all_v among {len(ranks)} ranks: rank {wrong[0]} does not say all of its rows"
            raise ConfigError((f"{why}; accepted: sent_rows, a number for every member",))
        tables[ranks, call] = Rows(found[rank] for rank in ranks)
    return tables
