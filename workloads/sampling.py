"""How the next token is chosen from logits whose vocabulary is split over the tensor-parallel group.

Every row draws from a stream of its own: the number of token id v in step s of row r is number v of the Philox stream
with key (seed, r) and counter (·, s) (Salmon et al., SC 2011). So a draw depends on no layout and no backend.

With Gumbel noise g = -log(-log u) of each id, argmax(logit / temperature + g) is a draw from
softmax(logit / temperature) (Gumbel 1954; Maddison et al., arXiv 1411.0030), so all kinds end with an argmax. What the
group exchanges, per row and rank: greedy and temperature one pair (value, id), top_k its k best pairs, top_p without k
all own logits, since how many tokens make up p is known only when all are there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen

from configs.spec.workload import SamplingSpec
from workloads.array import Array
from workloads.chip import Work
from workloads.kernels import Inferred, LocalArgmax, MergeArgmax, vector_work
from workloads.layout import split_evenly
from workloads.rounding import FP32, INT32, Floats

NOISE_FLOPS = 20
"""Per number: ten Philox rounds of two products and four xors for four numbers, two logarithms, a division, a sum."""
SORT_FLOPS = 20
"""Per candidate: about the comparisons of a sort of a million."""
NUCLEUS_FLOPS = 8
"""Per candidate: divide, subtract, exp, sum, running sum, compare, add the noise, compare."""
_BLOCK = 4  # numbers per count of a Philox stream


def gumbel(seed: int, row: int, step: int, ids: range) -> Floats:
    """Return the noise of consecutive token ids, float32.

    >>> bool(np.array_equal(gumbel(1, 2, 3, range(10))[5:], gumbel(1, 2, 3, range(5, 10))))
    True
    """
    block, ahead = divmod(ids.start, _BLOCK)
    stream = np.random.Philox(key=[seed, row], counter=[block, step, 0, 0])
    bits = stream.random_raw(ahead + len(ids))[ahead:]
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.asarray(-np.log(-np.log(uniform)), np.float32)


@frozen
class LocalDraw:
    """Find the best own id of each row under noise: logits [n, own ids], y [n, 2] = (logit / temperature + g, id)."""

    ids: range
    spec: SamplingSpec
    rows: tuple[int, ...]
    step: int
    name: str = "local_draw"

    def infer(self, logits: Array) -> Inferred:
        """Return [n, 2] in float32."""
        return (logits.shape[0], 2), FP32

    def evaluate(self, logits: Any) -> Floats:
        """Return (value, id); of equal values the lowest id."""
        noise = np.stack([gumbel(self.spec.seed, row, self.step, self.ids) for row in self.rows])
        return LocalArgmax(self.ids.start).evaluate(logits / np.float32(self.spec.temperature) + noise)

    def work(self, logits: Array) -> Work:
        """Return the noise, a division, a sum and a comparison per logit."""
        return vector_work(logits, (NOISE_FLOPS + 3) * logits.size, logits.nbytes + 8 * logits.shape[0], kind="sample")


@frozen
class Candidates:
    """Take the k best own logits of each row: y [n, 2k] = k logits, the best first, and their ids.

    A rank with fewer ids fills up with -inf. Without k: all own logits in the order of ids, y [n, `most`].
    """

    first_id: int
    name: str = "candidates"

    def infer(self, logits: Array, *, k: int | None, most: int) -> Inferred:
        """Return [n, 2k] or [n, most] in float32."""
        return (logits.shape[0], most if k is None else 2 * k), FP32

    def evaluate(self, logits: Any, *, k: int | None, most: int) -> Floats:
        """Return the candidates; of equal logits the lowest ids."""
        y = np.full((len(logits), most if k is None else 2 * k), -np.inf, np.float32)
        n = logits.shape[1]
        if k is None:
            y[:, :n] = logits
            return y
        best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        y[:, : best.shape[1]] = np.take_along_axis(logits, best, axis=1)
        y[:, k:] = 0
        y[:, k : k + best.shape[1]] = best + self.first_id
        return y

    def work(self, logits: Array, *, k: int | None, most: int) -> Work:
        """Return a comparison per logit and a sort of what is taken; without k only traffic."""
        n = logits.shape[0]
        flops = 0 if k is None else logits.size + SORT_FLOPS * n * k
        return vector_work(logits, flops, logits.nbytes + 4 * n * (most if k is None else 2 * k), kind="sample")


@frozen
class MergeCandidates:
    """Draw each row's id among the candidates of all ranks: x [n_ranks·n, ...] as `Candidates` gives, y [n] ids.

    Kept are the k best, of these the fewest whose probabilities add up to p; the draw is among the kept.
    """

    spec: SamplingSpec
    vocab: int
    rows: tuple[int, ...]
    step: int
    name: str = "merge_candidates"

    def infer(self, x: Array, *, n_ranks: int) -> Inferred:
        """Return [n] in int32."""
        return (x.shape[0] // n_ranks,), INT32

    def evaluate(self, x: Any, *, n_ranks: int) -> Any:
        """Return the ids."""
        by_row = x.reshape(n_ranks, -1, x.shape[1]).swapaxes(0, 1)
        picked = [self._draw(row, shares) for row, shares in zip(self.rows, by_row, strict=True)]
        return np.array(picked, np.int32)

    def _draw(self, row: int, shares: Floats) -> int:
        """Return the id of one row, from what every rank sent [n_ranks, ...]."""
        spec, width = self.spec, shares.shape[1]
        if spec.k is None:
            owned = split_evenly(self.vocab, len(shares))
            logits, ids = (
                np.concatenate([s[: len(o)] for s, o in zip(shares, owned, strict=True)]),
                np.arange(self.vocab),
            )
        else:
            logits, ids = shares[:, : width // 2].ravel(), shares[:, width // 2 :].ravel().astype(np.int64)
        order = np.lexsort((ids, -logits))[: spec.k]
        logits, ids = logits[order] / np.float32(spec.temperature), ids[order]
        kept = logits > -np.inf
        if spec.p is not None:
            share: npt.NDArray[np.float64] = np.exp(logits.astype(np.float64) - logits[0])
            kept &= np.cumsum(share) - share < spec.p * share.sum()
        noise = gumbel(spec.seed, row, self.step, range(self.vocab))[ids[kept]]
        value = logits[kept] + noise
        return int(ids[kept][np.lexsort((ids[kept], -value))[0]])

    def work(self, x: Array, *, n_ranks: int) -> Work:
        """Return a sort of the candidates, the softmax over them and the noise."""
        n_candidates = x.size if self.spec.k is None else x.size // 2
        flops = (SORT_FLOPS + NUCLEUS_FLOPS + NOISE_FLOPS) * n_candidates
        return vector_work(x, flops, x.nbytes + 4 * (x.shape[0] // n_ranks), kind="sample")


@frozen
class Draw:
    """One step's choice for some rows of the batch, numbered as in the whole batch."""

    spec: SamplingSpec
    rows: tuple[int, ...]
    step: int

    def local(self, ids: range) -> Any:
        """Return the kernel that takes a rank's own logits."""
        match self.spec.kind:
            case "greedy":
                return LocalArgmax(ids.start)
            case "temperature":
                return LocalDraw(ids, self.spec, self.rows, self.step)
            case _:
                return Candidates(ids.start)

    def params(self, vocab: int, n_ranks: int) -> dict[str, Any]:
        """Return the parameters of the local kernel."""
        if self.spec.kind in {"greedy", "temperature"}:
            return {}
        return {"k": None if self.spec.k is None else min(self.spec.k, vocab), "most": -(-vocab // n_ranks)}

    def merge(self, vocab: int) -> Any:
        """Return the kernel that takes what all ranks have sent."""
        if self.spec.kind in {"greedy", "temperature"}:
            return MergeArgmax()
        return MergeCandidates(self.spec, vocab, self.rows, self.step)
