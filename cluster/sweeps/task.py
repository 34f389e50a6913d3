"""A point on its way to a worker, and the line of the store that comes back."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from attrs import frozen

from cluster.experiment import run_experiment
from cluster.sweeps.table import result_columns
from cluster.vocabulary import VOCABULARY
from configs.errors import ChipmeshError, ConfigError, RunError
from configs.loader import load_experiment
from configs.plain import fingerprint


@frozen
class Task:
    """A point on its way to a worker."""

    fingerprint: str
    base: Any
    folder: Path
    overrides: tuple[str, ...]


def run_task(task: Task) -> dict[str, Any]:
    """Run a point and return its line for the store: what a worker does."""
    began_s = time.perf_counter()
    line: dict[str, Any]
    try:
        spec = load_experiment(task.base, task.overrides, VOCABULARY, task.folder)
        if fingerprint(spec) != task.fingerprint:
            raise RunError("a file that it refers to was changed while the sweep ran")  # noqa: TRY301
        line = _line(task, "done", result=result_columns(run_experiment(spec)))
    except ConfigError as error:
        line = failure(task, "config", str(error))
    except ChipmeshError as error:
        line = failure(task, "run", str(error))
    except Exception as error:  # noqa: BLE001  a defect shows in its row, the other points go on
        reason = f"{type(error).__name__}: {error}"
        line = failure(task, "internal", reason, traceback="".join(traceback.format_exception(error)))
    return {**line, "wall_s": time.perf_counter() - began_s, "process": os.getpid()}


def _line(task: Task, status: str, kind: str | None = None, error: str | None = None, **more: Any) -> dict[str, Any]:
    known = {"fingerprint": task.fingerprint, "version": _version(), "status": status, "kind": kind, "error": error}
    return {**known, "overrides": task.overrides, **more}


def failure(task: Task, kind: str, error: str, **more: Any) -> dict[str, Any]:
    """Return the line of a point that has failed; kind: config, run or internal."""
    return _line(task, "failed", kind, error, **more)


def is_usable(line: Mapping[str, Any]) -> bool:
    """Tell whether a stored point need not run again: not if it came from another version, or failed by accident."""
    return line.get("version") == _version() and line.get("kind") != "internal"


def _version() -> str:
    try:
        return version("chipmesh")
    except PackageNotFoundError:
        return "source"
