"""NVLink against an Ethernet mesh for the same model: 8 H100s, 8 Wormholes, and these with faster links.

python examples/nvlink_or_mesh.py        (draws nvlink_or_mesh.svg)
"""

from __future__ import annotations

from matplotlib import pyplot as plt

from cluster import sweep

MESH = "system.topology.link.bandwidth"
SWEEP = {
    "base": {
        "system": "dgx-h100",
        "model": "llama-3.1-8b",
        "parallel": {"tp": 8},
        "numerics": "shapes",
        "workload": {"kind": "decode", "prompt_tokens": 128, "new_tokens": 4},
    },
    "grid": {"workload.batch": {"log": [1, 256], "n": 9}},
    "list": [
        {"system": "dgx-h100"},
        {"system": "wormhole-t3000"},
        {"system": "wormhole-t3000", MESH: "100GB/s"},
        {"system": "wormhole-t3000", MESH: "450GB/s"},
    ],
}


def main() -> None:
    """Print and draw how much of a decode step is communication that nothing hides."""
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    lines: dict[str, list[tuple[int, float, float]]] = {}
    for point in sweep(SWEEP, out="sweep-nvlink-or-mesh"):
        row = point.row
        name = row["system"] + (f", links of {point.values[MESH]}" if MESH in point.values else "")
        if point.error:
            print(f"{name}: batch {row['batch']}: {point.error.splitlines()[0]}")
            continue
        share = row["exposed_communication_s"] / row["total_s"]
        print(f"{name:36} batch {row['batch']:3}: TPOT {row['tpot_s'] * 1e3:7.3f} ms, communication {share:4.0%}")
        lines.setdefault(name, []).append((row["batch"], row["tpot_s"] * 1e3, share))
    for name, line in lines.items():
        batches, tpots_ms, shares = zip(*sorted(line), strict=True)
        left.plot(batches, tpots_ms, "o-", label=name)
        right.plot(batches, shares, "o-")
    left.set(xscale="log", yscale="log", xlabel="batch", ylabel="time per output token, ms")
    right.set(xscale="log", xlabel="batch", ylabel="share of communication", ylim=(0, 1))
    left.legend(fontsize="small")
    plt.savefig("nvlink_or_mesh.svg")


if __name__ == "__main__":
    main()
