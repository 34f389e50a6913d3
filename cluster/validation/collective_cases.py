"""Map rows of collectives to calls on a catalogue system: by what the columns say, with rules for whole families."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from attrs import evolve, frozen

from cluster.bench import Bench
from cluster.prediction import predict_ps
from cluster.records import Collective
from cluster.selection import Chooser
from cluster.validation.machines import LAUNCHES, LIBRARIES, MACHINES, RESTRICTIONS, Machine
from cluster.validation.rows import CollectiveRow, Row
from cluster.validation.vocabulary import Case, Skipped
from cluster.vocabulary import VOCABULARY
from collectives import OPERATIONS
from configs.algorithm_names import AUTO
from configs.catalogue_files import catalogue_names
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
    "reduce": ("reduce", "time_s"),
    "gather": ("gather", "time_s"),
    "scatter": ("scatter", "time_s"),
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

    def asked(self) -> tuple[Chooser, Collective]:
        """Return the call, its algorithm still open, and what chooses one for it."""
        chooser = _chooser(self.system, self.overrides)
        ranks = self._ranks(chooser.topology)
        bench = Bench(
            chooser.system, chooser.topology, self.op, (AUTO,), (ranks,), "shapes", "fluid", self.dtype, "sum",
            False, {},
        )  # fmt: skip
        call = bench.calls(bench.case(self.size_bytes))[0]
        if chooser.system.communication.protocols and not chooser.offered(call):
            told = f"{chooser.system.communication.name} has no protocol for {self.op} among {self.n_ranks} ranks"
            raise ConfigError((told,))
        return chooser, call

    def run(self) -> Mapping[str, float]:
        """Return the predicted time, and that of the way there and back."""
        chooser, call = self.asked()
        time_s = predict_ps(chooser.system, chooser.topology, call._replace(algorithm=chooser(call))) * 1e-12
        return {"time_s": time_s, "round_trip_s": 2 * time_s}

    def _ranks(self, topology: Topology) -> tuple[int, ...]:
        if self.line is not None:
            axes = [axis for axis, length in zip(topology.axes, topology.dims, strict=True) if length == self.line]
            if not axes:
                raise ConfigError((f"no axis of {self.line} chips; there are {topology.dims}",))
            return topology.axis_ranks(0, axes[0])
        if self.n_ranks > topology.n_chips:
            raise ConfigError((f"{self.n_ranks} ranks on {self.system}, which has {topology.n_chips} chips",))
        if self.n_domains == 1 or topology.domain_of_chip is None:
            return tuple(range(self.n_ranks))
        _, first = np.unique(topology.domain_of_chip, return_index=True)
        each = np.arange(self.n_ranks // self.n_domains)
        return tuple((np.sort(first)[: self.n_domains, None] + each).reshape(-1).tolist())


@lru_cache(maxsize=4)
def _chooser(system: str, overrides: tuple[str, ...]) -> Chooser:
    spec = load_system(system, overrides, VOCABULARY)
    return Chooser(spec, topology=build_topology(spec))


@lru_cache(maxsize=256)
def profile_of(system: str, overrides: tuple[str, ...]) -> str:
    """Return the communication profile of a system."""
    return load_system(system, overrides, VOCABULARY).communication.name


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
    machine = machine_of(text)
    if machine is None:
        return Skipped(row, "no catalogue system", text)
    return _case(row, machine, row.time_us, dtype, row.message_bytes * times(row.n_chips))


def machine_of(text: str) -> Machine | None:
    """Return the rule that knows a machine by the texts of its system and topology."""
    return None if UNKNOWN.search(text) else next((m for m in MACHINES if m.pattern.search(text)), None)


def _case(row: CollectiveRow, machine: Machine, time_us: float, dtype: str, size_bytes: int) -> Case | Skipped:
    text = f"{row.system} | {row.topology} | {row.algorithm_or_note}"
    library = next((name for pattern, name in LIBRARIES if pattern.search(text)), None)
    settings = [f"communication={library}"] if library else []
    settings += [f"communication.mode={next(mode for pattern, mode in LAUNCHES if pattern.search(text))}"]
    settings += [f"communication.protocols.{name}=null" for name in _left_out(row.algorithm_or_note)]
    op, quantity = NAMES[row.collective]
    n_domains, line = machine.n_domains(text, row.n_nodes), re.search(r"axis of (\d+) chips", text)
    if n_domains > 1 and re.search(r"NICs? unstated", text):
        return Skipped(row, "the network between the nodes is not stated", row.topology)
    work = work_on(row, machine, text, n_domains, settings, op, row.n_chips, size_bytes, dtype)
    if isinstance(work, CollectiveWork):
        return case_with(row, evolve(work, line=int(line[1]) if line else None), time_us, quantity)
    return work


def work_on(
    row: Row, machine: Machine, text: str, n_domains: int, settings: Sequence[str], op: str, n_chips: int,
    size_bytes: int, dtype: str = "int8",
) -> CollectiveWork | Skipped:  # fmt: skip
    """Return a call on the machine that the texts mean, with these settings; or why there is no such machine."""
    if n_chips < 2 or n_chips % n_domains or n_chips // n_domains > machine.chips_per_domain:
        return Skipped(row, "the ranks do not fall evenly on nodes", f"{n_chips} on {n_domains}: {text}")
    if n_domains > 1 and machine.cluster is None:
        return Skipped(row, "no catalogue system of several such nodes", text)
    system = machine.named(text, n_domains)
    if system not in catalogue_names("systems"):
        return Skipped(row, "no catalogue system", system or text)
    overrides = (*machine.overrides(text, n_domains), *settings)
    return CollectiveWork(system, overrides, op, n_chips, size_bytes, dtype, n_domains)


def case_with(row: Row, work: CollectiveWork, time_us: float, quantity: str = "time_s") -> Case:
    """Return the case of a row that a call predicts."""
    size_class = next(name for limit, name in SIZE_CLASSES if work.size_bytes < limit)
    operation = OPERATIONS[work.op].name
    return Case(
        row, work, "collective", quantity, time_us * 1e-6, work.system, operation, size_class, float(work.size_bytes)
    )


def _left_out(note: str) -> tuple[str, ...]:
    """Return the protocols that the note says the library was not to use."""
    found = [name for pattern, left_out in RESTRICTIONS if pattern.search(note) for name in left_out]
    return tuple(dict.fromkeys(found))
