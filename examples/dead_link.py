"""What a dead link costs: every operation on a mesh and a torus of 32 chips, whole, and with link 5-6 dead.

python examples/dead_link.py        (draws dead_link.svg)
"""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from cluster.bench import bench
from configs.units import format_size

SYSTEMS = ["wormhole-galaxy", "wormhole-galaxy-torus"]
OPERATIONS = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]
SIZES_BYTES = [32 << 10, 64 << 20]
FAULT = "faults.links=[chip5-chip6]"


def slowdowns() -> dict[str, list[float]]:
    """Return, by system and size, how many times as long each operation takes with the fault."""
    found: dict[str, list[float]] = {}
    for system in SYSTEMS:
        for op in OPERATIONS:
            whole, faulty = (
                list(bench(system, op, sizes_bytes=SIZES_BYTES, numerics="shapes", overrides=overrides))
                for overrides in ([], [FAULT])
            )
            for before, after in zip(whole, faulty, strict=True):
                slower = after.time_s / before.time_s
                name = f"{system}, {format_size(before.size_bytes)}"
                found.setdefault(name, []).append(slower)
                print(f"{name:32} {op:14} {before.algorithm:20} -> {after.algorithm:20} {slower:5.2f} times as long")
    return found


def main() -> None:
    """Draw the slowdowns."""
    found = slowdowns()
    _, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    places = np.arange(len(OPERATIONS))
    for i, (name, values) in enumerate(found.items()):
        axes.bar(places + (i - (len(found) - 1) / 2) * 0.2, values, 0.18, label=name)
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set_xticks(places, labels=OPERATIONS)
    axes.set(ylabel="times as long as without the fault", title="One dead link among 32 chips")
    axes.legend(fontsize="small")
    plt.savefig("dead_link.svg")


if __name__ == "__main__":
    main()
