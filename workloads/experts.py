"""The kernels of a mixture of experts: choose experts for every token, bring tokens to them, bring results back.

A routing is [n, 2k] float32: the weights of a token's k experts, then their numbers (exact below 2^24). Tokens are
sorted by expert: expert e of the own ones gets `loads[e]` rows, one after the other, in the order of the tokens. What a
kernel costs depends on the loads, so they are a parameter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen

from workloads.array import Array, ShapeArray
from workloads.chip import Tensor, Work
from workloads.kernels import Inferred, as_fp32, vector_work
from workloads.rounding import FP32, Floats, dtype_name, round_to, wider
from workloads.routing import rank_masks, spread

Loads = tuple[int, ...]

BYTES = np.dtype(np.uint8)

ROUTE_FLOPS = 4
"""Per expert and token: score (exp, add, divide), and one comparison of a selection."""


def _softmax(logits: Floats) -> Floats:
    scores: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def _sigmoid(logits: Floats) -> Floats:
    scores: Floats = np.exp(-logits)
    scores += 1
    return np.reciprocal(scores, out=scores)


SCORES: Mapping[str, Callable[[Floats], Floats]] = {"softmax": _softmax, "sigmoid": _sigmoid}
"""How logits become scores."""


@frozen
class Route:
    """Choose `k` experts for every token: logits [n, experts] float32, bias [experts] or absent, y [n, 2k].

    The bias decides the choice, not the weight. With groups only experts of the `n_groups_kept` best groups are chosen;
    a group is as good as the sum of its `group_best` best scores. normalised: the weights sum to `scale`.
    With redundant copies the numbers are those of the slots that hold the experts (`workloads.routing.spread`).
    (Mixtral: arXiv 2401.04088; groups: DeepSeek-V2, arXiv 2405.04434; sigmoid and bias: DeepSeek-V3, arXiv 2412.19437.)
    """

    k: int
    score: str = "softmax"
    normalised: bool = True
    scale: float = 1.0
    n_groups: int = 1
    n_groups_kept: int = 1
    group_best: int = 1
    n_redundant: int = 0

    @property
    def name(self) -> str:
        """How many experts decides the shape."""
        return f"route_{self.k}"

    def infer(self, logits: Array, bias: Tensor | None = None) -> Inferred:
        """Return [n, 2k] in float32."""
        del bias
        return (logits.shape[0], 2 * self.k), FP32

    def evaluate(self, logits: Any, bias: Tensor | None = None) -> Floats:
        """Return weights and numbers of the chosen experts, the best first; of equal ones the lowest number."""
        scores = SCORES[self.score](as_fp32(logits))
        merit = scores if bias is None else scores + bias.values
        if self.n_groups > 1:
            merit = np.where(self._kept(merit), merit, np.float32(-np.inf))
        chosen = np.argsort(-merit, axis=1, kind="stable")[:, : self.k]
        weights = np.take_along_axis(scores, chosen, axis=1)
        if self.normalised:
            weights = weights / (weights.sum(axis=1, keepdims=True) + np.float32(1e-20))
        slots = spread(chosen, scores.shape[1], self.n_redundant)
        return np.concatenate([weights * np.float32(self.scale), slots.astype(np.float32)], axis=1)

    def _kept(self, merit: Floats) -> npt.NDArray[np.bool_]:
        """Say which experts are in one of a token's best groups, [n, experts]."""
        groups = merit.reshape(len(merit), self.n_groups, -1)
        best = np.sort(groups, axis=2)[:, :, -self.group_best :].sum(axis=2)
        order = np.argsort(-best, axis=1, kind="stable")[:, : self.n_groups_kept]
        kept = np.zeros(best.shape, np.bool_)
        np.put_along_axis(kept, order, values=True, axis=1)
        return np.repeat(kept, groups.shape[2], axis=1)

    def work(self, logits: Array, bias: Tensor | None = None) -> Work:
        """Return ROUTE_FLOPS per score; the logits are read, the routing written."""
        stored = () if bias is None else ((bias.tier, bias.size_bytes),)
        return vector_work(
            logits, ROUTE_FLOPS * logits.size, logits.nbytes + 8 * self.k * logits.shape[0], *stored, kind="route"
        )


def chosen_experts(routing: Any) -> npt.NDArray[np.int64]:
    """Return the numbers of every token's experts, [n, k]."""
    numbers: npt.NDArray[np.int64] = routing[:, routing.shape[1] // 2 :].astype(np.int64)
    return numbers


def _assigned(routing: Any, first: int, n_experts: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the token and the weight of every row for the own experts, sorted by expert."""
    k = routing.shape[1] // 2
    expert = chosen_experts(routing).ravel() - first
    own = np.flatnonzero((expert >= 0) & (expert < n_experts))
    own = own[np.argsort(expert[own], kind="stable")]
    return own // k, routing[:, :k].ravel()[own]


@frozen
class ToExperts:
    """Copy each token for each of its own experts, sorted by expert: x [n, hidden], y [Σ loads, hidden].

    The own experts are those from `first` on, one per load.
    """

    first: int
    name: str = "to_experts"

    def infer(self, x: Array, routing: Array, *, loads: Loads) -> Inferred:
        """Return [Σ loads, hidden]."""
        del routing
        return (sum(loads), x.shape[1]), x.dtype

    def evaluate(self, x: Any, routing: Any, *, loads: Loads) -> Any:
        """Return the rows in the order of the experts."""
        return x[_assigned(routing, self.first, len(loads))[0]]

    def work(self, x: Array, routing: Array, *, loads: Loads) -> Work:
        """Return only traffic: each row is read and written."""
        return vector_work(x, 0, 2 * sum(loads) * x.shape[1] * x.dtype.itemsize + routing.nbytes, kind="permute")


@frozen
class ExpertMatmul:
    """Multiply each expert's rows by its own matrix: x [Σ loads, in], w [experts·out, in], y [Σ loads, out].

    inputs: the narrower number format that x is rounded to first, each row by itself; None for none.
    """

    label: str
    inputs: str | None = None

    @property
    def name(self) -> str:
        """The format of the inputs decides the rate."""
        return self.label if self.inputs is None else f"{self.label}_{self.inputs}"

    def infer(self, x: Array, w: Tensor, *, loads: Loads) -> Inferred:
        """Return [Σ loads, out]."""
        return (x.shape[0], w.shape[0] // len(loads)), x.dtype

    def evaluate(self, x: Any, w: Tensor, *, loads: Loads) -> Floats:
        """Return the products, one expert after the other."""
        matrices = w.values.reshape(len(loads), -1, w.shape[1])
        floats = as_fp32(x) if self.inputs is None else round_to(self.inputs, as_fp32(x))
        y = np.empty((x.shape[0], matrices.shape[1]), np.float32)
        start = 0
        for matrix, load in zip(matrices, loads, strict=True):
            if load:
                y[start : start + load] = floats[start : start + load] @ matrix.T
            start += load
        return y

    def work(self, x: Array, w: Tensor, *, loads: Loads) -> Work:
        """Return a multiplication per expert that has rows; only the matrices of these are read."""
        out, k = w.shape[0] // len(loads), w.shape[1]
        sizes = sorted(Counter(load for load in loads if load).items())
        n_active = sum(n for _, n in sizes)
        return Work(
            wider(self.inputs or dtype_name(x.dtype), w.dtype),
            matmuls=tuple((n, load, k, out) for load, n in sizes),
            tensor_bytes=((w.tier, -(-w.size_bytes * n_active // len(loads))),),
            activation_bytes=x.nbytes + x.shape[0] * out * x.dtype.itemsize,
            kind="experts",
            rounded_bytes=0 if self.inputs is None else x.nbytes,
        )


@frozen
class FromExperts:
    """Sum each token's results, weighted: y [Σ loads, hidden], routing [n, 2k], result [n, hidden]."""

    first: int
    name: str = "from_experts"

    def infer(self, y: Array, routing: Array, *, loads: Loads) -> Inferred:
        """Return [n, hidden]."""
        del loads
        return (routing.shape[0], y.shape[1]), y.dtype

    def evaluate(self, y: Any, routing: Any, *, loads: Loads) -> Floats:
        """Return the weighted sums, expert by expert; zeros for tokens of other experts."""
        token, weight = _assigned(routing, self.first, len(loads))
        total = np.zeros((len(routing), y.shape[1]), np.float32)
        np.add.at(total, token, as_fp32(y) * weight[:, None])
        return total

    def work(self, y: Array, routing: Array, *, loads: Loads) -> Work:
        """Return a product and a sum per element of y, which is read; the sums are written."""
        n_written = routing.shape[0] * y.shape[1]
        return vector_work(
            y, 2 * sum(loads) * y.shape[1], y.nbytes + n_written * y.dtype.itemsize + routing.nbytes, kind="permute"
        )


@frozen
class ToRanks:
    """Pack each token and its routing for each rank that holds one of its experts, sorted by rank: y [rows, bytes].

    x [n, hidden]. The experts are split evenly over the ranks; param `n_rows`: how many copies there are.
    """

    n_experts: int
    n_ranks: int
    name: str = "to_ranks"

    def infer(self, x: Array, routing: Array, *, n_rows: int) -> Inferred:
        """Return [n_rows, bytes of a token and of its routing]."""
        return (n_rows, _row_bytes(x) + _row_bytes(routing)), BYTES

    def evaluate(self, x: Any, routing: Any, *, n_rows: int) -> Any:
        """Return the copies, in the order of ranks, then of tokens."""
        del n_rows
        token = np.nonzero(rank_masks(chosen_experts(routing), self.n_experts, self.n_ranks).T)[1]
        return np.concatenate([np.ascontiguousarray(part[token]).view(BYTES) for part in (x, routing)], axis=1)

    def work(self, x: Array, routing: Array, *, n_rows: int) -> Work:
        """Return only traffic: each copy is read and written."""
        return vector_work(x, 0, 2 * n_rows * (_row_bytes(x) + _row_bytes(routing)), kind="permute")


def _row_bytes(x: Array) -> int:
    return int(x.shape[1] * x.dtype.itemsize)


def unpack(packed: Array, x: Array, routing: Array) -> tuple[Array, Array]:
    """Return the tokens and the routing in rows that `ToRanks` packed from arrays such as `x` and `routing`.

    Kernels read them where they are: it is no kernel and takes no time.
    """
    n = packed.shape[0]
    if isinstance(packed, ShapeArray):
        return ShapeArray((n, x.shape[1]), x.dtype), ShapeArray((n, routing.shape[1]), routing.dtype)
    tokens, theirs = packed[:, : _row_bytes(x)], packed[:, _row_bytes(x) :]
    return np.ascontiguousarray(tokens).view(x.dtype), np.ascontiguousarray(theirs).view(routing.dtype)


@frozen
class FromRanks:
    """Sum what the ranks return for each token: y [rows, hidden] sorted as `ToRanks` does, result [n, hidden]."""

    n_experts: int
    n_ranks: int
    name: str = "from_ranks"

    def infer(self, y: Array, routing: Array) -> Inferred:
        """Return [n, hidden]."""
        return (routing.shape[0], y.shape[1]), y.dtype

    def evaluate(self, y: Any, routing: Any) -> Floats:
        """Return the sums, rank by rank."""
        token = np.nonzero(rank_masks(chosen_experts(routing), self.n_experts, self.n_ranks).T)[1]
        total = np.zeros((len(routing), y.shape[1]), np.float32)
        np.add.at(total, token, as_fp32(y))
        return total

    def work(self, y: Array, routing: Array) -> Work:
        """Return a sum per element of y, which is read; the sums are written."""
        written = routing.shape[0] * y.shape[1] * y.dtype.itemsize
        return vector_work(y, y.size, y.nbytes + written + routing.nbytes, kind="permute")
