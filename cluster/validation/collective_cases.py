"""Map rows of collectives to calls on a catalogue system: by what the columns say, with rules for whole families."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from functools import lru_cache

from attrs import field, frozen

from cluster.bench import Bench
from cluster.prediction import predict_ps
from cluster.selection import Chooser
from cluster.validation.rows import CollectiveRow
from cluster.validation.vocabulary import Case, Skipped
from cluster.vocabulary import VOCABULARY
from configs.loader import load_system
from topology import build_topology

SIZE_CLASSES: tuple[tuple[int, str], ...] = (
    (2**14, "< 16 KiB"),
    (2**20, "16 KiB to 1 MiB"),
    (2**26, "1 to 64 MiB"),
    (2**63, "≥ 64 MiB"),
)
"""Classes of message sizes: up to which size (without it), and its name."""

OPERATIONS: Mapping[str, str] = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "all_to_all": "all_to_all",
}
"""Collectives by their names in the column `collective`."""

DTYPES: Mapping[str, str] = {"fp32": "fp32", "fp32?": "fp32", "fp16": "fp16", "bf16": "bf16", "byte": "int8"}


@frozen
class Machine:
    """What a family of rows was measured on: texts of system and topology that match `pattern` mean `system`."""

    pattern: re.Pattern[str]
    system: str
    chips_per_node: int


def _machine(pattern: str, system: str, chips_per_node: int) -> Machine:
    return Machine(re.compile(pattern, re.IGNORECASE), system, chips_per_node)


MACHINES = (
    _machine(r"\bH100-80GB SXM5\b", "dgx-h100", 8),
    _machine(r"\bH200\b", "dgx-h200", 8),
    _machine(r"\bGB200\b", "gb200-nvl72", 72),
    _machine(r"\bGB300\b", "gb300-nvl72", 72),
    _machine(r"\bB200\b", "hgx-b200", 8),
    _machine(r"\bA100.*SXM4\b", "dgx-a100", 8),
    _machine(r"\bMI300X\b", "mi300x-node", 8),
    _machine(r"\bMI325X\b", "mi325x-node", 8),
    _machine(r"\bMI355X\b", "mi355x-node", 8),
)
"""Catalogue systems by what the texts say; the first that matches."""


@frozen
class CollectiveWork:
    """A collective among the first `n_ranks` chips of a catalogue system, all of which enter at once."""

    system: str
    overrides: tuple[str, ...]
    op: str
    n_ranks: int
    size_bytes: int
    dtype: str
    algorithm: str = field(default="auto")

    @property
    def place(self) -> Hashable:
        """Works on one system share its topology and its choices of algorithms."""
        return (self.system, self.overrides)

    def run(self) -> Mapping[str, float]:
        """Return the predicted time."""
        chooser = _chooser(self.system, self.overrides)
        ranks = tuple(range(self.n_ranks))
        bench = Bench(
            chooser.system, chooser.topology, self.op, (self.algorithm,), (ranks,), "shapes", "fluid", self.dtype,
            "sum", False, {},
        )  # fmt: skip
        call = bench.calls(bench.case(self.size_bytes))[0]
        if self.algorithm == "auto":
            call = call._replace(algorithm=chooser(call))
        return {"time_s": predict_ps(chooser.system, chooser.topology, call) * 1e-12}


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
    if row.collective not in OPERATIONS:
        return Skipped(row, "not a collective of the simulator", row.collective)
    if not row.message_convention.startswith("nccl:"):
        return Skipped(row, "the message size cannot be told from its convention", row.message_convention)
    if row.dtype not in DTYPES:
        return Skipped(row, "no such number format in the simulator", row.dtype)
    text = f"{row.system} | {row.topology}"
    machine = next((m for m in MACHINES if m.pattern.search(text)), None)
    if machine is None:
        return Skipped(row, "no catalogue system", row.system)
    if row.n_chips > machine.chips_per_node:
        return Skipped(row, "no catalogue system of several such nodes", row.topology)
    work = CollectiveWork(
        machine.system, (), OPERATIONS[row.collective], row.n_chips, row.message_bytes, DTYPES[row.dtype]
    )  # fmt: skip
    return Case(
        row, work, "collective", "time_s", row.time_us * 1e-6, machine.system, work.op,
        next(name for limit, name in SIZE_CLASSES if row.message_bytes < limit), float(row.message_bytes),
    )  # fmt: skip
