"""Map rows of collectives to calls on a catalogue system: by what the columns say, with rules for whole families."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache

import numpy as np
from attrs import frozen

from cluster.bench import Bench
from cluster.prediction import predict_ps
from cluster.selection import Chooser
from cluster.validation.machines import LAUNCHES, LIBRARIES, MACHINES, RESTRICTIONS, Machine
from cluster.validation.rows import CollectiveRow
from cluster.validation.vocabulary import Case, Skipped
from cluster.vocabulary import VOCABULARY
from collectives import OPERATIONS
from configs.algorithm_names import AUTO
from configs.errors import ConfigError
from configs.loader import load_system
from topology import Topology, build_topology

SIZE_CLASSES: tuple[tuple[int, str], ...] = (
    (2**14, "< 16 KiB"),
    (2**20, "16 KiB to 1 MiB"),
    (2**26, "1 to 64 MiB"),
    (2**63, "≥ 64 MiB"),
)
"""Classes of message sizes: up to which size (without it), and its name."""

NAMES: Mapping[str, tuple[str, str]] = {
    "all_reduce": ("all_reduce", "time_s"),
    "all_gather": ("all_gather", "time_s"),
    "reduce_scatter": ("reduce_scatter", "time_s"),
    "all_to_all": ("all_to_all", "time_s"),
    "broadcast": ("broadcast", "time_s"),
    "sendrecv": ("permute", "time_s"),
    "p2p_oneway_hop": ("permute", "time_s"),
    "p2p_roundtrip": ("permute", "round_trip_s"),
}
"""The column `collective`: the operation, and which time of it is measured."""

CONVENTIONS: tuple[tuple[re.Pattern[str], Callable[[int], int]], ...] = (
    (re.compile(r"^nccl: .*two concurrent groups share"), lambda _n: 2),
    (re.compile(r"^nccl: "), lambda _n: 1),
    (re.compile(r"^osu: bytes per destination"), lambda n: n),
    (re.compile(r"^payload bytes of one packet"), lambda _n: 1),
)
"""The column `message_convention`: of n ranks, how often the bytes stand for what nccl-tests call the size."""

UNKNOWN = re.compile(r"pairwise NVLink|PCIe \(NVLink bridge\)|NVLink1")
"""Boards of a known chip that the catalogue does not have."""

DTYPES: Mapping[str, str] = {
    "fp32": "fp32", "fp16": "fp16", "bf16": "bf16", "byte": "int8", "bfp8": "int8", "fp8": "int8", "int8": "int8",
}  # fmt: skip
"""The column `dtype`, without a question mark: an element of as many bytes."""


@frozen
class CollectiveWork:
    """A collective on a catalogue system, all of whose ranks enter at once.

    n_domains: the ranks are the first chips of so many nodes of the system. line: they are those of an axis of so many.
    """

    system: str
    overrides: tuple[str, ...]
    op: str
    n_ranks: int
    size_bytes: int
    dtype: str
    n_domains: int = 1
    line: int | None = None

    @property
    def place(self) -> Hashable:
        """Works on one system share its topology and its choices of algorithms."""
        return (self.system, self.overrides)

    def run(self) -> Mapping[str, float]:
        """Return the predicted time, and that of the way there and back."""
        chooser = _chooser(self.system, self.overrides)
        ranks = self._ranks(chooser.topology)
        bench = Bench(
            chooser.system, chooser.topology, self.op, (AUTO,), (ranks,), "shapes", "fluid", self.dtype, "sum",
            False, {},
        )  # fmt: skip
        call = bench.calls(bench.case(self.size_bytes))[0]
        time_s = predict_ps(chooser.system, chooser.topology, call._replace(algorithm=chooser(call))) * 1e-12
        return {"time_s": time_s, "round_trip_s": 2 * time_s}

    def _ranks(self, topology: Topology) -> tuple[int, ...]:
        if self.line is not None:
            axes = [axis for axis, length in zip(topology.axes, topology.dims, strict=True) if length == self.line]
            if not axes:
                raise ConfigError((f"no axis of {self.line} chips; there are {topology.dims}",))
            return topology.axis_ranks(0, axes[0])
        if self.n_domains == 1 or topology.domain_of_chip is None:
            return tuple(range(self.n_ranks))
        _, first = np.unique(topology.domain_of_chip, return_index=True)
        each = np.arange(self.n_ranks // self.n_domains)
        return tuple((np.sort(first)[: self.n_domains, None] + each).reshape(-1).tolist())


@lru_cache(maxsize=4)
def _chooser(system: str, overrides: tuple[str, ...]) -> Chooser:
    spec = load_system(system, overrides, VOCABULARY)
    return Chooser(spec, topology=build_topology(spec))


def collective_case(row: CollectiveRow) -> Case | Skipped:
    """Return the call that predicts a row, or why there is none."""
    if row.time_us is None:
        return Skipped(row, "no time is given")
    if row.message_bytes is None:
        return Skipped(row, "no message size in bytes is given", row.message_convention)
    if row.collective not in NAMES:
        return Skipped(row, "not a collective of the simulator", row.collective)
    dtype = DTYPES.get(row.dtype.rstrip("?"))
    if dtype is None:
        return Skipped(row, "the number format is not told", row.dtype)
    times = next((times for pattern, times in CONVENTIONS if pattern.search(row.message_convention)), None)
    if times is None:
        return Skipped(row, "the message size cannot be told from its convention", row.message_convention)
    text = f"{row.system} | {row.topology}"
    machine = next((m for m in MACHINES if m.pattern.search(text)), None)
    if machine is None or UNKNOWN.search(text):
        return Skipped(row, "no catalogue system", text)
    return _case(row, machine, dtype, row.message_bytes * times(row.n_chips))


def _case(row: CollectiveRow, machine: Machine, dtype: str, size_bytes: int) -> Case | Skipped:
    text = f"{row.system} | {row.topology} | {row.algorithm_or_note}"
    n_domains = machine.n_domains(text, row.n_nodes)
    if row.n_chips < 2 or row.n_chips % n_domains or row.n_chips // n_domains > machine.chips_per_domain:
        return Skipped(row, "the ranks do not fall evenly on nodes", f"{row.n_chips} on {n_domains}: {row.topology}")
    if n_domains > 1 and re.search(r"NICs? unstated", text):
        return Skipped(row, "the network between the nodes is not stated", row.topology)
    if n_domains > 1 and machine.cluster is None:
        return Skipped(row, "no catalogue system of several such nodes", row.topology)
    library = next((name for pattern, name in LIBRARIES if pattern.search(text)), None)
    overrides = [*machine.overrides(text, n_domains)]
    overrides += [f"communication={library}"] if library else []
    overrides += [f"communication.mode={next(mode for pattern, mode in LAUNCHES if pattern.search(text))}"]
    overrides += [f"communication.protocols.{name}=null" for name in _left_out(row.algorithm_or_note)]
    system = machine.named(text, n_domains)
    line = re.search(r"axis of (\d+) chips", text)
    op, quantity = NAMES[row.collective]
    work = CollectiveWork(
        system, tuple(overrides), op, row.n_chips, size_bytes, dtype, n_domains, int(line[1]) if line else None
    )
    return Case(
        row, work, "collective", quantity, row.time_us * 1e-6 if row.time_us else 0.0, system, OPERATIONS[op].name,
        next(name for limit, name in SIZE_CLASSES if size_bytes < limit), float(size_bytes),
    )  # fmt: skip


def _left_out(note: str) -> tuple[str, ...]:
    """Return the protocols that the note says the library was not to use."""
    return next((left_out for pattern, left_out in RESTRICTIONS if pattern.search(note)), ())
