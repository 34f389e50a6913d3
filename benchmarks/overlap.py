"""What `overlap: true` changes: the figures of docs/overlap.md, in simulated time.

python benchmarks/overlap.py
"""

from __future__ import annotations

from cluster.experiment import run_experiment
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment

CASES = (
    ("t3000-llama-3.1-70b", ()),
    ("galaxy-smollm2", ()),
    ("galaxy-smollm2", ("workload.batch=8",)),
    ("galaxy-smollm2", ("workload.batch=32",)),
)
FIXED = ("numerics=shapes", "collectives.all_reduce=ring")


def main() -> None:
    """Print the table."""
    print("| experiment | overlap | TTFT | TPOT | communication | exposed |")
    print("|---|---|---|---|---|---|")
    for name, overrides in CASES:
        for overlap in ("false", "true"):
            spec = load_experiment(name, (*FIXED, *overrides, f"overlap={overlap}"), VOCABULARY)
            result = run_experiment(spec)
            times, breakdown = result.times, result.timeline.breakdown
            columns = (times.ttft_s, times.tpot_s, breakdown.communication_s, breakdown.exposed_communication_s)
            shown = " | ".join(f"{seconds * 1e3:.2f} ms" for seconds in columns)
            print(f"| {' '.join((name, *overrides))} | {overlap} | {shown} |")


if __name__ == "__main__":
    main()
