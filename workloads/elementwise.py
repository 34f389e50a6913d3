"""The kernels that work on each element or each token by itself: norms, sums, activations.

The conventions are those of `workloads.kernels`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from attrs import frozen

from workloads.array import Array
from workloads.chip import Tensor, Work
from workloads.kernels import Inferred, as_fp32, part_bytes, vector_work
from workloads.rounding import Floats

RMS_NORM_FLOPS = 4
"""Per element: square, add, times the root, times the weight."""
LAYER_NORM_FLOPS = 7
"""Per element: add, subtract, square, add, times the root, times the weight, plus the bias."""


@frozen
class RmsNorm:
    """Normalise each token: y = x / √(mean(x²) + eps) · (w + offset), x [n, features], w [features].

    Zhang and Sennrich, arXiv 1910.07467; the offset is Gemma's 1.
    """

    eps: float
    offset: float = 0.0
    name: str = "rms_norm"

    def infer(self, x: Array, w: Tensor) -> Inferred:
        """Return the shape of x."""
        del w
        return x.shape, x.dtype

    def evaluate(self, x: Any, w: Tensor) -> Floats:
        """Return the normalised tokens."""
        x = as_fp32(x)
        scale = np.sqrt(np.vecdot(x, x) / np.float32(x.shape[1]) + np.float32(self.eps))
        y: Floats = x / scale[:, None]
        y *= w.values + np.float32(self.offset) if self.offset else w.values
        return y

    def work(self, x: Array, w: Tensor) -> Work:
        """Return RMS_NORM_FLOPS per element; x is read, y written, w read once."""
        return vector_work(x, RMS_NORM_FLOPS * x.size, 2 * x.nbytes, (w.tier, w.size_bytes), kind="norm")


@frozen
class LayerNorm:
    """Normalise each token: y = (x - mean) / √(var + eps) · w + b, x [n, features], w and b [features], b or absent."""

    eps: float
    name: str = "layer_norm"

    def infer(self, x: Array, w: Tensor, b: Tensor | None = None) -> Inferred:
        """Return the shape of x."""
        del w, b
        return x.shape, x.dtype

    def evaluate(self, x: Any, w: Tensor, b: Tensor | None = None) -> Floats:
        """Return the normalised tokens."""
        x = as_fp32(x)
        y: Floats = x - x.mean(axis=1, keepdims=True)
        y /= np.sqrt(np.vecdot(y, y) / np.float32(x.shape[1]) + np.float32(self.eps))[:, None]
        y *= w.values
        if b is not None:
            y += b.values
        return y

    def work(self, x: Array, w: Tensor, b: Tensor | None = None) -> Work:
        """Return LAYER_NORM_FLOPS per element; x is read, y written, w and b read once."""
        stored = ((t.tier, t.size_bytes) for t in (w, b) if t is not None)
        return vector_work(x, LAYER_NORM_FLOPS * x.size, 2 * x.nbytes, *stored, kind="norm")


@frozen
class QueryKeyNorm:
    """RMS-normalise every query and key head: qkv [n, (heads + 2·kv heads)·dim], weights [dim] each.

    The values pass unchanged; param `n_kv`: how many of the heads are keys, and as many values.
    """

    eps: float
    name: str = "qk_norm"

    def infer(self, qkv: Array, q: Tensor, k: Tensor, *, n_kv: int) -> Inferred:
        """Return the shape of qkv."""
        del q, k, n_kv
        return qkv.shape, qkv.dtype

    def evaluate(self, qkv: Any, q: Tensor, k: Tensor, *, n_kv: int) -> Floats:
        """Return qkv with normalised queries and keys."""
        dim = q.shape[0]
        heads = as_fp32(qkv).reshape(len(qkv), -1, dim)
        n_heads = heads.shape[1] - 2 * n_kv
        y: Floats = heads.copy()
        normed = y[:, : n_heads + n_kv]
        normed /= np.sqrt(np.vecdot(normed, normed) / np.float32(dim) + np.float32(self.eps))[..., None]
        normed[:, :n_heads] *= q.values
        normed[:, n_heads:] *= k.values
        return y.reshape(qkv.shape)

    def work(self, qkv: Array, q: Tensor, k: Tensor, *, n_kv: int) -> Work:
        """Return RMS_NORM_FLOPS per element of queries and keys, which are read and written."""
        n = qkv.shape[0] * (qkv.shape[1] - n_kv * q.shape[0])
        stored = ((t.tier, t.size_bytes) for t in (q, k))
        return vector_work(qkv, RMS_NORM_FLOPS * n, 2 * n * qkv.dtype.itemsize, *stored, kind="norm")


@frozen
class Add:
    """Add two activations of one shape."""

    name: str = "add"

    def infer(self, x: Array, y: Array) -> Inferred:
        """Return the shape of x."""
        del y
        return x.shape, x.dtype

    def evaluate(self, x: Any, y: Any) -> Floats:
        """Return x + y."""
        total: Floats = as_fp32(x) + as_fp32(y)
        return total

    def work(self, x: Array, y: Array) -> Work:
        """Return one flop per element; both are read, the sum written."""
        return vector_work(x, x.size, 2 * x.nbytes + y.nbytes, kind="residual")


def _silu(x: Floats) -> Floats:
    # e^-x would overflow below -88, where silu is zero in any format
    y: Floats = np.maximum(x, np.float32(-80))
    np.negative(y, out=y)
    np.exp(y, out=y)
    y += 1
    np.divide(x, y, out=y)
    return y


def _gelu(x: Floats) -> Floats:
    """Return x·Φ(x), the error function to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    z = np.abs(x).astype(np.float64) * math.sqrt(0.5)
    t = 1 / (1 + 0.3275911 * z)
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail *= np.exp(-z * z) / 2  # Φ(-|x|)
    y: Floats = (x * np.where(x < 0, tail, 1 - tail)).astype(np.float32)
    return y


def _gelu_tanh(x: Floats) -> Floats:
    """Return x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    y: Floats = x * (1 + np.float32(0.044715) * x * x)
    y *= np.float32(math.sqrt(2 / math.pi))
    np.tanh(y, out=y)
    y += 1
    y *= x
    y *= np.float32(0.5)
    return y


ACTIVATIONS: Mapping[str, tuple[Callable[[Floats], Floats], int]] = {
    "silu": (_silu, 4),  # negate, exp, add, divide
    "gelu": (_gelu, 20),
    "gelu_tanh": (_gelu_tanh, 9),
}
"""The function of every activation, and its flops per element (Hendrycks and Gimpel, arXiv 1606.08415)."""


@frozen
class Activation:
    """Apply an activation to every element; `kind` is a key of ACTIVATIONS, and the kernel's name."""

    kind: str

    @property
    def name(self) -> str:
        """The activation."""
        return self.kind

    def infer(self, x: Array) -> Inferred:
        """Return the shape of x."""
        return x.shape, x.dtype

    def evaluate(self, x: Any) -> Floats:
        """Return the activation of x."""
        return ACTIVATIONS[self.kind][0](as_fp32(x))

    def work(self, x: Array) -> Work:
        """Return the activation's flops per element; x is read, as much written."""
        return vector_work(x, ACTIVATIONS[self.kind][1] * x.size, 2 * x.nbytes, kind="activation")


@frozen
class GatedActivation:
    """Gate: y = activation(gate) · up, x = [gate | up] [n, 2·ffn], y [n, ffn] (Shazeer, arXiv 2002.05202)."""

    kind: str

    @property
    def name(self) -> str:
        """The activation, and that it gates."""
        return f"{self.kind}_mul"

    def infer(self, x: Array) -> Inferred:
        """Return [n, ffn]."""
        return (x.shape[0], x.shape[1] // 2), x.dtype

    def evaluate(self, x: Any) -> Floats:
        """Return activation(gate) · up."""
        x = as_fp32(x)
        ffn = x.shape[1] // 2
        y = ACTIVATIONS[self.kind][0](x[:, :ffn])
        y *= x[:, ffn:]
        return y

    def work(self, x: Array) -> Work:
        """Return the activation and a product per result; x is read, half its size written."""
        return vector_work(
            x, (ACTIVATIONS[self.kind][1] + 1) * (x.size // 2), x.nbytes + x.nbytes // 2, kind="activation"
        )


@frozen
class SoftCap:
    """Bound every element: y = cap · tanh(x / cap) (Gemma 2's logits, arXiv 2408.00118)."""

    cap: float
    name: str = "softcap"

    def infer(self, x: Array) -> Inferred:
        """Return the shape of x."""
        return x.shape, x.dtype

    def evaluate(self, x: Any) -> Floats:
        """Return the bounded elements."""
        y: Floats = np.tanh(as_fp32(x) / np.float32(self.cap)) * np.float32(self.cap)
        return y

    def work(self, x: Array) -> Work:
        """Return a division, a tanh and a product per element."""
        return vector_work(x, 3 * x.size, 2 * x.nbytes, kind="sample")


@frozen
class AddPositions:
    """Add each token's learned position: x [rows·n_tokens, hidden], table [positions, hidden]."""

    name: str = "add_positions"

    def infer(self, x: Array, table: Tensor, *, starts: tuple[int, ...]) -> Inferred:
        """Return the shape of x."""
        del table, starts
        return x.shape, x.dtype

    def evaluate(self, x: Any, table: Tensor, *, starts: tuple[int, ...]) -> Floats:
        """Return x plus the rows of the table from each row's start on."""
        positions = np.add.outer(starts, np.arange(len(x) // len(starts))).ravel()
        total: Floats = as_fp32(x) + table.values[positions]
        return total

    def work(self, x: Array, table: Tensor, *, starts: tuple[int, ...]) -> Work:
        """Return one flop per element; a row of the table is read per token."""
        del starts
        return vector_work(x, x.size, 2 * x.nbytes, (table.tier, part_bytes(table, x.size)), kind="lookup")
