"""Batch against latency: tokens/s per user against tokens/s per chip, and which points no other beats in both.

python examples/batch_pareto.py        (draws batch_pareto.svg)
"""

from __future__ import annotations

from typing import Any

from matplotlib import pyplot as plt

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
    """Print the points from fast to thrifty, those on the Pareto front starred, and draw them."""
    rows = [row for row in sweep(SWEEP, out="sweep-batch-pareto").table().to_pylist() if not row["error"]]
    rows.sort(key=lambda row: (-row["tokens_per_s_per_user"], -row["tokens_per_s_per_chip"]))
    front, best = [], 0.0
    for row in rows:
        user, chip = row["tokens_per_s_per_user"], row["tokens_per_s_per_chip"]
        star = "*" if chip > best else " "
        if chip > best:
            front.append((user, chip))
            best = chip
        print(
            f"{star} tp {row['tp']} dp {row['dp']} batch {row['batch']:3}: "
            f"{user:6.1f} tokens/s/user, {chip:7.1f} tokens/s/chip"
        )
    draw(rows, front)


def draw(rows: list[dict[str, Any]], front: list[tuple[float, float]]) -> None:
    """Draw all points by layout, and the front."""
    _, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for layout in sorted({(row["tp"], row["dp"]) for row in rows}):
        mine = [row for row in rows if (row["tp"], row["dp"]) == layout]
        users, chips = ([row[f"tokens_per_s_per_{whose}"] for row in mine] for whose in ("user", "chip"))
        axes.plot(users, chips, "o", label=f"TP {layout[0]} × DP {layout[1]}")
    axes.plot(*zip(*front, strict=True), "-", color="grey", zorder=0, label="Pareto front")
    axes.set(xlabel="tokens/s per user", ylabel="tokens/s per chip", yscale="log", title="Llama-3.1-70B on 8 H100s")
    axes.legend()
    plt.savefig("batch_pareto.svg")


if __name__ == "__main__":
    main()
