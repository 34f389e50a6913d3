"""What moving data costs: collectives and decode on Ray actors against one process, and against other libraries.

    python benchmarks/ray_throughput.py [--rounds 3] [--tokens 8] [--only collectives,decode] [--peers PYTHON]

The other libraries are JAX, MPI and gloo, run by benchmarks/peers.py, which says what to install; `--peers` names an
interpreter that has them, if this one has not. Every part runs its sides in turn, with the actors up for all of them;
figures are the least of all repeats. Beside the wall time stands what the processors spent, divided by the cores: what
a collective would take if nothing else ran. Claims (32 ranks, 64 KiB a rank, on two cores): Ray's all-gather in less
than 40 ms and both faster than gloo, the local one faster than JAX's and the all-reduce within 3 times of it; decode of
SmolLM2 on 32 actors within 2.5 times of local, 64 chips in 8 actors within 1.5 times; at most 90 MB an actor beyond its
shard; 128 chips run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import peers
from decode_overhead import FP32, seconds_per_token

from cluster.backends.processes import n_cores
from cluster.experiment import prepare
from cluster.session import launch
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment

N_RANKS = 32
N_BYTES = 1 << 16
REPEATS = 20
MB = 1e6


def ring(n_chips: int) -> dict[str, Any]:
    """Return a system of chips in a ring."""
    memory = [{"name": "dram", "capacity": "1GiB", "bandwidth": "100GB/s"}]
    link = {"bandwidth": "25GB/s", "latency": "1us"}
    chip = {"name": "chip", "peak": {"fp32": "1TFLOPS"}, "memory": memory}
    return {"name": "ring", "chip": chip, "topology": {"kind": "ring", "dims": [n_chips], "axes": ["x"], "link": link}}


def make_program() -> Any:
    """Return a program that times a collective; nested, so that it travels by value."""

    async def program(chip: Any, op: str, n_elements: int, repeats: int) -> tuple[list[float], float]:
        x = np.full(n_elements, chip.rank, np.float32)
        await getattr(chip, op)(x)
        walls, spent = [], 0.0
        for _ in range(repeats):
            await chip.barrier()
            began, before = time.perf_counter(), time.thread_time()
            await getattr(chip, op)(x)
            walls.append(time.perf_counter() - began)
            spent += time.thread_time() - before
        return walls, spent / repeats

    return program


class Checks:
    """The claims, and whether they hold."""

    def __init__(self) -> None:
        self.failed = 0

    def at_most(self, what: str, value: float, limit: float, unit: str = "") -> None:
        """Print a claim."""
        holds = value <= limit
        self.failed += not holds
        print(f"  {'holds ' if holds else 'FAILS '} {what}: {value:.2f}{unit}, at most {limit:g}{unit}")


def collectives(checks: Checks, rounds: int, peers_python: str) -> None:
    """All-gather and all-reduce of 64 KiB among 32 chips."""
    algorithms = {"all_gather": "ring", "all_reduce": "ring"}
    options: dict[str, dict[str, Any]] = {
        "ray, 32 actors": {"backend": "ray", "chips_per_actor": 1},
        "ray, 8 actors": {"backend": "ray", "chips_per_actor": 4},
        "ray, 2 actors": {"backend": "ray", "chips_per_actor": 16},
        "local": {},  # last: JAX, with which it is compared, comes next
    }
    best: dict[str, dict[str, float]] = {}
    print(f"\nring of {N_RANKS} chips, {N_BYTES >> 10} KiB each (ms: least wall time | processors / cores)")
    for name, option in options.items():
        with launch(ring(N_RANKS), collectives=algorithms, **option) as cluster:
            best[name] = {}
            for op in algorithms:
                walls, spent = [], []
                for _ in range(rounds):
                    values = cluster.run(make_program(), op, N_BYTES // 4, REPEATS).values
                    walls.append(np.max([wall for wall, _ in values], axis=0).min())
                    spent.append(np.sum([used for _, used in values]) / n_cores())
                best[name][op] = min(walls) * 1e3
                best[name][f"{op} spent"] = min(spent) * 1e3
            if name == "ray, 32 actors":
                memory = max(pss_bytes(pid) for pid in cluster.backend.actors.pids) / MB  # type: ignore[attr-defined]
        row = best[name]
        alone = option.get("chips_per_actor") == 1  # the chips of an actor share the thread whose time is counted
        spent_too = f" | {row['all_gather spent']:6.1f} {row['all_reduce spent']:6.1f}" if alone else ""
        print(f"  {name:48s} {row['all_gather']:8.1f} {row['all_reduce']:8.1f}{spent_too}")
    others = {}
    for library, result in peers.measure(N_RANKS, N_BYTES, peers_python):
        if isinstance(result, str):
            print(f"  {library:48s} {result}")
        else:
            others[library] = result
            print(f"  {result['name']:48s} {result['all_gather']:8.1f} {result['all_reduce']:8.1f}")
    if "jax" in others:
        checks.at_most("local all-gather / JAX's", best["local"]["all_gather"] / others["jax"]["all_gather"], 1)
        checks.at_most("local all-reduce / JAX's", best["local"]["all_reduce"] / others["jax"]["all_reduce"], 3)
    if "gloo" in others:
        ours = best["ray, 32 actors"]
        checks.at_most("ray all-gather on 32 actors / gloo's", ours["all_gather"] / others["gloo"]["all_gather"], 1)
        checks.at_most("ray all-reduce on 32 actors / gloo's", ours["all_reduce"] / others["gloo"]["all_reduce"], 1)
    checks.at_most("ray all-gather on 32 actors, ms", best["ray, 32 actors"]["all_gather"], 40)
    checks.at_most("memory of a one-chip actor (PSS), MB", memory, 90)


def pss_bytes(pid: int) -> int:
    """Return the memory of a process, with its share of what it has in common with others."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


CASES = (
    ("wormhole-galaxy", 4, 8, 1, 2.5),
    ("wormhole-quad-galaxy", 4, 16, 8, 1.5),
    ("wormhole-quad-galaxy", 8, 16, 16, None),
)
"""System, TP, PP, chips of an actor, how many times the local time is allowed."""


def decode(checks: Checks, rounds: int, n_tokens: int, case: tuple[str, int, int, int, float | None]) -> None:
    """Decode SmolLM2 here and on Ray in turn; both must give the same ids."""
    system, tp, pp, chips_per_actor, limit = case
    words = (f"system={system}", f"parallel.tp={tp}", f"parallel.pp={pp}", f"workload.new_tokens={n_tokens}")
    spec = load_experiment("galaxy-smollm2", (*FP32, *words), VOCABULARY)
    job, _ = prepare(spec)
    n_chips = tp * pp
    n_actors = n_chips // chips_per_actor
    best: dict[str, float] = {}
    answers = set()
    began = time.perf_counter()
    with (
        launch(spec.system, n_chips=n_chips) as local,
        launch(spec.system, n_chips=n_chips, backend="ray", chips_per_actor=chips_per_actor) as on_ray,
    ):
        start_s = time.perf_counter() - began
        for _ in range(rounds):
            for name, cluster in (("local", local), ("ray", on_ray)):
                ids, token_s = seconds_per_token(cluster, job)
                best[name] = min(best.get(name, token_s), token_s)
                answers.add(tuple(ids))
        memory_bytes = [pss_bytes(pid) for pid in on_ray.backend.actors.pids]  # type: ignore[attr-defined]
    print(f"\nSmolLM2-135M, TP {tp} x PP {pp} on {n_chips} chips in {n_actors} actors (up after {start_s:.0f} s)")
    print(
        f"  local {best['local'] * 1e3:.0f} ms a token, ray {best['ray'] * 1e3:.0f} ms; same ids: {len(answers) == 1}"
    )
    print(f"  actors: {max(memory_bytes) / MB:.0f} MB at most, {sum(memory_bytes) / MB:.0f} MB in all (PSS)")
    checks.failed += len(answers) != 1
    if limit is not None:
        checks.at_most("ray / local, a token", best["ray"] / best["local"], limit)


def main() -> int:
    """Measure and print; return 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--only", default="collectives,decode", help="parts, with commas")
    parser.add_argument("--peers", default=sys.executable, help="an interpreter that has JAX, mpi4py and torch")
    options = parser.parse_args()
    checks = Checks()
    print(f"{n_cores()} cores, {os.getloadavg()[0]:.1f} processes running on average in the last minute")
    if "collectives" in options.only:
        collectives(checks, options.rounds, options.peers)
    if "decode" in options.only:
        for case in CASES:
            decode(checks, options.rounds, options.tokens, case)
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
