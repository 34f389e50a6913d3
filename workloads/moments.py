"""Norms of tokens whose features are shared by several ranks: sums of each share, and what is done with all of them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from attrs import frozen

from workloads.array import Array
from workloads.chip import Tensor, Work
from workloads.elementwise import LAYER_NORM_FLOPS, RMS_NORM_FLOPS
from workloads.kernels import Inferred, as_fp32, vector_work
from workloads.rounding import FP32, Floats


@frozen
class Moments:
    """Sum over a share of each token's features what a norm needs: x [n, share], y [n, 1] = Σx², layers' Σx before it.

    kind: rms or layer. y is float32.
    """

    kind: Literal["rms", "layer"]

    @property
    def name(self) -> str:
        """The kind decides the work."""
        return f"{self.kind}_moments"

    def infer(self, x: Array) -> Inferred:
        """Return [n, 1] or [n, 2] in float32."""
        return (x.shape[0], 1 if self.kind == "rms" else 2), FP32

    def evaluate(self, x: Any) -> Floats:
        """Return the sums."""
        x = as_fp32(x)
        sums = [np.vecdot(x, x)] if self.kind == "rms" else [x.sum(axis=1), np.vecdot(x, x)]
        y: Floats = np.stack(sums, axis=1)
        return y

    def work(self, x: Array) -> Work:
        """Return a square and one or two sums per element; x is read, the sums are written."""
        n_sums = 1 if self.kind == "rms" else 2
        return vector_work(x, (1 + n_sums) * x.size, x.nbytes + 4 * n_sums * x.shape[0], kind="norm")


@frozen
class Normalise:
    """Normalise a share of each token as `RmsNorm` and `LayerNorm` do, by the sums of `Moments` over all `features`.

    x [n, share], moments [n, 1 or 2], w and b [share], b or absent.
    """

    features: int
    eps: float
    kind: Literal["rms", "layer"]
    offset: float = 0.0

    @property
    def name(self) -> str:
        """The kind decides the work."""
        return f"{self.kind}_normalise"

    def infer(self, x: Array, moments: Array, w: Tensor, b: Tensor | None = None) -> Inferred:
        """Return the shape of x."""
        del moments, w, b
        return x.shape, x.dtype

    def evaluate(self, x: Any, moments: Any, w: Tensor, b: Tensor | None = None) -> Floats:
        """Return the normalised share."""
        means = moments / np.float32(self.features)
        variance, y = means[:, -1:], as_fp32(x)
        if self.kind == "layer":
            y, variance = y - means[:, :1], np.maximum(variance - means[:, :1] ** 2, 0)
        normed: Floats = y / np.sqrt(variance + np.float32(self.eps))
        normed *= w.values + np.float32(self.offset) if self.offset else w.values
        if b is not None:
            normed += b.values
        return normed

    def work(self, x: Array, moments: Array, w: Tensor, b: Tensor | None = None) -> Work:
        """Return what the norm does after its sums; x and the moments are read, y written, w and b read once."""
        per_element = RMS_NORM_FLOPS - 2 if self.kind == "rms" else LAYER_NORM_FLOPS - 3
        stored = ((t.tier, t.size_bytes) for t in (w, b) if t is not None)
        return vector_work(x, per_element * x.size, 2 * x.nbytes + moments.nbytes, *stored, kind="norm")
