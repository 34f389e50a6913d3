"""In which number formats a row's checkpoint and cache are kept."""

from __future__ import annotations

import re

from attrs import evolve

from cluster.validation.model_names import spelled
from cluster.validation.rows import DecodeRow
from configs.spec.dtype import DtypeSpec

FORMATS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"nvfp4", "nvfp4"),
        (r"mxfp4", "mxfp4"),
        (r"(?<![vx])fp4", "fp4"),
        (r"u?int4|awq|gptq(?!.*8bit)|w4a16|\bq4|4-?bit", "int4"),
        (r"fp8|e4m3", "fp8"),
        (r"int8|w8a16|w8a8|smoothquant|\bq8|8-?bit", "int8"),
        (r"bf16|bfloat16", "bf16"),
        (r"(?<!b)fp16|(?<!b)float16|\bf16|\bhalf\b", "fp16"),
    )
)
"""Formats of weights by how they are written; where several are, the first in the text counts."""

PUBLISHED = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^gpt-oss", "mxfp4"),
        (r"^kimi-k2(?:-thinking|\.[56])", "int4"),
        (r"^(?:deepseek-(?:v3|r1)(?!-distill)|kimi-k2|minimax-m2)", "fp8"),
    )
)
"""Models whose makers publish them in fewer than 16 bits (the quantization_config of their config.json)."""


def dtypes(row: DecodeRow, system: str, *, experts: bool) -> DtypeSpec:
    """Return the number formats of a checkpoint and its cache; raise LookupError where they are not known.

    Those of the column, else of the model's name, else as published, else 16 bits. Quantised checkpoints leave the
    embedding and the head in 16 bits, those of four bits with experts all but these. The cache is as its column says.
    """
    if system.startswith(("wormhole", "blackhole")):
        return _tenstorrent(spelled(row.model.rpartition("/")[2]), row.weights_dtype.lower())
    spec = _checkpoint(row, system, experts=experts)
    kv = format_named(row.kv_dtype)
    return spec if kv is None else evolve(spec, kv="fp8_e4m3" if kv == "fp8" else kv)


def format_named(text: str) -> str | None:
    """Return the format that a text names first; None if it names none.

    >>> format_named("BFloat16"), format_named("W4A16 (AWQ)"), format_named("mxfp4/fp8"), format_named("Q4_K_M")
    ('bf16', 'int4', 'mxfp4', 'int4')
    """
    matches = ((pattern.search(text.lower()), name) for pattern, name in FORMATS)
    return min(((match.start(), name) for match, name in matches if match), default=(0, None))[1]


def _checkpoint(row: DecodeRow, system: str, *, experts: bool) -> DtypeSpec:
    name = spelled(row.model.rpartition("/")[2])
    given = format_named(row.weights_dtype)
    if given is None and row.weights_dtype:
        raise LookupError("no such number format in the simulator", row.weights_dtype)
    published = (kept for pattern, kept in PUBLISHED if pattern.search(name))
    given = given or format_named(name) or next(published, "bf16")
    if given in ("bf16", "fp16"):
        return DtypeSpec("fp16", "fp16", "fp16") if given == "fp16" else DtypeSpec()
    if given == "int8":
        return DtypeSpec("int8", "bf16", "bf16", head="bf16")
    if given == "fp8":
        if re.search("a100|mi250", system):
            return DtypeSpec("fp8_e4m3", "bf16", "bf16", head="bf16")  # no such products: kernels widen the weights
        return DtypeSpec("fp8_e4m3", "fp8_e4m3", "fp8_e4m3", head="bf16")
    has_fp4 = re.search(r"b200|b300", system) is not None and given != "int4"
    fours = "mxfp4" if name.startswith("gpt-oss") or not has_fp4 else "nvfp4"
    if experts:
        inputs = "fp8_e4m3" if fours == "mxfp4" else fours
        return DtypeSpec(
            kv="fp8_e4m3" if has_fp4 else "bf16", feed_forward=fours,
            feed_forward_activations=inputs if has_fp4 else None,
        )  # fmt: skip
    return DtypeSpec(fours, "fp8_e4m3", fours if has_fp4 else "bf16", head="bf16")


def _tenstorrent(model: str, given: str) -> DtypeSpec:
    """Return the formats of tt-metal's demos (models/tt_transformers/tt/model_config.py, ModelOptimizations).

    Models from 70B on keep their feed-forward blocks in four bits, and Llama 3, Mistral and Phi their attention in
    eight, also where more is asked for. Where nothing is given, Falcon's demos are older than blocks in four bits.
    """
    large = re.search(r"\b(7\d|90)b", model) is not None
    wide = "bf16 attention" in given and not (large or re.match(r"llama-3|mistral-7b|phi", model))
    in_four_bits = large or "bfp4" in given.partition(",")[0] or (not given and not model.startswith("falcon"))
    feed_forward = "bfp4" if in_four_bits else "bfp8"
    return DtypeSpec("bf16" if wide else "bfp8", "bfp8", "bf16", feed_forward=feed_forward, head="bfp8")
