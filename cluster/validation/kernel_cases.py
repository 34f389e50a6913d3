"""Map rows of single kernels to their works: products with stored matrices, and attention of a decode step."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from attrs import frozen

from cluster.cost import duration
from cluster.validation.rows import DecodeRow
from cluster.validation.vocabulary import Case, Skipped
from configs.dtypes import DTYPES
from configs.loader import load_chip
from configs.spec.chip import ChipSpec
from workloads.array import ShapeArray
from workloads.attention import Attention
from workloads.chip import Tensor, Work
from workloads.kernels import Matmul
from workloads.rounding import NUMPY_DTYPES

KERNEL_METRICS = ("gemm_us", "attention_us")
"""What stands in the column `metric` of a row of one kernel."""

CHIPS: Mapping[str, str] = {
    "H100 SXM": "h100-sxm",
    "H200": "h200-sxm",
    "B200": "b200-sxm",
    "B300": "b300-sxm",
    "GB200": "gb200",
    "GB300": "gb300",
    "A100 SXM": "a100-sxm-80gb",
}
DTYPE_NAMES: Mapping[str, str] = {"bfloat16": "bf16", "fp8_block": "fp8_e4m3", "nvfp4": "nvfp4", "fp8": "fp8_e4m3"}


@frozen
class KernelWork:
    """A kernel on a chip: sizes m, n, k of a product, or rows, query heads, KV heads and keys of attention."""

    chip: str
    kind: str
    sizes: tuple[int, ...]
    dtype: str

    @property
    def place(self) -> Hashable:
        """Works on one chip share its figures."""
        return self.chip

    def run(self) -> Mapping[str, float]:
        """Return the time of the kernel."""
        return {"time_s": duration(*self.asked())[0] * 1e-12}

    def asked(self) -> tuple[ChipSpec, Work]:
        """Return the chip, and what the kernel asks of it."""
        chip = _chip(self.chip)
        return chip, _product(chip, self) if self.kind == "gemm" else _attention(chip, self)


def kernel_case(row: DecodeRow) -> Case | Skipped:
    """Return the kernel that predicts a row, or why there is none."""
    chip = CHIPS.get(row.chip)
    kind = row.metric.removesuffix("_us")
    dtype = DTYPE_NAMES.get(row.kv_dtype if kind == "attention" else row.weights_dtype)
    sizes = _sizes(row, kind)
    if row.value is None:
        return Skipped(row, "no value is given")
    if chip is None:
        return Skipped(row, "no catalogue chip", row.chip)
    if dtype is None or sizes is None:
        return Skipped(row, "the sizes or formats of the kernel are not given", row.notes)
    if kind == "gemm" and row.weights_dtype == "fp8":
        return Skipped(row, "finds a scale of the whole input first, as no serving software does", row.weights_dtype)
    name = {"gemm": "gemm m = {}", "attention": "attention rows {}"}[kind].format(sizes[0])
    return Case(
        row,
        KernelWork(chip, kind, sizes, dtype),
        "decode",
        "time_s",
        row.value * 1e-6,
        chip,
        kind,
        name,
        float(sizes[0]),
    )


def _sizes(row: DecodeRow, kind: str) -> tuple[int, ...] | None:
    if kind == "gemm":
        found = [re.search(rf"\b{name}=(\d+)", row.notes) for name in "mnk"]
        return None if None in found else tuple(int(match[1]) for match in found if match)
    heads = [re.search(rf"(\d+) {name} heads", row.notes) for name in ("query", "KV")]
    if None in heads or row.batch_total is None or row.input_len is None or "head dim 128" not in row.notes:
        return None
    return (row.batch_total, *(int(match[1]) for match in heads if match), row.input_len)


@lru_cache(maxsize=16)
def _chip(name: str) -> ChipSpec:
    return load_chip(name)


def _stored(chip: ChipSpec, shape: tuple[int, ...], dtype: str) -> Tensor:
    return Tensor("stored", shape, dtype, len(chip.memory) - 1, DTYPES[dtype].size_bytes(shape), None)


def _product(chip: ChipSpec, work: KernelWork) -> Work:
    m, n, k = work.sizes
    inputs = None if work.dtype == "bf16" else work.dtype
    return Matmul("gemm", inputs).work(_activations(m, k), _stored(chip, (n, k), work.dtype))


def _attention(chip: ChipSpec, work: KernelWork) -> Work:
    rows, heads, kv_heads, length = work.sizes
    cache = _stored(chip, (rows, kv_heads, length, 128), work.dtype)
    queries = (heads // kv_heads,) * kv_heads
    return Attention().work(_activations(rows, heads * 128), cache, cache, starts=(length - 1,) * rows, queries=queries)


def _activations(rows: int, width: int) -> Any:
    return ShapeArray((rows, width), np.dtype(NUMPY_DTYPES["bf16"]))
