"""What the time plane costs: wall time and memory of large collectives, each timed in a fresh process.

    python benchmarks/timeline_engine.py [--repeats 3] [--large]

The aims (docs/performance.md) and what independent simulators took for the same on 2 cores of the same kind:

    8x8 torus direct all-to-all, 4,032 transfers        SimGrid 4.1: 11 s
    16x16 torus direct all-to-all, 65,280 transfers     SimGrid 4.1: more than 150 s
    256 hosts on a star, all-to-all                     SimGrid 4.1: 73 s
    16x16x16 torus all-reduce of 64 MiB                 ASTRA-sim 2 analytical, without contention: 2.6-4.3 s, 167 MB
    16x16x16 torus direct all-to-all, 16.8 M transfers  ASTRA-sim 2 analytical, without contention: 8-10 s
    1,024 chips on a switch, all-reduce and all-to-all  ASTRA-sim 2 analytical: 21-29 s and 8-11 s, 950 MB

`engine` plays every transfer of every chip; `one chip` uses that all chips do the same (cluster/timeline/uniform.py).
On a machine that others use too, CPU time says more than wall time; all is done in one thread. The compiled code is
loaded and warmed up before a case is timed; the first use after installation compiles it.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import numpy as np

from cluster.prediction import predict_ps
from cluster.records import Collective, Trace
from cluster.timeline import time_run
from cluster.vocabulary import VOCABULARY
from configs.loader import load_system
from topology import build_topology

CASES = {
    "8x8 all-to-all, engine": ([8, 8], "all_to_all", "direct", "engine"),
    "16x16 all-to-all, engine": ([16, 16], "all_to_all", "direct", "engine"),
    "switch of 256 all-to-all, engine": (256, "all_to_all", "direct", "engine"),
    "16x16x16 all-reduce of 64 MiB, engine": ([16, 16, 16], "all_reduce", "torus", "engine"),
    "16x16x16 all-reduce of 64 MiB, one chip": ([16, 16, 16], "all_reduce", "torus", "predict"),
    "16x16x16 all-to-all, one chip": ([16, 16, 16], "all_to_all", "direct", "predict"),
    "switch of 1,024 all-reduce, one chip": (1024, "all_reduce", "two_shot", "predict"),
    "switch of 1,024 all-to-all, one chip": (1024, "all_to_all", "direct", "predict"),
    "100,000-chip ring all-reduce, one chip": ([100_000], "all_reduce", "ring", "predict"),
}
LARGE = {"32x32 all-to-all, engine": ([32, 32], "all_to_all", "direct", "engine")}
"""Takes minutes."""
BYTES_PER_CHIP = 2**20


def measure(name: str) -> tuple[float, float, float, int]:
    """Return (wall s, CPU s, simulated s, peak MiB) of one case."""
    shape, op, algorithm, way = {**CASES, **LARGE}[name]
    _time([4, 4] if algorithm == "torus" else [8], op, algorithm if algorithm != "torus" else "ring", way)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    simulated_ps = _time(shape, op, algorithm, way)
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
    return wall_s, cpu_s, simulated_ps * 1e-12, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _time(shape: list[int] | int, op: str, algorithm: str, way: str) -> int:
    """Build the topology (dims, or the chips of a switch) and the schedule, and return the simulated time."""
    link = {"bandwidth": "12.5GB/s", "latency": "1us"}
    if isinstance(shape, int):
        kind = {"kind": "switch", "chips": shape}
    else:
        kind = {"kind": "torus" if len(shape) > 1 else "ring", "dims": shape}
    mapping = {"name": "bench", "chip": "wormhole-n150", "topology": {**kind, "link": link}}
    system = load_system(mapping, (), VOCABULARY)
    topology = build_topology(system)
    n = topology.n_chips
    n_elements = BYTES_PER_CHIP // 4 // n * n + n
    if algorithm == "torus":
        n_elements = 64 * 2**20 // 4
    call = Collective(op, algorithm, "all", tuple(range(n)), 0, (n_elements,), np.dtype(np.float32))
    if way == "predict":
        return predict_ps(system, topology, call)
    traces = [Trace(rank, np.zeros(1, np.int32)) for rank in range(n)]
    return time_run(system, topology, "fluid", [call], traces).total_ps


def main() -> int:
    """Measure every case in processes of its own and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="those that take minutes, too")
    parser.add_argument("--case", help="measure one case in this process")
    options = parser.parse_args()
    if options.case:
        print(*measure(options.case))
        return 0
    for name in [*CASES, *(LARGE if options.large else ())]:
        command = [sys.executable, __file__, "--case", name]
        runs = [subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(options.repeats)]
        if any(run.returncode for run in runs):
            print(f"{name:42s} failed: {runs[0].stderr.strip().splitlines()[-1:]}")
            continue
        rows = [tuple(map(float, run.stdout.split())) for run in runs]
        wall_s, cpu_s, simulated_s, peak_mib = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"{name:42s} {wall_s:8.3f} s wall {cpu_s:8.3f} s CPU {simulated_s * 1e3:10.3f} ms simulated "
            f"{peak_mib:6.0f} MiB",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
