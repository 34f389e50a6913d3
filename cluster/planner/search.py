"""Branch and bound over the layouts of a model on a system.

    candidates ─► shapes: possible? how many rows fit? least times of the fewest rows ─► best bound first:
                  least times of its own rows ─► run ─► winner, runner-up

The winner is the best candidate, the runner-up the best one of another layout. Candidates are visited in the order of
their shapes' bounds, and run if their own could make them either, until none is left that might: so what did not run is
neither. Runs are those of a sweep.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from cluster.backends.processes import Lost, run_in_processes
from cluster.energy import Energy, cost_of
from cluster.experiment import prepare
from cluster.planner.bounds import Bound, bound_of, least_score
from cluster.planner.result import Entry, Plan, why_none
from cluster.planner.shapes import Assessed, OnProgress, Run, assess_all, one_replica
from cluster.planner.space import Candidate, Request, candidates
from cluster.serving import served
from cluster.sweeps.task import Task, run_task
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError, RunError
from configs.loader import load_experiment
from configs.plain import fingerprint
from configs.spec.experiment import ExperimentSpec
from topology import build_topology, chips_of


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
    assessed = assess_all(request, wanted, on_progress, run)
    usd_per_chip_s = _usd_per_chip_s(spec)
    entries = [_entry(candidate, assessed[candidate.shape], request, usd_per_chip_s) for candidate in wanted]
    found = Plan(request, spec, topology.n_chips, entries)
    _visit_best_first(found, usd_per_chip_s, on_progress, run)
    if not found.ranked:
        raise RunError(why_none(found))
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
