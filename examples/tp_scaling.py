"""Strong and weak scaling of tensor parallelism: more chips for the same batch, and for one that grows with them.

python examples/tp_scaling.py        (draws tp_scaling.svg)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib import pyplot as plt

from cluster import sweep

BATCH = 8
DEGREES = [1, 2, 4, 8, 16, 32]
SWEEP = {
    "base": {
        "system": "gb200-nvl72",
        "model": "llama-3.1-8b",
        "numerics": "shapes",
        "workload": {"kind": "decode", "prompt_tokens": 128, "new_tokens": 2},
    },
    "grid": {
        "system": ["gb200-nvl72", "wormhole-galaxy"],
        "parallel.tp": DEGREES,
        "workload.batch": [BATCH * n for n in DEGREES],
    },
    "where": [f"batch == {BATCH} or batch == {BATCH} * tp"],
}


def scaling() -> Iterator[tuple[str, int, float, dict[str, Any]]]:
    """Yield (system and kind, tp, tokens/s per chip against the fewest chips that hold the model, row)."""
    rows = [row for row in sweep(SWEEP, out="sweep-tp-scaling").table().to_pylist() if not row["error"]]
    first: dict[str, float] = {}
    for kind, per_chip in (("strong", 0), ("weak", BATCH)):
        for row in rows:
            if row["batch"] == (per_chip * row["tp"] or BATCH):
                name = f"{row['system']}, {kind}"
                rate = row["tokens_per_s_per_chip"]
                yield name, row["tp"], rate / first.setdefault(name, rate), row


def main() -> None:
    """Print and draw what a chip yields; weak scaling can exceed 1: a larger batch shares the weights' way in."""
    _, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    lines: dict[str, list[tuple[int, float]]] = {}
    for name, tp, relative, row in scaling():
        share = row["exposed_communication_s"] / row["total_s"]
        print(
            f"{name:24} tp {tp:2} batch {row['batch']:3}: TPOT {row['tpot_s'] * 1e3:7.3f} ms, "
            f"a chip yields {relative:5.2f}, communication {share:4.0%}"
        )
        lines.setdefault(name, []).append((tp, relative))
    for name, line in lines.items():
        axes.plot(*zip(*line, strict=True), "o-" if "strong" in name else "o--", label=name)
    axes.set(
        xscale="log", xlabel="chips (TP)", ylabel="tokens/s per chip, relative", title="Llama-3.1-8B, scaling of TP"
    )
    axes.set_xticks(DEGREES, labels=map(str, DEGREES))
    axes.set_ylim(0, None)
    axes.legend()
    plt.savefig("tp_scaling.svg")


if __name__ == "__main__":
    main()
