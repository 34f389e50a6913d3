"""Sweeps in folders: what is stored at once, the rest as it finishes, then the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field, frozen

from cluster.backends.options import RayOptions, check_options
from cluster.backends.processes import Lost, n_cores, run_in_processes
from cluster.sweeps.points import Planned, planned_points
from cluster.sweeps.store import Store, write_atomically
from cluster.sweeps.table import SPECS, TABLE, Columns, Row, parquet, specs_table
from cluster.sweeps.task import Task, failure, is_usable, run_task
from configs.errors import ConfigError, RunError
from workloads.sweeps import Point, Sweep, overrides, read_sweep

if TYPE_CHECKING:
    import pyarrow as pa

SweepBackend = Literal["process", "ray"]
SCHEMA = "chipmesh.sweep.v1"


@frozen
class SweepPoint:
    """A finished point: the keys that it changes, and its row of the table."""

    index: int
    values: Point
    row: Row

    @property
    def error(self) -> str | None:
        """What went wrong, None if nothing did."""
        error: str | None = self.row["error"]
        return error


@frozen
class Progress:
    """How far a sweep is; rates count what this process has computed."""

    n_points: int
    n_finished: int
    n_failed: int
    n_computed: int
    began_s: float

    @property
    def points_per_s(self) -> float:
        """Points per second of wall time."""
        return self.n_computed / max(time.perf_counter() - self.began_s, 1e-9)


OnProgress = Callable[[Progress], None]


@define
class SweepResults:
    """A sweep in a folder: iterate to run it and to get its points as they finish; `table()` has them all."""

    sweep: Sweep
    folder: Path
    backend: SweepBackend = "process"
    address: str | None = None
    n_workers: int = 1
    on_progress: OnProgress = field(default=lambda _progress: None, repr=False)
    n_left_out: int = 0
    n_stored: int = 0
    n_stale: int = 0
    _rows: dict[int, Row] = field(factory=dict, repr=False)
    _n_points: int | None = None
    _columns: Columns | None = field(default=None, repr=False)

    def __iter__(self) -> Iterator[SweepPoint]:
        """Yield every point: what is stored at once, the others as they finish.

        However it ends, what is finished is stored, and in the folder's table.
        """
        with Store(self.folder) as store:
            planned = self._plan()
            try:
                yield from self._run(planned, store)
            finally:
                self._catch_up(planned, store)
                self._write(planned)

    def table(self) -> pa.Table:
        """Return the table of all points, in their order; runs what is not finished."""
        if len(self._rows) != self._n_points:
            for _ in self:
                pass
        assert self._columns is not None
        return self._columns.table(self.rows)

    @property
    def rows(self) -> list[Row]:
        """The rows of the finished points, in the order of the points."""
        return [self._rows[index] for index in sorted(self._rows)]

    def to_json(self) -> dict[str, Any]:
        """Return the document of `chipmesh sweep --json`."""
        done = sum(row["status"] == "done" for row in self.rows)
        counts = {
            "points": self._n_points, "done": done, "failed": len(self._rows) - done,
            "left_out": self.n_left_out, "stored_before": self.n_stored, "stale": self.n_stale,
        }  # fmt: skip
        return {"schema": SCHEMA, "name": self.sweep.name, "counts": counts, "rows": self.rows}

    def raise_if_none(self) -> None:
        """Raise RunError if no point has succeeded."""
        if all(row["status"] == "failed" for row in self.rows):
            raise RunError(f"no point has succeeded; the first: {self.rows[0]['error']}")

    def _plan(self) -> list[Planned]:
        """Load all points that `where` lets through."""
        found = list(planned_points(self.sweep))
        planned = [point for point in found if point is not None]
        if not planned:
            raise ConfigError((f"{self.sweep.name}: where leaves no point of {len(found)}; accepted: at least one",))
        if all(point.fingerprint is None for point in planned):
            n = len(planned)
            raise ConfigError((f"{self.sweep.name}: none of {n} points can be loaded; the first: {planned[0].error}",))
        named: dict[str, str] = {}
        for point in planned:
            for key, value in point.axes.items():
                named.setdefault(key, value.column)
        self._columns = Columns.of(self.sweep.keys, named)
        self._n_points, self.n_left_out = len(planned), len(found) - len(planned)
        self._rows.clear()
        return planned

    def _run(self, planned: Sequence[Planned], store: Store) -> Iterator[SweepPoint]:
        began_s, n_computed, n_failed = time.perf_counter(), 0, 0
        waiting: dict[str, list[Planned]] = {}
        for point in planned:
            waiting.setdefault(point.fingerprint or "", []).append(point)
        for point in waiting.pop("", []):
            n_failed += 1
            yield self._finished(point, {"status": "failed", "kind": "config", "error": point.error})
        usable = {key: line for key, line in store.points.items() if is_usable(line)}
        self.n_stale = len(store.points.keys() - waiting.keys())
        self.n_stored = len(usable.keys() & waiting.keys())
        for key in [key for key in waiting if key in usable]:
            for point in waiting.pop(key):
                n_failed += usable[key]["status"] == "failed"
                yield self._finished(point, usable[key])
        tasks = [self._task(key, points[0]) for key, points in waiting.items()]
        self._tell(n_failed, n_computed, began_s)
        for line in self._compute(tasks):
            store.add(line)
            n_computed += 1
            for point in waiting.pop(line["fingerprint"]):
                n_failed += line["status"] == "failed"
                yield self._finished(point, line)
            self._tell(n_failed, n_computed, began_s)

    def _catch_up(self, planned: Sequence[Planned], store: Store) -> None:
        """Note what is stored and not noted: an interruption may come between the two."""
        store.read_again()
        for point in planned:
            line = store.points.get(point.fingerprint or "")
            if line is not None and point.index not in self._rows and is_usable(line):
                self._finished(point, line)

    def _task(self, key: str, point: Planned) -> Task:
        return Task(key, self.sweep.base, self.sweep.folder, overrides(point.values))

    def _compute(self, tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
        if not tasks:
            return
        run: Callable[..., Iterator[tuple[Task, Any]]] = run_in_processes
        if self.backend == "ray":
            from cluster.backends.on_ray.tasks import run_in_ray  # noqa: PLC0415  ray takes half a second to import

            run = partial(run_in_ray, address=self.address)
        for task, line in run(run_task, tasks, min(self.n_workers, len(tasks))):
            yield failure(task, "internal", line.reason) if isinstance(line, Lost) else line

    def _finished(self, point: Planned, line: Mapping[str, Any]) -> SweepPoint:
        assert self._columns is not None
        end = {
            "fingerprint": point.fingerprint, "status": line["status"],
            "error_kind": line["kind"], "error": line["error"],
        }  # fmt: skip
        rest = {**point.columns, **line.get("result", {}), **end}
        row = self._columns.row(point.index, point.values, point.axes, rest)
        self._rows[point.index] = row
        return SweepPoint(point.index, point.values, row)

    def _tell(self, n_failed: int, n_computed: int, began_s: float) -> None:
        self.on_progress(Progress(self._n_points or 0, len(self._rows), n_failed, n_computed, began_s))

    def _write(self, planned: Sequence[Planned]) -> None:
        assert self._columns is not None
        points = {point.fingerprint: point for point in planned if point.fingerprint is not None}
        specs = {key: point.spec_json for key, point in points.items()}
        write_atomically(self.folder / SPECS, parquet(specs_table(specs)))
        write_atomically(self.folder / TABLE, parquet(self._columns.table(self.rows)))


def sweep(
    source: str | Path | Mapping[str, Any],
    *,
    out: str | Path,
    backend: SweepBackend = "process",
    address: str | None = None,
    n_workers: int | None = None,
    on_progress: OnProgress = lambda _progress: None,
) -> SweepResults:
    """Return the points of a sweep (a file, or a mapping of the same form); they run as they are asked for.

        for point in sweep("layouts.yaml", out="layouts"):
            print(point.values, point.row["tpot_s"])

    address: of a Ray cluster, without which `ray` starts a private one.
    out: the folder of what is finished; the same sweep goes on where it stopped. Raises ConfigError for a wrong file.
    """
    if backend not in ("process", "ray"):
        raise ConfigError((f"backend: {backend!r}; accepted: process, ray",))
    check_options(RayOptions(address), backend)
    if n_workers is not None and n_workers < 1:
        raise ConfigError((f"--workers: {n_workers}; accepted: an integer ≥ 1",))
    return SweepResults(read_sweep(source), Path(out), backend, address, n_workers or n_cores(), on_progress)
