"""Shape and twist of a torus against all-to-all: which way to lay out 128 and 256 chips of a TPU v4.

python examples/torus_shapes.py        (draws torus_shapes.svg)
"""

from __future__ import annotations

from matplotlib import pyplot as plt

from cluster.bench import bench
from configs.units import format_bandwidth

SHAPES = {128: ["4x4x8", "2x8x8", "2x4x16"], 256: ["4x8x8", "4x4x16", "2x8x16"]}
SIZE_BYTES = 128 << 20


def shapes() -> dict[str, float]:
    """Return the bus bandwidth of an all-to-all by shape, one without links round where an axis has no whole cubes."""
    found = {}
    for n_chips, forms in SHAPES.items():
        for form in forms:
            dims = [int(side) for side in form.split("x")]
            twists = (False, True) if max(dims) == 2 * min(dims) else (False,)
            for twist in twists:
                topology = {"kind": "torus", "dims": dims, "axes": ["x", "y", "z"], "twist": twist}
                overrides = [f"topology.{key}={str(value).lower()}" for key, value in topology.items()]
                [row] = bench(
                    "tpu-v4-4x4x8", "all_to_all", algorithm="direct", sizes_bytes=[SIZE_BYTES], numerics="shapes",
                    overrides=overrides,
                )  # fmt: skip
                found[f"{n_chips}: {form}{' twisted' if twist else ''}"] = row.busbw_bytes_per_s
    return found


def main() -> None:
    """Print and draw the bandwidths."""
    found = shapes()
    for name, rate in found.items():
        print(f"{name:24} {format_bandwidth(rate)}")
    _, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    colours = ["tab:orange" if "twisted" in name else "tab:blue" for name in found]
    axes.barh(list(found), [rate / 1e9 for rate in found.values()], color=colours)
    axes.invert_yaxis()
    axes.set(xlabel="bus bandwidth of a 128 MiB all-to-all, GB/s", title="TPU v4: shape and twist of the torus")
    plt.savefig("torus_shapes.svg")


if __name__ == "__main__":
    main()
