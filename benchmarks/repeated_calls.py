"""What looking up repeated collectives saves: CPU time of the time plane with and without, in whole runs.

    python benchmarks/repeated_calls.py [--repeats 5]

Every case is run once (without data); then its time plane is timed alone, alternately with calls looked up and with
every transfer played, and both must say the same. See cluster/timeline/reuse.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import numpy as np

from cluster import timeline
from cluster.experiment import run_experiment
from cluster.records import Collective, Trace
from cluster.timeline.reuse import MOST_TRIES, play_run
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment, load_system

EXPERIMENTS = {
    "galaxy-smollm2": ("galaxy-smollm2", ["numerics=shapes"]),
    "t3000-llama-3.1-70b": ("t3000-llama-3.1-70b", []),
    "galaxy-smollm2 on 320 chips": (
        "galaxy-smollm2",
        ["numerics=shapes", "system.topology.dims=[20,16]", "parallel={tp: 4, pp: 8, dp: 10}", "workload.batch=10"],
    ),
}
N_CALLS = 200


def experiment(source: str, overrides: list[str]) -> tuple[float, tuple[Any, ...]]:
    """Return the CPU time of a run and what its time plane was given."""
    given: list[tuple[Any, ...]] = []
    original = timeline.time_run

    def note(*args: Any) -> timeline.Timeline:
        given.append(args)
        return original(*args)

    timeline.time_run = note
    try:
        begin = time.process_time()
        run_experiment(load_experiment(source, overrides, VOCABULARY))
        return time.process_time() - begin, given[0]
    finally:
        timeline.time_run = original


def exchanges() -> tuple[Any, ...]:
    """Return a program of all-to-alls on an 8x8 torus, as the time plane is given it."""
    topology = {"kind": "torus", "dims": [8, 8], "link": {"bandwidth": "12.5GB/s", "latency": "1us"}}
    system = load_system({"name": "bench", "chip": "wormhole-n150", "topology": topology}, (), VOCABULARY)
    call = Collective("all_to_all", "direct", "all", tuple(range(64)), 0, (2**16,), np.dtype(np.float32))
    traces = [Trace(rank, np.zeros(N_CALLS, np.int32)) for rank in range(64)]
    return system, system.topology.build(system.routing), "fluid", [call], traces


def compare(name: str, given: tuple[Any, ...], repeats: int, whole_s: float | None) -> None:
    """Time both ways in turns and print the medians."""
    cpu_s: dict[int, list[float]] = {MOST_TRIES: [], 0: []}
    ends = {}
    for tries in (MOST_TRIES, 0) * repeats:
        begin = time.process_time()
        run = play_run(*given, tries=tries)
        cpu_s[tries].append(time.process_time() - begin)
        ends[tries] = run.played.end_ps[run.built.operations.last_task]
    assert np.array_equal(ends[0], ends[MOST_TRIES])
    looked_up, played = (statistics.median(cpu_s[tries]) for tries in (MOST_TRIES, 0))
    run_s = f"  {whole_s:6.2f} s whole run" if whole_s else ""
    print(f"{name:34s} {looked_up:7.3f} s looked up  {played:7.3f} s played{run_s}", flush=True)


def main() -> int:
    """Compare all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for name, (source, overrides) in EXPERIMENTS.items():
        experiment(source, overrides)  # loads the compiled code
        whole_s, given = experiment(source, overrides)
        compare(name, given, options.repeats, whole_s)
    compare(f"8x8 all-to-all, {N_CALLS} times", exchanges(), options.repeats, None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
