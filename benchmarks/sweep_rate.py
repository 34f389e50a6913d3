"""How long a sweep of 1,000 points takes: Llama 3.1 70B over systems, layouts and batches, without data.

python benchmarks/sweep_rate.py [--points 60] [--new-tokens 8]

Runs a part of the points, drawn evenly from all, with one worker per core, and extrapolates.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from cluster import sweep
from cluster.backends.processes import n_cores

SYSTEMS = (
    "dgx-h100", "dgx-h200", "hgx-b200", "mi300x-node", "gb200-nvl72", "wormhole-galaxy", "wormhole-galaxy-torus",
    "tpu-v4-4x4x4", "tpu-v5p-4x4x4", "dgx-h100-4-nodes",
)  # fmt: skip


def document(new_tokens: int) -> dict[str, object]:
    """Return the sweep: 1,000 points and some more."""
    return {
        "base": {
            "system": "dgx-h100", "model": "llama-3.1-70b", "numerics": "shapes",
            "workload": {"kind": "decode", "prompt_tokens": 128, "new_tokens": new_tokens},
        },
        "grid": {
            "system": list(SYSTEMS), "parallel.tp": [4, 8, 16, 32], "parallel.pp": [1, 2, 4, 8],
            "workload.batch": {"log": [1, 128], "n": 12},
        },
        "where": ["8 <= n_ranks <= n_chips"],
    }  # fmt: skip


def main() -> None:
    """Print points, seconds and the time of 1,000 of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--new-tokens", type=int, default=8)
    given = parser.parse_args()
    full = document(given.new_tokens)
    with tempfile.TemporaryDirectory() as folder:
        results = sweep(sampled(full, given.points), out=Path(folder))
        began_s = time.perf_counter()
        n_points = sum(1 for _ in results)
        wall_s = time.perf_counter() - began_s
        counts = results.to_json()["counts"]
    print(f"{n_points} points ({counts['failed']} do not fit) on {n_cores()} cores: {wall_s:.1f} s, start included")
    print(f"1,000 points: {wall_s / n_points * 1000 / 60:.1f} min")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = (used.ru_utime + used.ru_stime) / n_points
    print(f"{cpu_s:.2f} s of CPU per point: {cpu_s * 1000 / 2 / 60:.1f} min on 2 cores that have nothing else to do")


def sampled(full: dict[str, object], n_points: int) -> dict[str, object]:
    """Return a sweep of every k-th point that `where` lets through."""
    from cluster.sweeps.points import points_to_run  # noqa: PLC0415
    from workloads.sweeps import read_sweep  # noqa: PLC0415

    kept = points_to_run(read_sweep(full))
    print(f"the whole sweep has {len(kept)} points")
    return {"base": full["base"], "list": kept[:: max(1, len(kept) // n_points)]}


if __name__ == "__main__":
    main()
