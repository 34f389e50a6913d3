"""Which all-reduce is fastest at which size: the crossovers of 8 H100s and of a Wormhole torus.

python examples/crossover.py        (draws crossover.svg)
"""

from __future__ import annotations

from itertools import groupby

from matplotlib import pyplot as plt

from cluster.bench import bench
from configs.units import format_size

SYSTEMS = {"dgx-h100": 8, "wormhole-galaxy-torus": 32}
SIZES_BYTES = [4**k * 1024 for k in range(10)]


def main() -> None:
    """Print where the fastest algorithm changes, draw the time of each against the fastest."""
    figure, panels = plt.subplots(1, len(SYSTEMS), figsize=(11, 4), layout="constrained", sharey=True)
    for axes, (system, n_ranks) in zip(panels, SYSTEMS.items(), strict=True):
        rows = list(
            bench(system, "all_reduce", algorithm="all", n_ranks=n_ranks, sizes_bytes=SIZES_BYTES, numerics="shapes")
        )
        fastest = {size: min((r for r in rows if r.size_bytes == size), key=lambda r: r.time_s) for size in SIZES_BYTES}
        for name, same in groupby(SIZES_BYTES, key=lambda size: fastest[size].algorithm):
            print(f"{system:24} from {format_size(next(same)):>8}: {name}")
        for name in sorted({row.algorithm for row in fastest.values()}):
            mine = [row for row in rows if row.algorithm == name]
            slower = [row.time_s / fastest[row.size_bytes].time_s for row in mine]
            axes.plot([row.size_bytes for row in mine], slower, "o-", label=name)
        axes.set(xscale="log", yscale="log", xlabel="bytes", title=f"{system}, {n_ranks} ranks")
        axes.legend(fontsize="small")
    figure.supylabel("time / time of the fastest")
    plt.savefig("crossover.svg")


if __name__ == "__main__":
    main()
