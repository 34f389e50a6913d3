"""Batch against latency: tokens/s per user against tokens/s per chip, and which points no other beats in both.

python examples/batch_pareto.py
"""

from __future__ import annotations

from cluster import sweep

SWEEP = {
    "base": {
        "system": "dgx-h100",
        "model": "llama-3.1-70b",
        "numerics": "shapes",
        "workload": {"kind": "decode", "prompt_tokens": 128, "new_tokens": 2},
    },
    "grid": {"parallel.tp": [4, 8], "parallel.dp": [1, 2], "workload.batch": {"log": [1, 256], "n": 9}},
    "where": ["n_ranks == n_chips", "batch >= dp"],
}


def main() -> None:
    """Print the points from fast to thrifty, those on the Pareto front starred."""
    rows = [row for row in sweep(SWEEP, out="sweep-batch-pareto").table().to_pylist() if not row["error"]]
    best = 0.0
    for row in sorted(rows, key=lambda row: (-row["tokens_per_s_per_user"], -row["tokens_per_s_per_chip"])):
        star = "*" if row["tokens_per_s_per_chip"] > best else " "
        best = max(best, row["tokens_per_s_per_chip"])
        print(
            f"{star} tp {row['tp']} dp {row['dp']} batch {row['batch']:3}: "
            f"{row['tokens_per_s_per_user']:6.1f} tokens/s/user, {row['tokens_per_s_per_chip']:7.1f} tokens/s/chip"
        )


if __name__ == "__main__":
    main()
