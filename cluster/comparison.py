"""What a run's number formats cost in accuracy: its logits against those of the same model in fp32 on one chip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from cluster.collector import Collector
from cluster.session import launch
from configs.spec.dtype import DtypeSpec
from workloads.decode import FARTHEST, DecodeJob, decode
from workloads.layout import Layout

REFERENCE = {
    "name": "reference",
    "chip": {
        "name": "reference",
        "peak": {"fp32": "1TFLOPS"},
        "memory": [{"name": "memory", "capacity": "1000000TiB"}],
    },
    "topology": {"kind": "mesh", "dims": [1], "link": {"bandwidth": "1GB/s", "latency": "0ns"}},
}
"""One chip on which everything fits; its times are not looked at."""


@frozen
class LogitError:
    """The difference of logits from those in fp32, over the steps up to the first other token of each row.

    max_abs, rms: of the differences.  relative_rms: rms over that of the fp32 logits about each step's mean.
    n_steps: logit vectors compared; n_equal_tokens: steps before the first other token, over all rows, of n_tokens.
    """

    max_abs: float
    rms: float
    relative_rms: float
    n_steps: int
    n_equal_tokens: int
    n_tokens: int


def against_fp32(job: DecodeJob, ids: Sequence[Sequence[int]], logits: NDArray[np.float32]) -> LogitError:
    """Decode the job again in fp32 and compare; ids [batch][new_tokens], logits [batch, new_tokens, vocab]."""
    dtype = DtypeSpec("fp32", "fp32", "fp32")
    exact = evolve(job, layout=Layout(), dtype=dtype, keep_logits=True, micro_batches=1, tiers=FARTHEST)
    collector = Collector(exact)
    with launch(REFERENCE) as cluster:
        cluster.run(decode, exact, on_emit=collector)
    return compare(np.array(ids), logits, np.array(collector.output_ids()), collector.all_logits())


def compare(
    ids: NDArray[np.int64], logits: NDArray[np.float32], exact_ids: NDArray[np.int64], exact: NDArray[np.float32]
) -> LogitError:
    """Compare ids [batch, steps] and logits [batch, steps, vocab] with exact ones.

    >>> ids, logits = np.array([[1, 2, 3]]), np.zeros((1, 3, 4), np.float32)
    >>> exact = logits + np.float32([0.5, -0.5, 0.5, -0.5])
    >>> compare(ids, logits, np.array([[1, 5, 3]]), exact)
    LogitError(max_abs=0.5, rms=0.5, relative_rms=1.0, n_steps=2, n_equal_tokens=1, n_tokens=3)
    """
    n_equal = np.cumprod(ids == exact_ids, axis=1).sum(axis=1)
    seen = np.arange(ids.shape[1]) <= n_equal[:, None]  # the first other token comes of logits that still compare
    wanted = exact[seen].astype(np.float64)
    difference = logits[seen] - wanted
    rms = float(np.sqrt(np.mean(difference**2)))
    spread = float(np.sqrt(np.mean((wanted - wanted.mean(axis=1, keepdims=True)) ** 2)))
    return LogitError(
        float(np.abs(difference).max()), rms, rms / spread if spread else 0.0,
        int(seen.sum()), int(n_equal.sum()), int(ids.size),
    )  # fmt: skip
