"""What a search has found: every candidate with what became of it, the winner, the runner-up, or why there is none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from attrs import define, frozen

from cluster.planner.bounds import Bound
from cluster.planner.space import Candidate, Request
from configs.spec.experiment import ExperimentSpec

Status = Literal["impossible", "memory", "slo", "bound", "run", "failed"]


@define
class Entry:
    """A candidate, what it cannot beat, and what became of it."""

    candidate: Candidate
    status: Status
    bound: Bound | None = None
    least_score: float = -math.inf
    row: Mapping[str, Any] | None = None
    reason: str = ""
    score: float = math.inf

    @property
    def least_tpot_s(self) -> float | None:
        """The least time per token, None where that was not worked out."""
        return None if self.bound is None else self.bound.tpot_s(self.candidate.micro_batches)


@frozen(eq=False)
class Plan:
    """The result of a search; entries are in the order of the candidates."""

    request: Request
    spec: ExperimentSpec
    n_chips: int
    entries: Sequence[Entry]

    @property
    def ranked(self) -> list[Entry]:
        """Those that ran and meet all limits, the best first; of equal ones that of fewer chips."""
        done = [entry for entry in self.entries if entry.status == "run"]
        return sorted(done, key=lambda entry: (entry.score, entry.candidate.n_ranks, entry.candidate))

    @property
    def winner(self) -> Entry:
        """The best candidate."""
        return self.ranked[0]

    @property
    def runner_up(self) -> Entry | None:
        """The best candidate of another layout than the winner's."""
        ranked = self.ranked
        return next((entry for entry in ranked if entry.candidate.layout != ranked[0].candidate.layout), None)

    @property
    def counts(self) -> dict[str, int]:
        """How many candidates there are, and how many had which end."""
        found = Counter(entry.status for entry in self.entries)
        return {"candidates": len(self.entries), **{status: found[status] for status in get_args(Status)}}


def why_none(found: Plan) -> str:
    """Say why no candidate meets the request."""
    counts = found.counts
    what = f"{found.spec.model.name} on {found.spec.system.name}"
    lines = [f"no layout of {what} meets what is asked, of {counts['candidates']} candidates:"]
    said = {
        "impossible": "are impossible",
        "memory": "do not fit the memory",
        "slo": "miss the objectives",
        "failed": "failed",
    }
    for status, what in said.items():
        if counts[status]:
            of_it = [entry for entry in found.entries if entry.status == status]
            lines.append(f"  {counts[status]} {what}; {_closest(of_it)}")
    return "\n".join(lines)


def _closest(entries: Sequence[Entry]) -> str:
    """Name the entry that came closest, and its reason."""

    def tpot_s(entry: Entry) -> float:
        return entry.row["tpot_s"] if entry.row else entry.least_tpot_s or math.inf

    closest = min(
        entries, key=lambda entry: (entry.row is None, tpot_s(entry), -entry.candidate.n_ranks, entry.candidate)
    )
    return f"the closest: {closest.candidate}: {closest.reason}"
