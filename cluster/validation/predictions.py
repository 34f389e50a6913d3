"""Simulate cases, each different work once, in a few processes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from cluster.backends.processes import Lost, n_cores, run_in_processes
from cluster.validation.vocabulary import Case, Skipped, Work
from configs.errors import ChipmeshError, RunError

MOST_TOGETHER = 24
"""Works of one place that one process takes at a time: few enough that all processes are busy to the end."""

Outcome = Mapping[str, Any] | str
"""What a work gave, or why it could not be simulated."""
OnProgress = Callable[[int, int], None]


@frozen
class Prediction:
    """A case with its predicted value; the error is relative: |predicted - measured| / measured."""

    case: Case
    predicted: float

    @property
    def ratio(self) -> float:
        """Predicted by measured: above 1 the model is too slow."""
        return self.predicted / self.case.measured

    @property
    def error(self) -> float:
        """The relative error, without its sign."""
        return abs(self.ratio - 1)


def predictions(
    cases: Sequence[Case], n_workers: int | None = None, on_progress: OnProgress = lambda _done, _of: None
) -> Iterator[Prediction | Skipped]:
    """Yield the prediction of every case, in the order of the cases, or why it cannot be simulated."""
    outcomes = simulated([case.work for case in cases], n_workers, on_progress)
    for case in cases:
        outcome = outcomes[case.work]
        if isinstance(outcome, str):
            yield Skipped(case.row, "cannot be simulated", outcome)
        else:
            yield Prediction(case, outcome[case.quantity])


def simulated(
    works: Sequence[Work], n_workers: int | None = None, on_progress: OnProgress = lambda _done, _of: None
) -> dict[Work, Outcome]:
    """Return what every work gave; equal works run once."""
    different = list(dict.fromkeys(works))
    outcomes: dict[Work, Outcome] = {}
    on_progress(0, len(different))
    for done in _outcomes(_batches(different), n_workers or n_cores()):
        outcomes.update(done)
        on_progress(len(outcomes), len(different))
    return outcomes


def run_batch(works: tuple[Work, ...]) -> list[Outcome]:
    """Run works one after the other: what a process does."""
    return [_outcome(work) for work in works]


def _outcome(work: Work) -> Outcome:
    try:
        return work.run()
    except ChipmeshError as error:
        return str(error)


def _outcomes(batches: Sequence[tuple[Work, ...]], n_workers: int) -> Iterator[dict[Work, Outcome]]:
    if n_workers == 1 or len(batches) < 2:
        for batch in batches:
            yield dict(zip(batch, run_batch(batch), strict=True))
        return
    for batch, outcomes in run_in_processes(run_batch, batches, min(n_workers, len(batches))):
        if isinstance(outcomes, Lost):
            raise RunError(f"works of {batch[0].place} cannot be simulated: {outcomes.reason}")
        yield dict(zip(batch, outcomes, strict=True))


def _batches(works: Sequence[Work]) -> list[tuple[Work, ...]]:
    """Return works that share a place together, the places with most works first."""
    by_place: dict[Hashable, list[Work]] = {}
    for work in works:
        by_place.setdefault(work.place, []).append(work)
    places = sorted(by_place.values(), key=len, reverse=True)
    return [tuple(place[i : i + MOST_TOGETHER]) for place in places for i in range(0, len(place), MOST_TOGETHER)]
