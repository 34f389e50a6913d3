"""Branch and bound over the layouts of a model on a system.

    candidates ─► shapes: possible? how many rows fit? least times of the fewest rows ─► best bound first:
                  least times of its own rows ─► run ─► winner, runner-up

The winner is the best candidate, the runner-up the best one of another layout. Candidates are visited in the order of
their shapes' bounds, and run if their own could make them either, until none is left that might: so what did not run is
neither. Runs are those of a sweep.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import define, evolve, frozen

from cluster.backends.processes import Lost, run_in_processes
from cluster.energy import Energy, cost_of
from cluster.experiment import prepare
from cluster.fitting import fits
from cluster.planner.bounds import Bound, bound_of, least_score
from cluster.planner.space import Candidate, Request, Shape, candidates
from cluster.serving import served
from cluster.sweeps.task import Task, run_task
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError, RunError
from configs.loader import load_experiment
from configs.plain import fingerprint
from configs.spec.experiment import ExperimentSpec
from topology import build_topology, chips_of
from workloads.decode import DecodeJob

Status = Literal["impossible", "memory", "slo", "bound", "run", "failed"]
OnProgress = Callable[[str, int, int], None]
"""(what is going on, how many are done, of how many at most)."""
Run = Callable[[Callable[[Any], Any], Iterable[Any], int], Iterator[tuple[Any, Any]]]


@frozen
class Assessed:
    """What is known of a shape before anything runs: why it is impossible, or how many rows fit, a bound for all."""

    shape: Shape
    problem: str | None = None
    most_rows: int = 0
    bound: Bound | None = None


@frozen
class Visit:
    """A candidate on its way to a worker; it runs if its own bound is not above `reach`."""

    request: Request
    candidate: Candidate
    reach: float
    usd_per_chip_s: float


@frozen
class Visited:
    """A candidate's own bound, and the line of its run (`cluster.sweeps.task.run_task`), None where it need not run."""

    bound: Bound
    line: Mapping[str, Any] | None


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
    _visit_best_first(found, usd_per_chip_s, on_progress, run)
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

    Memory and times of a replica grow with its rows: the most rows that fit are found by halving, and what the fewest
    rows take is a bound for all.
    """
    request, shape, whole, parts = task
    try:
        spec = one_replica(request, shape, whole[0])
        topology = build_topology(spec.system)
        chips = chips_of(spec.system, topology)
        try:
            template, _ = prepare(spec)
        except ConfigError as error:
            return Assessed(shape, str(error))
        most_rows = _most_that_fit(whole, lambda rows: fits(chips, _with_rows(template, rows)))
        if not most_rows:
            return Assessed(shape)
        system = served(spec.system, spec.software, template.layout.n_ranks)
        bound = bound_of(system, topology, spec.contention, _with_rows(template, parts[0]))
        return Assessed(shape, None, most_rows, bound)
    except Exception as error:  # noqa: BLE001  a worker raises nothing
        return f"{type(error).__name__}: {error}"


def _most_that_fit(rows: Sequence[int], fit: Callable[[int], bool]) -> int:
    """Return the last of these rows, in order, that fits, 0 for none; most often it is the first or the last one.

    >>> _most_that_fit((1, 2, 4, 8), lambda n: n < 5)
    4
    """
    if not fit(rows[0]):
        return 0
    if fit(rows[-1]):
        return rows[-1]
    return rows[bisect_left(rows, True, key=lambda n: not fit(n)) - 1]


def one_replica(request: Request, shape: Shape, rows: int) -> ExperimentSpec:
    """Return the experiment of one replica, of `ep` of them that share experts, with so many rows each."""
    overrides = Candidate(shape, 1, 1, rows * shape.ep).overrides()
    return load_experiment(request.base, (*request.overrides, *overrides), VOCABULARY)


def _with_rows(job: DecodeJob, rows: int) -> DecodeJob:
    """Return the job with so many rows of every replica."""
    return evolve(job, prompt_lengths=job.prompt_lengths[:1] * (rows * job.layout.ep), prompt_ids=None)


def _entry(candidate: Candidate, known: Assessed, request: Request, usd_per_chip_s: float) -> Entry:
    """Return what a candidate's shape says of it; those that may run have the status `bound`."""
    if known.problem is not None:
        return Entry(candidate, "impossible", reason=known.problem)
    if candidate.rows > known.most_rows:
        return Entry(candidate, "memory", reason=f"{known.most_rows or 'no'} rows of a replica fit")
    assert known.bound is not None
    return _bounded(candidate, known.bound, request, usd_per_chip_s)


def _bounded(candidate: Candidate, bound: Bound, request: Request, usd_per_chip_s: float) -> Entry:
    """Return what a bound says of a candidate."""
    least_s = {"tpot": bound.tpot_s(candidate.micro_batches), "ttft": bound.ttft_s()}
    for limit in request.limits:
        if least_s[limit.metric] >= limit.below_s:
            return Entry(candidate, "slo", bound, reason=f"{limit.metric} is at least {least_s[limit.metric]:.3g} s")
    return Entry(candidate, "bound", bound, least_score(request.objective, candidate, bound, usd_per_chip_s))


# --- the search -------------------------------------------------------------------------------------------------------


def _visit_best_first(found: Plan, usd_per_chip_s: float, on_progress: OnProgress, run: Run) -> None:
    """Visit the entries that might be the winner or the runner-up; note in them what is learnt."""
    request, open_ = found.request, [entry for entry in found.entries if entry.status == "bound"]
    waiting = sorted(open_, key=lambda entry: (entry.least_score, entry.candidate.n_ranks, entry.candidate))
    entries = {entry.candidate: entry for entry in waiting}
    best: dict[Any, float] = {}

    def visits() -> Iterator[Visit]:
        for entry in waiting:
            scores = sorted(best.values())
            runner_up = scores[1] if len(scores) > 1 else math.inf
            if entry.least_score > runner_up:
                return  # nor do those that follow reach it
            reach = min(runner_up, best.get(entry.candidate.layout, math.inf))
            if entry.least_score <= reach:
                yield Visit(request, entry.candidate, reach, usd_per_chip_s)

    on_progress("runs", 0, len(waiting))
    for n_done, (asked, visited) in enumerate(run(visit, visits(), request.n_workers) if waiting else (), 1):
        entry = entries[asked.candidate]
        _note(request, entry, asked, visited)
        if entry.status == "run":
            layout = entry.candidate.layout
            best[layout] = min(entry.score, best.get(layout, math.inf))
        on_progress("runs", n_done, len(waiting))


def visit(asked: Visit) -> Visited | str:
    """Return a candidate's own bound and, if that may make it the winner or the runner-up, its run; or what failed."""
    request, candidate = asked.request, asked.candidate
    try:
        spec = one_replica(request, candidate.shape, candidate.part_rows)
        job = prepare(spec)[0]
        bound = bound_of(
            served(spec.system, spec.software, job.layout.n_ranks), build_topology(spec.system), spec.contention, job
        )
        entry = _bounded(candidate, bound, request, asked.usd_per_chip_s)
        runs = entry.status == "bound" and entry.least_score <= asked.reach
        return Visited(bound, run_task(_task(request, candidate)) if runs else None)
    except Exception as error:  # noqa: BLE001  a worker raises nothing
        return f"{type(error).__name__}: {error}"


def _task(request: Request, candidate: Candidate) -> Task:
    overrides = (*request.overrides, *candidate.overrides())
    return Task(fingerprint(load_experiment(request.base, overrides, VOCABULARY)), request.base, Path(), overrides)


def _note(request: Request, entry: Entry, asked: Visit, visited: Visited | Lost | str) -> None:
    """Note in an entry what its visit gave."""
    if not isinstance(visited, Visited):
        entry.status, entry.reason = "failed", visited if isinstance(visited, str) else visited.reason
        return
    own = _bounded(entry.candidate, visited.bound, request, asked.usd_per_chip_s)
    entry.bound, entry.least_score, entry.status, entry.reason = own.bound, own.least_score, own.status, own.reason
    line = visited.line
    if line is None:
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
