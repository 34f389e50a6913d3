"""Map rows of decoding to runs without data, by what the columns say, with rules for whole families."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cluster.validation.decode_work import DecodeWork, Method
from cluster.validation.kernel_cases import KERNEL_METRICS, kernel_case
from cluster.validation.metrics import Metric, metric_named
from cluster.validation.model_names import model_named
from cluster.validation.number_formats import dtypes
from cluster.validation.rows import DecodeRow
from cluster.validation.serving_software import software_of
from cluster.validation.vocabulary import Case, Skipped
from cluster.vocabulary import VOCABULARY
from configs.catalogue_files import catalogue_names
from configs.loader import load_model
from workloads.layout import Layout


def _named(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern, re.IGNORECASE), name) for pattern, name in pairs)


SYSTEMS = _named(
    (r"\b(?:A100|H[128]00).*(?:\bPCIe|\bNVL\b)|\bA100.*\b40 ?GB", ""),
    (r"\bA100.*cluster", "dgx-a100-4-nodes"),
    (r"\bA100", "dgx-a100"),
    (r"\bH(1|2)00", "dgx-h{0}00"),
    (r"\bH800", "hgx-h800"),
    (r"\bG(H200)", "g{0}-node"),
    (r"\b(GB[23]00)", "{0}-nvl72"),
    (r"\b(B[23]00)", "hgx-{0}"),
    (r"\b(MI3(?:00|25|55)X)", "{0}-node"),
    (r"\bMI250", "mi250x-node"),
    (r"\bGaudi ?([23])", "gaudi{0}-box"),
    (r"\bTrainium1\b|\btrn1\b", "trn1-32xlarge"),
    (r"\bTrainium2\b|\btrn2\b", "trn2-48xlarge"),
    (r"\bInferentia2|\binf2\b", "inf2-48xlarge"),
    (r"(?:Blackhole|p150).*\b(QuietBox|LoudBox)", "blackhole-{0}"),
    (r"\bp150", "blackhole-p150"),
    (r"\bp100", "blackhole-p100"),
    (r"Blackhole|Grayskull", ""),
    (r"\b(n150|n300)", "wormhole-{0}"),
    (r"\bT3000|\bT3K|Wormhole.*\b(?:QuietBox|LoudBox)", "wormhole-t3000"),
    (r"(?:Wormhole|Tenstorrent).*\bGalaxy", "wormhole-galaxy"),
)
"""Catalogue systems by "chip | system"; the first that matches, none where it is empty."""

UNCALIBRATED = re.compile(r"\bTPU|\bAscend|\bSN40L|\bGroq|\bWSE|\bCS-[23]\b|\bIPU|\bH20\b|\bGrayskull", re.IGNORECASE)
"""Chips of the catalogue of which no kernels were measured, so a time would be the roofline's."""

CLUSTERS: Mapping[str, tuple[int, str]] = {
    "dgx-a100": (8, "dgx-a100-4-nodes"),
    "dgx-h100": (8, "dgx-h100-4-nodes"),
    "dgx-h200": (8, "a3-ultragpu-8g-4-nodes"),
    "hgx-b200": (8, "a4-highgpu-8g-4-nodes"),
    "mi300x-node": (8, "mi300x-4-nodes"),
    "mi325x-node": (8, "mi325x-4-nodes"),
    "mi355x-node": (8, "mi355x-4-nodes"),
    "gh200-node": (4, "alps-gh200-4-nodes"),
}
"""By the system of a node: how many chips it has, and the system of several nodes, for rows with more chips."""

COMMUNICATION: Mapping[str, str] = {
    "dgx-a100": "nccl-nvswitch2",
    "dgx-a100-4-nodes": "nccl-nvswitch2-ib",
    "dgx-h100": "nccl-nvswitch3",
    "dgx-h200": "nccl-nvswitch3",
    "hgx-h800": "nccl-nvswitch3",
    "dgx-h100-4-nodes": "nccl-nvswitch3-ib",
    "a3-ultragpu-8g-4-nodes": "nccl-nvswitch3-gib",
    "a4-highgpu-8g-4-nodes": "nccl-nvswitch4-gib",
    "mi300x-4-nodes": "rccl-mi300x-ib",
    "mi325x-4-nodes": "rccl-mi300x-ib",
    "alps-gh200-4-nodes": "nccl-nvlink4-slingshot",
    "gh200-node": "nccl-nvlink4",
    "hgx-b200": "nccl-nvswitch4",
    "hgx-b300": "nccl-nvswitch4",
    "gb200-nvl72": "nccl-nvl72",
    "gb300-nvl72": "nccl-nvl72",
    "mi300x-node": "rccl-mi300x",
    "mi325x-node": "rccl-mi300x",
    "mi355x-node": "rccl-mi355x",
    "mi355x-4-nodes": "rccl-mi355x-pollara",
    "wormhole-n300": "tt-ccl-wormhole",
    "wormhole-t3000": "tt-ccl-wormhole",
    "wormhole-galaxy": "tt-ccl-wormhole",
    "blackhole-quietbox": "tt-ccl-blackhole",
    "blackhole-loudbox": "tt-ccl-blackhole",
}
"""The communication library of systems; ideal on the others."""
OWN_ALL_REDUCE = ("trtllm", "vllm", "sglang")
"""Software that brings its own all-reduce: `serving-*` in place of `nccl-*`, where there is one."""

MESH_COLUMNS = 4
"""Of a Wormhole Galaxy."""


def decode_case(row: DecodeRow) -> Case | Skipped:
    """Return the run that predicts a row, or why there is none."""
    if row.metric in KERNEL_METRICS:
        return kernel_case(row)
    metric = metric_named(row.metric)
    if metric is None:
        return Skipped(row, "not a metric of the simulator", row.metric)
    try:
        work = _work(row, metric)
    except LookupError as error:
        return Skipped(row, *error.args)
    assert row.value is not None
    assert row.batch_total is not None
    name = f"{work.layout.tp}" if work.layout.n_replicas == 1 else f"{work.layout.tp} x {work.layout.n_replicas}"
    measured = metric.seconds(row.value, row.batch_total, row.output_len or 1)
    return Case(
        row, work, "decode", metric.quantity, measured, work.system, f"TP {name}",
        next(text for limit, text in SIZE_CLASSES if row.batch_total < limit), float(row.batch_total),
    )  # fmt: skip


SIZE_CLASSES: tuple[tuple[int, str], ...] = (
    (8, "batch 1 to 7"),
    (64, "batch 8 to 63"),
    (2**63, "batch ≥ 64"),
)
"""Classes of batches: up to which number of rows (without it), and its name."""


def _work(row: DecodeRow, metric: Metric) -> DecodeWork:
    """Return what predicts a row; raise LookupError with the reason and the detail."""
    system = _system(row)
    model = model_named(row.model)
    if row.value is None:
        raise LookupError("no value is given")
    if system is None and UNCALIBRATED.search(f"{row.chip} | {row.system}"):
        raise LookupError("no kernels were calibrated on this chip", f"{row.chip} | {row.system}")
    if system is None:
        raise LookupError("no catalogue system", f"{row.chip} | {row.system}")
    if model is None:
        raise LookupError("no catalogue model", row.model)
    if row.batch_total is None:
        raise LookupError("the batch is not given")
    if row.input_len is None:
        raise LookupError("the length of the prompt is not given")
    method = _method(row, metric)
    experts = hasattr(load_model(model, [], VOCABULARY).shape, "n_experts")
    layout = _layout(row, system, experts=experts)
    if row.batch_total < layout.n_replicas:
        raise LookupError("fewer rows than replicas", f"{row.batch_total} rows, {layout.n_replicas} replicas")
    dtype = dtypes(row, system, experts=experts)
    software = "tt-metal-galaxy" if layout.tp_grid is not None else software_of(row)
    return DecodeWork(
        system, _communication(system, software), software, model, layout, dtype, row.batch_total, row.input_len,
        row.output_len or 0, method,
    )  # fmt: skip


def _system(row: DecodeRow) -> str | None:
    """Return the catalogue system, of several nodes where the chips are more than those of one."""
    system = _found(SYSTEMS, f"{row.chip} | {row.system}")
    chips, cluster = CLUSTERS.get(system or "", (0, system))
    return cluster if chips and (row.n_chips or 0) > chips else system or None


def _communication(system: str, software: str) -> str:
    """Return the profile of the communication library."""
    if software == "tt-metal-galaxy":
        return "tt-galaxy-decode"
    library = COMMUNICATION.get(system, "ideal")
    own = library.replace("nccl-", "serving-")
    return own if software in OWN_ALL_REDUCE and own in catalogue_names("communication") else library


def _method(row: DecodeRow, metric: Metric) -> Method:
    """Return how a row was measured: a batch as a whole, a decoder alone, or requests that come as others end."""
    if metric.quantity == "e2e_s":
        if row.output_len is None:
            raise LookupError("the length of the output is not given")
        return "batch"
    if "disaggregated" in row.notes:
        if row.output_len is not None and row.input_len is not None and row.input_len > row.output_len:
            raise LookupError("the batch is bounded by the prefill of another pool, and not given")
        return "step"
    return "serving" if row.output_len is not None and "concurrency" in row.notes else "step"


def _layout(row: DecodeRow, system: str, *, experts: bool) -> Layout:
    """Return the layout: experts lie with the replicas of attention where there are several, else with its shards."""
    if row.tp is None:
        raise LookupError("the layout is not given")
    tp, pp, replicas = row.tp, row.pp or 1, row.dp or 1
    if "counts NeuronCores (2 per chip)" in row.notes:
        tp //= 2
    n_chips = row.n_chips
    if system.startswith("trn") and row.n_chips and tp > row.n_chips and tp % row.n_chips == 0:
        tp = row.n_chips  # as many NeuronCores as chips have
    if re.search(r"\bMI250", row.chip):  # software sees two devices in each
        tp, n_chips = 2 * tp, n_chips and 2 * n_chips
    if n_chips is not None and tp * pp * replicas != n_chips:
        raise LookupError("the layout does not fit the number of chips", f"TP {tp}, PP {pp}, DP {replicas}")
    # on a mesh of several rows tt-metal cuts matrices along both sides
    grid = (MESH_COLUMNS, tp // MESH_COLUMNS) if system == "wormhole-galaxy" and tp > 2 * MESH_COLUMNS else None
    ep, dp = (replicas, 1) if experts else (1, replicas)
    return Layout(tp, pp, dp, ep, tp_grid=grid)


def _found(table: tuple[tuple[re.Pattern[str], str], ...], text: str) -> str | None:
    found = ((pattern.search(text), name) for pattern, name in table)
    return next((name.format(*match.groups()).lower() for match, name in found if match), None)
