"""What simulation costs: wall time per token of sharded decode against a plain, unsharded numpy forward pass.

    python benchmarks/decode_overhead.py [--ray] [--rounds 5] [--tokens 32]

Claims: the local backend takes at most 2 × plain numpy; Ray with one actor per chip at most 3 × local. Each round runs
all sides in turn in one process tree, so that a change of the machine's speed meets them alike; the ratios are medians
over the rounds. The plain pass runs once with one BLAS thread, as chips do, and once with all. All start from the same
prompt and must give the same ids.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from plain_numpy import decode as plain_decode
from threadpoolctl import threadpool_limits

from cluster.experiment import prepare
from cluster.session import Cluster, launch
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment
from workloads.decode import DecodeJob, decode
from workloads.weights import locate_weights

FP32 = ("dtype={weights: fp32, kv: fp32, activations: fp32}",)


def seconds_per_token(cluster: Cluster, job: DecodeJob) -> tuple[list[int], float]:
    """Decode once; return the ids and the wall time of each token after the first."""
    ids: list[int] = []
    moments: list[float] = []

    def on_emit(_rank: int, name: str, value: Any, _index: int) -> None:
        if name == "tokens":
            ids.append(int(np.asarray(value)[0]))
            moments.append(time.perf_counter())

    cluster.run(decode, job, on_emit=on_emit)
    return ids, (moments[-1] - moments[0]) / (len(moments) - 1)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ray", action="store_true", help="also measure the Ray backend (32 actors)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    spec = load_experiment("galaxy-smollm2", (*FP32, f"workload.new_tokens={options.tokens}"), VOCABULARY)
    assert spec.model.weights is not None
    path: Path = locate_weights(spec.model.weights)
    job, _ = prepare(spec)
    assert job.prompt_ids is not None
    prompt = list(job.prompt_ids[0])
    clusters = {"local": launch(spec.system)}
    if options.ray:
        clusters["ray, 32 actors"] = launch(spec.system, backend="ray")
    times: dict[str, list[float]] = {}
    answers: set[tuple[int, ...]] = set()
    try:
        for _ in range(options.rounds):
            measured = {name: seconds_per_token(cluster, job) for name, cluster in clusters.items()}
            measured["plain numpy, all threads"] = plain_decode(str(path), prompt, options.tokens)
            with threadpool_limits(1):
                measured["plain numpy, 1 thread"] = plain_decode(str(path), prompt, options.tokens)
            for name, (ids, seconds) in measured.items():
                times.setdefault(name, []).append(seconds)
                answers.add(tuple(ids))
    finally:
        for cluster in clusters.values():
            cluster.close()
    print(f"SmolLM2-135M, fp32, batch 1, {options.tokens} tokens, TP 4 x PP 8 on 32 chips; {options.rounds} rounds")
    print(f"all sides gave the same ids: {len(answers) == 1}")
    for name, values in times.items():
        print(f"{name:26s} {statistics.median(values) * 1e3:8.1f} ms per token (min {min(values) * 1e3:.1f})")
    for name, base in (("local", "plain numpy, 1 thread"), ("local", "plain numpy, all threads"),
                       ("ray, 32 actors", "local")):  # fmt: skip
        if name in times:
            ratios = [a / b for a, b in zip(times[name], times[base], strict=True)]
            print(f"{name} / {base}: {statistics.median(ratios):.2f}")
    return 0 if len(answers) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
