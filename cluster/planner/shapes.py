"""What is known of the shapes of candidates before anything runs: what fits, and what cannot be beaten."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from attrs import evolve, frozen

from cluster.backends.processes import Lost
from cluster.experiment import prepare
from cluster.fitting import fits
from cluster.planner.bounds import Bound, bound_of
from cluster.planner.space import Candidate, Request, Shape
from cluster.serving import served
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError, RunError
from configs.loader import load_experiment
from configs.spec.experiment import ExperimentSpec
from topology import build_topology, chips_of
from workloads.decode import DecodeJob

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


def assess_all(
    request: Request, wanted: Sequence[Candidate], on_progress: OnProgress, run: Run
) -> dict[Shape, Assessed]:
    """Return what is known of every shape among the candidates; raises RunError where that cannot be worked out."""
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
