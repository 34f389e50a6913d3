"""Strong scaling of tensor parallelism: the same model and batch on ever more chips of a machine.

python examples/tp_scaling.py
"""

from __future__ import annotations

from cluster import sweep

SWEEP = {
    "base": {
        "system": "gb200-nvl72",
        "model": "llama-3.1-8b",
        "numerics": "shapes",
        "workload": {"kind": "decode", "batch": 8, "prompt_tokens": 128, "new_tokens": 4},
    },
    "grid": {"system": ["gb200-nvl72", "wormhole-galaxy"], "parallel.tp": [1, 2, 4, 8, 16, 32]},
}


def main() -> None:
    """Print the speed-up over the fewest chips that hold the model, and the share of communication."""
    first: dict[str, tuple[int, float]] = {}
    for row in sweep(SWEEP, out="sweep-tp-scaling").table().to_pylist():
        if row["error"]:
            print(f"{row['system']:16} tp {row['parallel.tp']:2}: {row['error'].splitlines()[0]}")
            continue
        tp, tpot_s = first.setdefault(row["system"], (row["tp"], row["tpot_s"]))
        speed_up, ideal = tpot_s / row["tpot_s"], row["tp"] / tp
        share = row["exposed_communication_s"] / row["total_s"]
        print(
            f"{row['system']:16} tp {row['tp']:2}: TPOT {row['tpot_s'] * 1e3:7.3f} ms, {speed_up:5.2f} times as fast "
            f"({speed_up / ideal:4.0%} of ideal), communication {share:4.0%}"
        )


if __name__ == "__main__":
    main()
