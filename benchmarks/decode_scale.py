"""What a decode step without data costs over chips that do the same, over layers and over roles.

    python benchmarks/decode_scale.py [chips] [layers] [roles]

Llama 3.1 70B in replicas of TP 8 on a TPU v5p torus of 4,096 chips, 8 rows a replica, a prefill and one decode step.
chips: 8 to 4,096, all replicas alike.  layers: of one replica.  roles: of 512 chips, whose replicas have prompts of so
many different lengths; two chips of every such replica are roles of their own (the first one picks the tokens). Each
point is a process of its own: CPU and wall time of the run, after imports, and the process's peak memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

TP, ROWS, PROMPT, NEW = 8, 8, 128, 2
LAYERS = 80
CURVES = {
    "chips": [(n, LAYERS, 1) for n in (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)],
    "layers": [(TP, n, 1) for n in (10, 20, 40, 80, 160, 320)],
    "roles": [(512, LAYERS, n) for n in (1, 2, 4, 8, 16, 32, 64)],
}


def measure(n_chips: int, n_layers: int, n_lengths: int) -> None:
    """Run one point and print its row."""
    from cluster.experiment import run_experiment  # noqa: PLC0415  the parent need not import what children measure
    from cluster.timeline import time_run  # noqa: F401, PLC0415  and numba is no part of the run
    from cluster.vocabulary import VOCABULARY  # noqa: PLC0415
    from configs.loader import load_experiment  # noqa: PLC0415
    from workloads.roles import DecodeRoles  # noqa: PLC0415

    dp = n_chips // TP
    lengths = [PROMPT + replica % n_lengths for replica in range(dp) for _ in range(ROWS)]
    document = {
        "system": "tpu-v5p-16x16x16", "model": "llama-3.1-70b", "parallel": {"tp": TP, "dp": dp}, "numerics": "shapes",
        "workload": {"kind": "decode", "prompt_ids": [[1] * length for length in lengths], "new_tokens": NEW},
    }  # fmt: skip
    spec = load_experiment(document, (f"model.shape.n_layers={n_layers}",), VOCABULARY)
    began_s, cpu_s = time.perf_counter(), time.process_time()
    result = run_experiment(spec)
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    roles = DecodeRoles(result.job)
    n_roles = len({roles.representative(rank) for rank in result.job.layout.ranks})
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    n_operations = len(result.timeline.chip)
    print(f"{n_chips:6} {n_layers:7} {n_roles:6} {n_operations:11,} {cpu_s:8.2f} {wall_s:8.2f} {peak_mib:9.0f}")


def main() -> None:
    """Print the curves that are asked for, by default all."""
    print(f"{'chips':>6} {'layers':>7} {'roles':>6} {'operations':>11} {'CPU s':>8} {'wall s':>8} {'peak MiB':>9}")
    for name in sys.argv[1:] or CURVES:
        print(name, flush=True)
        for point in CURVES[name]:
            subprocess.run([sys.executable, __file__, "--point", *map(str, point)], check=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--point"]:
        measure(*map(int, sys.argv[2:]))
    else:
        main()
