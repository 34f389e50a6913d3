"""Map rows of decoding to runs without data, by what the columns say, with rules for whole families."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

from attrs import frozen

from cluster.validation.decode_work import DecodeWork, Method
from cluster.validation.kernel_cases import KERNEL_METRICS, kernel_case
from cluster.validation.rows import DecodeRow
from cluster.validation.serving_software import software_of
from cluster.validation.vocabulary import Case, Skipped
from cluster.vocabulary import VOCABULARY
from configs.loader import load_model
from configs.spec import DtypeSpec
from workloads.layout import Layout


def _named(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern, re.IGNORECASE), name) for pattern, name in pairs)


SYSTEMS = _named(
    (r"\bA100.*cluster", "dgx-a100-4-nodes"),
    (r"\bA100", "dgx-a100"),
    (r"\bH100", "dgx-h100"),
    (r"\bH200", "dgx-h200"),
    (r"\bGB200", "gb200-nvl72"),
    (r"\bGB300", "gb300-nvl72"),
    (r"\bGH200", "gh200-node"),
    (r"\bB200", "hgx-b200"),
    (r"\bB300", "hgx-b300"),
    (r"\bMI300X", "mi300x-node"),
    (r"\bMI250", "mi250x-node"),
    (r"\bGaudi2", "gaudi2-box"),
    (r"\bTrainium1", "trn1-32xlarge"),
    (r"\bInferentia2", "inf2-48xlarge"),
    (r"Wormhole.*\bn150", "wormhole-n150"),
    (r"Wormhole.*\bn300", "wormhole-n300"),
    (r"Wormhole.*\bT3000", "wormhole-t3000"),
    (r"Wormhole.*\bGalaxy", "wormhole-galaxy"),
    (r"Blackhole.*\bp150", "blackhole-p150"),
    (r"Blackhole.*\bp100", "blackhole-p100"),
)
"""Catalogue systems by "chip | system"; the first that matches."""

MODELS = _named(
    (r"^(?:Meta-)?Llama-3(?:\.[13])?-70B\b", "llama-3.1-70b"),
    (r"^DeepSeek-R1-Distill-Llama-70B\b", "r1-distill-llama-70b"),
    (r"^(?:Meta-)?Llama-3(?:\.1)?-8B\b", "llama-3.1-8b"),
    (r"^Llama-3\.1-405B", "llama-3.1-405b"),
    (r"^Llama-3\.2-1B", "llama-3.2-1b"),
    (r"^Llama-3\.2-3B", "llama-3.2-3b"),
    (r"^Llama-2-7b", "llama-2-7b"),
    (r"^(Llama-2|CodeLlama)-13b", "llama-2-13b"),
    (r"^Llama-2-70b", "llama-2-70b"),
    (r"^Mistral-7B", "mistral-7b"),
    (r"^Mixtral-8x(7|22)B", "mixtral-8x{0}b"),
    (r"^Qwen2(?:\.5)?-(7|72)B", "qwen2.5-{0}b"),
    (r"^QwQ-32B", "qwq-32b"),
    (r"^Qwen3-(0\.6|1\.7|4|8|14|32)B", "qwen3-{0}b"),
    (r"^Qwen3-(30B-A3B|235B-A22B)", "qwen3-{0}"),
    (r"^gpt-oss-120b", "gpt-oss-120b"),
    (r"^gpt-oss-20b", "gpt-oss-20b"),
    (r"^DeepSeek-(R1/V3|V3/R1|V3|R1|R1-0528)\b(?!\.)(?!-Distill)", "deepseek-v3"),
    (r"^Kimi-K2(?:\.[56])?(?:-(?:Instruct|Thinking))?$", "kimi-k2"),
    (r"^Phi-4$", "phi-4"),
    (r"^MiniMax-M2(\.[15])?$", "minimax-m2"),
    (r"^Falcon-7B", "falcon-7b"),
    (r"^Falcon-40B", "falcon-40b"),
    (r"^Megatron-530B", "megatron-530b"),
    (r"^GPT-(20|89|175)B", "gpt-{0}b"),
)
"""Catalogue models by name, of which groups are a part; the same architecture serves every release of a model."""

COMMUNICATION: Mapping[str, str] = {
    "dgx-a100": "nccl-nvswitch2",
    "dgx-a100-4-nodes": "nccl-nvswitch2-ib",
    "dgx-h100": "nccl-nvswitch3",
    "dgx-h200": "nccl-nvswitch3",
    "gh200-node": "nccl-nvlink4",
    "hgx-b200": "nccl-nvswitch4",
    "hgx-b300": "nccl-nvswitch4",
    "gb200-nvl72": "nccl-nvl72",
    "gb300-nvl72": "nccl-nvl72",
    "mi300x-node": "rccl-mi300x",
    "wormhole-n300": "tt-ccl-wormhole",
    "wormhole-t3000": "tt-ccl-wormhole",
    "wormhole-galaxy": "tt-ccl-wormhole",
}
"""The communication library of systems; ideal on the others."""
OWN_ALL_REDUCE = ("trtllm", "vllm", "sglang")
"""Software that brings its own all-reduce for nodes behind NVSwitches (`serving-*` in place of `nccl-*`)."""

MESH_COLUMNS = 4
"""Of a Wormhole Galaxy."""


@frozen
class Metric:
    """A metric that can be predicted: the quantity it is, and that from its value, the rows and the output's length."""

    quantity: Literal["tpot_s", "e2e_s"]
    seconds: Callable[[float, int, int], float]


METRICS: Mapping[str, Metric] = {
    "tpot_ms": Metric("tpot_s", lambda ms, _rows, _length: ms * 1e-3),
    "tokens_per_s_per_user": Metric("tpot_s", lambda rate, _rows, _length: 1 / rate),
    "tokens_per_s_per_user_device_only": Metric("tpot_s", lambda rate, _rows, _length: 1 / rate),
    "e2e_latency_ms": Metric("e2e_s", lambda ms, _rows, _length: ms * 1e-3),
    "e2e_latency_s": Metric("e2e_s", lambda s, _rows, _length: s),
    "tokens_per_s_total": Metric("e2e_s", lambda rate, rows, length: rows * length / rate),
}
"""What stands in the column `metric` and is predicted."""


def decode_case(row: DecodeRow) -> Case | Skipped:
    """Return the run that predicts a row, or why there is none."""
    if row.metric in KERNEL_METRICS:
        return kernel_case(row)
    metric = METRICS.get(row.metric)
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
    system = _found(SYSTEMS, f"{row.chip} | {row.system}")
    model = _found(MODELS, row.model) or _found(MODELS, row.model.rpartition("/")[2])
    if row.value is None:
        raise LookupError("no value is given")
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
    layout = _layout(row, experts=experts)
    if row.batch_total < layout.n_replicas:
        raise LookupError("fewer rows than replicas", f"{row.batch_total} rows, {layout.n_replicas} replicas")
    dtype = _dtype(row, experts=experts)
    software = "tt-metal-galaxy" if layout.tp_grid is not None else software_of(row)
    return DecodeWork(
        system, _communication(system, software), software, model, layout, dtype, row.batch_total, row.input_len,
        row.output_len or 0, method,
    )  # fmt: skip


def _communication(system: str, software: str) -> str:
    """Return the profile of the communication library."""
    if software == "tt-metal-galaxy":
        return "tt-galaxy-decode"
    library = COMMUNICATION.get(system, "ideal")
    return library.replace("nccl-", "serving-") if software in OWN_ALL_REDUCE else library


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


def _layout(row: DecodeRow, *, experts: bool) -> Layout:
    """Return the layout: experts lie with the replicas of attention where there are several, else with its shards."""
    if row.tp is None:
        raise LookupError("the layout is not given")
    tp, pp, replicas = row.tp, row.pp or 1, row.dp or 1
    if "counts NeuronCores (2 per chip)" in row.notes:
        tp //= 2
    n_chips = row.n_chips
    if re.search(r"\bMI250", row.chip):  # software sees two devices in each
        tp, n_chips = 2 * tp, n_chips and 2 * n_chips
    if n_chips is not None and tp * pp * replicas != n_chips:
        raise LookupError("the layout does not fit the number of chips", f"TP {tp}, PP {pp}, DP {replicas}")
    # on a mesh of several rows tt-metal cuts matrices along both sides
    grid = (MESH_COLUMNS, tp // MESH_COLUMNS) if row.chip == "Wormhole" and tp > 2 * MESH_COLUMNS else None
    ep, dp = (replicas, 1) if experts else (1, replicas)
    return Layout(tp, pp, dp, ep, tp_grid=grid)


def _dtype(row: DecodeRow, *, experts: bool) -> DtypeSpec:
    """Return the number formats of a checkpoint and its cache.

    Quantised checkpoints leave the embedding and the head in 16 bits, those of four bits with experts all but these.
    """
    chip, given = f"{row.chip} | {row.system}", row.weights_dtype.lower()
    if re.search("Wormhole|Blackhole", chip):
        return _tenstorrent_dtype(row.model, given)
    if given in ("", "bf16", "fp16"):
        return DtypeSpec("fp16", "fp16", "fp16") if given == "fp16" else DtypeSpec()
    if given == "int8":
        return DtypeSpec("int8", "bf16", "bf16", head="bf16")
    if given.startswith("fp8"):
        return DtypeSpec("fp8_e4m3", "fp8_e4m3", "fp8_e4m3", head="bf16")
    if given in ("fp4", "nvfp4", "mxfp4", "int4"):
        has_fp4 = re.search(r"B200|B300", chip) is not None and given != "int4"
        fours = "mxfp4" if row.model.startswith("gpt-oss") or not has_fp4 else "nvfp4"
        if experts:
            inputs = "fp8_e4m3" if fours == "mxfp4" else fours
            return DtypeSpec(
                kv="fp8_e4m3" if has_fp4 else "bf16", feed_forward=fours,
                feed_forward_activations=inputs if has_fp4 else None,
            )  # fmt: skip
        return DtypeSpec(fours, "fp8_e4m3", fours if has_fp4 else "bf16", head="bf16")
    raise LookupError("no such number format in the simulator", row.weights_dtype)


def _tenstorrent_dtype(model: str, given: str) -> DtypeSpec:
    """Return the formats of tt-metal's demos (models/tt_transformers/tt/model_config.py, ModelOptimizations).

    Models from 70B on keep their feed-forward blocks in four bits, and Llama 3, Mistral and Phi their attention in
    eight, also where more is asked for. Where nothing is given, Falcon's demos are older than blocks in four bits.
    """
    large = re.search(r"\b(7\d|90)B", model) is not None
    wide = "bf16 attention" in given and not (large or re.match(r"(Meta-)?Llama-3|Mistral-7B|Phi", model))
    in_four_bits = large or "bfp4" in given.partition(",")[0] or (not given and not model.startswith("Falcon"))
    feed_forward = "bfp4" if in_four_bits else "bfp8"
    return DtypeSpec("bf16" if wide else "bfp8", "bfp8", "bf16", feed_forward=feed_forward, head="bfp8")


def _found(table: tuple[tuple[re.Pattern[str], str], ...], text: str) -> str | None:
    found = ((pattern.search(text), name) for pattern, name in table)
    return next((name.format(*match.groups()).lower() for match, name in found if match), None)
