"""Map what serving does between chips to calls: tokens on their way to experts and back, all-reduces of op rows.

Low-latency kernels send a token to each of its experts by itself. Which experts is even over the ranks, so a dispatch
is an all-to-all of

    tokens per rank · experts per token · hidden · bytes of an element

and a combine is the same backwards, with elements of 16 bits. One-sided kernels send a token once to each rank that
has some of its experts: of n ranks and k experts these are n (1 - (1 - 1/n)^k) in the mean. Kernels that send a token
once per node, and have it copied there, move bytes by rules of their own: they are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cluster.validation.collective_cases import CollectiveWork, case_with, machine_of, work_on
from cluster.validation.rows import CollectiveRow, DecodeRow
from cluster.validation.vocabulary import Case, Skipped

BLOCK = 128
"""Elements that share a scale of four bytes in FP8 (DeepSeek-V3 technical report, arXiv:2412.19437, section 3.3)."""
ELEMENT_BYTES: Mapping[str, float] = {"fp8": 1 + 4 / BLOCK, "bf16": 2.0, "nvfp4": 0.5 + 1 / 16}
"""Bytes of an element with its share of the scale."""
SHAPE = re.compile(r"hidden (\d+), top-(\d+)(?: of \d+| experts)")
TOKENS = re.compile(r"\b(\d+) tokens ?(?:/ ?rank| per GPU)")
NODES = re.compile(r"\b(\d+) node\(s\) x (\d+)")
EXCHANGE = "all_to_all"
MOE = ("moe_dispatch", "moe_combine")
METRICS = ("allreduce_us", "alltoall_us")
"""Metrics of rows beside decode rows that are single collectives."""
EXCHANGES: Mapping[str, str] = {
    "dgx-h100": "deepep-nvswitch3-ib",
    "hgx-h800": "deepep-nvswitch3-ib",
    "hgx-b200": "deepep-nvswitch4",
    "gb200-nvl72": "deepep-nvl72",
    "gb300-nvl72": "deepep-nvl72",
}
"""By the system of one domain, the profile of DeepEP's low-latency kernels."""
ALL_REDUCES: Mapping[str, str] = {
    "dgx-h100": "serving-nvswitch3",
    "dgx-h200": "serving-nvswitch3",
    "hgx-b200": "serving-nvswitch4",
    "gb200-nvl72": "serving-nvl72",
    "gb300-nvl72": "serving-nvl72",
}
"""By the system of one domain, the profile of serving software's all-reduces."""


def moe_case(row: CollectiveRow) -> Case | Skipped:
    """Return the all-to-all that predicts a dispatch or combine, or why there is none."""
    if "low-latency" not in row.algorithm_or_note or "UCCL" in row.algorithm_or_note:
        return Skipped(row, "a kernel of its own for experts", row.algorithm_or_note)
    size = _exchange_bytes(row.message_convention, row.message_convention, row.collective == "moe_combine", "fp8")
    machine = machine_of(f"{row.system} | {row.topology}")
    if size is None:
        return Skipped(row, "the shape of the experts is not told", row.message_convention)
    if machine is None or machine.system not in EXCHANGES:
        return Skipped(row, "no catalogue system", f"{row.system} | {row.topology}")
    if row.time_us is None:
        return Skipped(row, "no time is given")
    n_domains = machine.n_domains(row.topology, row.n_nodes)
    work = work_on(
        row, machine, row.topology, n_domains, _settings(EXCHANGES[machine.system]), EXCHANGE, row.n_chips, size
    )
    return case_with(row, work, row.time_us) if isinstance(work, CollectiveWork) else work


def operation_case(row: DecodeRow) -> Case | Skipped:
    """Return the collective that a row of an operation means, or why there is none."""
    text = f"{row.system} | {row.chip}"
    machine = machine_of(row.chip)
    n_chips = row.n_chips or row.tp or row.ep
    if row.value is None or n_chips is None:
        return Skipped(row, "the value or the number of chips is not given")
    if machine is None or machine.system not in {**EXCHANGES, **ALL_REDUCES}:
        return Skipped(row, "no catalogue system", text)
    nodes = NODES.search(row.notes)
    n_domains = machine.n_domains(text, int(nodes[1]) if nodes else None)
    if row.metric == "allreduce_us":
        told = re.search(r"= (\d+) bytes", row.notes)
        size, op, libraries = (int(told[1]) if told else None), "all_reduce", ALL_REDUCES
    else:
        number_format = row.weights_dtype if row.weights_dtype in ELEMENT_BYTES else "fp8"
        once = n_chips if "OneSided" in row.software else None
        size = _exchange_bytes(row.notes, row.model, "combine" in row.notes, number_format, once)
        op, libraries = EXCHANGE, EXCHANGES if "DeepEP" in row.software else ALL_REDUCES
    if size is None:
        return Skipped(row, "the message size is not told", f"{row.model} | {row.notes}")
    if machine.system not in libraries:
        return Skipped(row, "no profile of such kernels on this machine", text)
    work = work_on(row, machine, text, n_domains, _settings(libraries[machine.system]), op, n_chips, size)
    return case_with(row, work, row.value) if isinstance(work, CollectiveWork) else work


def _settings(library: str) -> tuple[str, ...]:
    return (f"communication={library}", "communication.mode=device")


def _exchange_bytes(
    tokens: str,
    shape: str,
    combine: bool,
    number_format: str,
    once_of: int | None = None,
) -> int | None:
    """Return what a rank sends, in bytes; None where the texts do not tell. once_of: ranks that get a token once."""
    n_tokens, experts = TOKENS.search(tokens), SHAPE.search(shape)
    if n_tokens is None or experts is None:
        return None
    element = ELEMENT_BYTES["bf16" if combine else number_format]
    hidden, copies = int(experts[1]), float(experts[2])
    if once_of is not None:
        copies = once_of * (1 - (1 - 1 / once_of) ** copies)
    return round(int(n_tokens[1]) * copies * hidden * element)
