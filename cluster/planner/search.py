"""Branch and bound over the layouts of a model on a system.

    candidates ─► shapes: possible? how many rows fit? least times ─► best bound first ─► runs ─► winner, runner-up

The winner is the best candidate, the runner-up the best one of another layout. Candidates run in the order of their
bounds, until none is left whose bound could make it either: so what did not run is neither. Runs are those of a sweep.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import define, evolve, field, frozen

from cluster.backends.processes import Lost, run_in_processes
from cluster.energy import Energy, cost_of
from cluster.experiment import prepare
from cluster.fitting import fits
from cluster.planner.bounds import Bound, bound_of, least_score
from cluster.planner.space import Candidate, Request, Shape, candidates
from cluster.sweeps import Task, run_task
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError, RunError
from configs.loader import load_experiment
from configs.plain import fingerprint
from configs.spec import ExperimentSpec
from topology import build_topology, chips_of
from workloads.decode import DecodeJob, check_job
from workloads.layout import Layout

Status = Literal["impossible", "memory", "slo", "bound", "run", "failed"]
OnProgress = Callable[[str, int, int], None]
"""(what is going on, how many are done, of how many at most)."""
Run = Callable[[Callable[[Any], Any], Iterable[Any], int], Iterator[tuple[Any, Any]]]


@frozen
class Assessed:
    """What is known of a shape before anything runs: why it is impossible, or how many rows fit and their bounds."""

    shape: Shape
    problem: str | None = None
    most_rows: int = 0
    bounds: Mapping[int, Bound] = field(factory=dict)


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
        statuses: tuple[Status, ...] = ("impossible", "memory", "slo", "bound", "run", "failed")
        return {"candidates": len(self.entries), **{status: found[status] for status in statuses}}


def plan(request: Request, on_progress: OnProgress = lambda *_: None, run: Run = run_in_processes) -> Plan:
    """Return the best candidates of a request; raises ConfigError for a wrong one, RunError where none meets it.

    `run` runs tasks, as `run_in_processes` does.
    """
    spec = load_experiment(request.base, request.overrides, VOCABULARY)
    _check(request, spec)
    topology = build_topology(spec.system)
    kinds = {chip.name for chip in chips_of(spec.system, topology)}
    if len(kinds) > 1:
        raise ConfigError(
            (f"plan: {spec.system.name} has chips of several kinds, {', '.join(sorted(kinds))}; accepted: one",)
        )
    has_experts = getattr(spec.model.shape, "n_experts", 0) > 0
    wanted = candidates(request, topology.n_chips, has_experts)
    assessed = _assess_all(request, wanted, on_progress, run)
    usd_per_chip_s = _usd_per_chip_s(spec)
    entries = [_entry(candidate, assessed[candidate.shape], request, usd_per_chip_s) for candidate in wanted]
    found = Plan(request, spec, topology.n_chips, entries)
    _run_best_first(request, [entry for entry in entries if entry.status == "bound"], on_progress, run)
    if not found.ranked:
        raise RunError(_why_none(found))
    return found


def score_of(objective: str, row: Mapping[str, Any]) -> float:
    """Return the score of a run's row; less is better."""
    if objective == "tpot":
        return float(row["tpot_s"])
    return -float(row["tokens_per_s"]) if objective == "throughput" else float(row["cost_usd_per_million_tokens"])


def _check(request: Request, spec: ExperimentSpec) -> None:
    problems = []
    if request.objective == "cost" and spec.cost is None:
        how = "--set cost.price_per_chip_hour=2.5USD, or a price with years (docs/energy.md)"
        problems.append(f"--objective cost: needs to know what a chip costs; accepted: {how}")
    longest, given = spec.model.shape.max_context, spec.workload
    if (given.prompt_tokens or 0) + given.new_tokens > longest:
        most = f"accepted: at most {longest} tokens together, the context of {spec.model.name}"
        problems.append(f"--context: {given.prompt_tokens}, and {given.new_tokens} new tokens; {most}")
    if problems:
        raise ConfigError(tuple(problems))


def _usd_per_chip_s(spec: ExperimentSpec) -> float:
    """Return what a chip costs in a second of use, electricity left out."""
    if spec.cost is None:
        return 0.0
    cost = cost_of(evolve(spec.cost, electricity_per_kwh_usd=None, pue=1.0), Energy(), [spec.system.chip], 1.0)
    return (cost.cost_usd_per_million_tokens or 0.0) / 1e6


# --- what fits, and what cannot be beaten -----------------------------------------------------------------------------


def _assess_all(
    request: Request, wanted: Sequence[Candidate], on_progress: OnProgress, run: Run
) -> dict[Shape, Assessed]:
    rows: dict[Shape, tuple[set[int], set[int]]] = {}
    for candidate in wanted:
        whole, parts = rows.setdefault(candidate.shape, (set(), set()))
        whole.add(candidate.rows)
        parts.add(candidate.part_rows)
    tasks = [(request, shape, tuple(sorted(whole)), tuple(sorted(parts))) for shape, (whole, parts) in rows.items()]
    found: dict[Shape, Assessed] = {}
    on_progress("bounds", 0, len(tasks))
    for task, result in run(assess, tasks, min(request.n_workers, len(tasks))):
        if isinstance(result, Lost):
            raise RunError(f"the bounds of {task[1]}: {result.reason}")
        if isinstance(result, str):
            raise RunError(f"the bounds of {task[1]}: {result}")
        found[task[1]] = result
        on_progress("bounds", len(found), len(tasks))
    return found


def assess(task: tuple[Request, Shape, tuple[int, ...], tuple[int, ...]]) -> Assessed | str:
    """Return what is known of a shape, or why that failed: what a worker does.

    The memory of a replica grows with its rows, so the most rows that fit are found by halving.
    """
    request, shape, whole, parts = task
    try:
        spec = load_experiment(request.base, request.overrides, VOCABULARY)
        topology = build_topology(spec.system)
        chips = chips_of(spec.system, topology)
        template, _ = prepare(spec)
        try:
            check_job(_job(template, shape, whole[0]))
        except ConfigError as error:
            return Assessed(shape, str(error))
        n = bisect_left(whole, True, key=lambda rows: not fits(chips, _job(template, shape, rows)))
        most_rows = whole[n - 1] if n else 0
        jobs = {rows: _job(template, shape, rows) for rows in (*whole, *parts) if rows <= most_rows}
        bounds = {rows: bound_of(spec.system, topology, spec.contention, job) for rows, job in jobs.items()}
        return Assessed(shape, None, most_rows, bounds)
    except Exception as error:  # noqa: BLE001  a worker raises nothing
        return f"{type(error).__name__}: {error}"


def _job(template: DecodeJob, shape: Shape, rows: int) -> DecodeJob:
    """Return the job of one replica, of `ep` of them that share experts, with so many rows each."""
    given = template.layout
    layout = Layout(
        shape.tp, shape.pp, 1, shape.ep, given.redundant_experts, shape.cp, given.sequence, shape.tp_grid
    )  # fmt: skip
    lengths = template.prompt_lengths[:1] * (rows * shape.ep)
    return evolve(template, layout=layout, prompt_lengths=lengths, prompt_ids=None, micro_batches=1)


def _entry(candidate: Candidate, known: Assessed, request: Request, usd_per_chip_s: float) -> Entry:
    """Return what a candidate's shape says of it; those that may run have the status `bound`."""
    if known.problem is not None:
        return Entry(candidate, "impossible", reason=known.problem)
    if candidate.rows > known.most_rows:
        return Entry(candidate, "memory", reason=f"{known.most_rows or 'no'} rows of a replica fit")
    bound = known.bounds[candidate.part_rows]
    least_s = {"tpot": bound.tpot_s(candidate.micro_batches), "ttft": bound.ttft_s()}
    for limit in request.limits:
        if least_s[limit.metric] >= limit.below_s:
            return Entry(candidate, "slo", bound, reason=f"{limit.metric} is at least {least_s[limit.metric]:.3g} s")
    return Entry(candidate, "bound", bound, least_score(request.objective, candidate, bound, usd_per_chip_s))


# --- the search -------------------------------------------------------------------------------------------------------


def _run_best_first(request: Request, entries: Sequence[Entry], on_progress: OnProgress, run: Run) -> None:
    """Run the entries whose bounds the second best score does not beat; note results in them."""
    waiting = sorted(entries, key=lambda entry: (entry.least_score, entry.candidate.n_ranks, entry.candidate))
    best: dict[Any, float] = {}
    by_task: dict[tuple[str, ...], Entry] = {}

    def tasks() -> Iterator[Task]:
        for entry in waiting:
            layout, scores = entry.candidate.layout, sorted(best.values())
            if len(scores) > 1 and entry.least_score > scores[1]:
                return  # nor do those that follow reach the runner-up
            if entry.least_score > best.get(layout, math.inf):
                continue
            task = _task(request, entry.candidate)
            by_task[task.overrides] = entry
            yield task

    on_progress("runs", 0, len(waiting))
    results = run(run_task, tasks(), request.n_workers) if waiting else ()
    for n_done, (task, line) in enumerate(results, 1):
        entry = by_task[task.overrides]
        _note(request, entry, line)
        if entry.status == "run":
            layout = entry.candidate.layout
            best[layout] = min(entry.score, best.get(layout, math.inf))
        on_progress("runs", n_done, len(waiting))


def _task(request: Request, candidate: Candidate) -> Task:
    overrides = (*request.overrides, *candidate.overrides())
    return Task(fingerprint(load_experiment(request.base, overrides, VOCABULARY)), request.base, Path(), overrides)


def _note(request: Request, entry: Entry, line: Mapping[str, Any] | Lost) -> None:
    """Note in an entry what its run gave."""
    if isinstance(line, Lost):
        entry.status, entry.reason = "failed", line.reason
        return
    if line["status"] != "done":
        entry.status, entry.reason = "failed", line["error"]
        return
    row = entry.row = line["result"]
    for limit in request.limits:
        if row[f"{limit.metric}_s"] >= limit.below_s:
            entry.status, entry.reason = "slo", f"{limit.metric} is {row[f'{limit.metric}_s']:.3g} s"
            return
    if request.objective == "cost" and row["cost_usd_per_million_tokens"] is None:
        entry.status, entry.reason = "failed", "the cost is unknown, for the energy is; give system.chip.power"
        return
    entry.status, entry.score = "run", score_of(request.objective, row)


def _why_none(found: Plan) -> str:
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
