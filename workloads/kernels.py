"""The kernels of a transformer, at the granularity of one launch each.

Values are computed in float32 whatever the operands' dtype; the chip rounds the result to the inferred dtype.
A kernel object holds constants of its values only; whatever else its shape or its work depends on is a
parameter, so that a chip may remember both by name, operands and parameters. Activations are matrices
[n_tokens, features]; a matrix in memory is stored as [out, in].
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from attrs import field, frozen

from configs.spec.kernels import KernelKind
from workloads.array import Array
from workloads.chip import Tensor, Work
from workloads.rounding import FP32, INT32, NUMPY_DTYPES, Floats, dtype_name, round_to, wider

Inferred = tuple[tuple[int, ...], Any]

_FEW_ROWS = 4
"""Measured: 2 to 4 rows take half the time of a matrix product, 8 rows take longer."""


def vector_work(
    x: Array, flops: int, activation_bytes: int, *stored: tuple[int, int], kind: KernelKind = "elementwise"
) -> Work:
    """Return the work of a kernel without matrix multiplication; `stored` is (tier, bytes) of tensors."""
    return Work(dtype_name(x.dtype), (), flops, stored, activation_bytes, kind)


def part_bytes(tensor: Tensor, n_elements: int) -> int:
    """Return the size of some elements of a stored tensor, rounded up."""
    return -(-n_elements * tensor.size_bytes // max(prod(tensor.shape), 1))


def as_fp32(x: Any) -> Floats:
    """Return `x` as float32, itself when it is."""
    floats: Floats = x.astype(FP32, copy=False)
    return floats


def _product(x: Floats, w: Floats) -> Floats:
    """Return x wᵀ the way BLAS is fastest: few rows as matrix-vector products, more as (w xᵀ)ᵀ."""
    if len(x) <= _FEW_ROWS:
        few: Floats = np.matmul(w, x[:, :, None])[:, :, 0]
        return few
    return np.ascontiguousarray((w @ x.T).T)


@frozen
class Matmul:
    """Multiply by a stored matrix: y = x Wᵀ + b, x [n, in], W [out, in], b [out] or absent, y [n, out].

    The result is rounded to x's dtype, or leaves the float32 accumulator as it is: param `keep_fp32`.
    inputs: the narrower number format that x is rounded to first, each row by itself; None for none.
    """

    label: str = "matmul"
    inputs: str | None = None
    name: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Name the kernel: the format of its inputs decides its rate."""
        object.__setattr__(self, "name", self.label if self.inputs is None else f"{self.label}_{self.inputs}")

    def infer(self, x: Array, w: Tensor, b: Tensor | None = None, *, keep_fp32: bool = False) -> Inferred:
        """Return [n, out]."""
        del b
        return (x.shape[0], w.shape[0]), FP32 if keep_fp32 else x.dtype

    def evaluate(self, x: Any, w: Tensor, b: Tensor | None = None, *, keep_fp32: bool = False) -> Floats:
        """Return x Wᵀ + b."""
        del keep_fp32
        floats = as_fp32(x)
        y = _product(floats if self.inputs is None else round_to(self.inputs, floats), w.values)
        if b is not None:
            y += b.values
        return y

    def work(self, x: Array, w: Tensor, b: Tensor | None = None, *, keep_fp32: bool = False) -> Work:
        """Return one multiplication [n, in] by [in, out]; the whole matrix is read; the bias is one flop per result."""
        m, (n, k) = x.shape[0], w.shape
        itemsize = 4 if keep_fp32 else x.dtype.itemsize
        return Work(
            wider(self.inputs or dtype_name(x.dtype), w.dtype),
            matmuls=((1, m, k, n),),
            vector_flops=0 if b is None else m * n,
            tensor_bytes=tuple((t.tier, t.size_bytes) for t in (w, b) if t is not None),
            activation_bytes=x.nbytes + m * n * itemsize,
            kind="matmul",
            rounded_bytes=0 if self.inputs is None else x.nbytes,
        )


@frozen
class Embedding:
    """Look up the rows of own token ids, those from `first_id` on, times `scale`; other ids give zeros.

    ids [n], table [own ids, hidden], y [n, hidden]; param `dtype`: y's number format.
    """

    first_id: int
    scale: float = 1.0
    name: str = "embedding"

    def infer(self, ids: Array, table: Tensor, *, dtype: str) -> Inferred:
        """Return [n, hidden]."""
        return (ids.shape[0], table.shape[1]), NUMPY_DTYPES[dtype]

    def evaluate(self, ids: Any, table: Tensor, *, dtype: str) -> Floats:
        """Return the rows of own ids, zeros elsewhere."""
        del dtype
        row = ids - self.first_id
        own = (row >= 0) & (row < table.shape[0])
        y: Floats = table.values[np.where(own, row, 0)]
        y[~own] = 0
        if self.scale != 1:
            y *= np.float32(self.scale)
        return y

    def work(self, ids: Array, table: Tensor, *, dtype: str) -> Work:
        """Return one row read and written per id: time may not depend on which ids are own."""
        n_elements = ids.shape[0] * table.shape[1]
        written = n_elements * NUMPY_DTYPES[dtype].itemsize
        stored = (table.tier, part_bytes(table, n_elements))
        return Work(dtype, tensor_bytes=(stored,), activation_bytes=ids.nbytes + written, kind="lookup")


@frozen
class TakeRows:
    """Take some rows: x [n, features], params rows (k indices), y [k, features]."""

    name: str = "take_rows"

    def infer(self, x: Array, *, rows: tuple[int, ...]) -> Inferred:
        """Return [k, features]."""
        return (len(rows), x.shape[1]), x.dtype

    def evaluate(self, x: Any, *, rows: tuple[int, ...]) -> Any:
        """Return x[rows]."""
        return x[list(rows)]

    def work(self, x: Array, *, rows: tuple[int, ...]) -> Work:
        """Return only the traffic of the taken rows."""
        return vector_work(x, 0, 2 * len(rows) * x.shape[1] * x.dtype.itemsize, kind="lookup")


@frozen
class LocalArgmax:
    """Find the best own id of each row: logits [n, own ids], y [n, 2] = (logit, id), exact below id 2^24."""

    first_id: int
    name: str = "local_argmax"

    def infer(self, logits: Array) -> Inferred:
        """Return [n, 2] in float32."""
        return (logits.shape[0], 2), FP32

    def evaluate(self, logits: Any) -> Floats:
        """Return (max, argmax); of equal logits the lowest id."""
        best = np.argmax(logits, axis=1)
        y: Floats = np.empty((len(best), 2), np.float32)
        y[:, 0] = logits[np.arange(len(best)), best]
        y[:, 1] = best + self.first_id
        return y

    def work(self, logits: Array) -> Work:
        """Return one comparison per logit."""
        return vector_work(logits, logits.size, logits.nbytes + 8 * logits.shape[0], kind="sample")


@frozen
class MergeArgmax:
    """Find the best id of each row among all ranks: x [n_ranks·n, 2] = (logit, id) by rank, y [n] ids."""

    name: str = "merge_argmax"

    def infer(self, x: Array, *, n_ranks: int) -> Inferred:
        """Return [n] in int32."""
        return (x.shape[0] // n_ranks,), INT32

    def evaluate(self, x: Any, *, n_ranks: int) -> Any:
        """Return the ids; of equal logits the lowest, since ranks hold ascending ids."""
        best = x.reshape(n_ranks, -1, 2)
        winner = np.argmax(best[:, :, 0], axis=0)
        return best[winner, np.arange(best.shape[1]), 1].astype(np.int32)

    def work(self, x: Array, *, n_ranks: int) -> Work:
        """Return one comparison per pair."""
        n_pairs = x.shape[0]
        return vector_work(x, n_pairs, x.nbytes + 4 * (n_pairs // n_ranks), kind="sample")
