"""Models in Hugging Face folders: the shape from config.json, the weights from safetensors, one file or many.

Only headers are read at first; a block of a tensor is read by the library from the memory-mapped file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import ConfigError
from configs.spec.model import ModelSpec, WeightsSpec
from workloads.keys import Keys
from workloads.models import MODEL_FAMILIES
from workloads.rounding import Floats

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
NUMBER_FORMATS = ("F32", "F16", "BF16")


class FolderTensors:
    """The tensors of a folder; a sharded model's index says which file holds which."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, Any] = {}
        self._where = self._index()

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return a tensor's shape; None if there is none of this name."""
        return tuple(self._slice(tensor).get_shape()) if tensor in self._where else None

    def problem(self, tensor: str) -> str:
        """Return why a tensor's values cannot be read, or nothing."""
        found = self._slice(tensor).get_dtype()
        accepted = ", ".join(NUMBER_FORMATS)
        return "" if found in NUMBER_FORMATS else f"tensor {tensor} has number format {found}; accepted: {accepted}"

    def read(self, tensor: str, rows: range, cols: range | None = None) -> Floats:
        """Return a block of a matrix [rows, cols], or of a vector [rows]."""
        stored = self._slice(tensor)
        shape = stored.get_shape()
        across = [] if len(shape) == 1 else [range(shape[1]) if cols is None else cols]
        wanted = (rows, *across)
        if not all(map(len, wanted)):
            return np.zeros(tuple(map(len, wanted)), np.float32)
        values = stored[tuple(slice(r.start, r.stop) for r in wanted)]
        floats: Floats = np.ascontiguousarray(values, np.float32)
        return floats

    def _index(self) -> Mapping[str, str]:
        """Return the file of every tensor; all files are opened, which reads their headers."""
        index, single = self._path / INDEX, self._path / SINGLE
        if index.exists():
            listed = read_json(index).get("weight_map")
            if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
                raise ConfigError((f"{index}: weight_map is not a mapping of tensors to files",))
            files = sorted(set(listed.values()))
        elif single.exists():
            listed, files = None, [SINGLE]
        else:
            raise ConfigError((f"{self._path}: has no weights; accepted: {SINGLE}, or {INDEX} and its files",))
        problems: list[str] = []
        for name in files:
            try:
                self._files[name] = _open(self._path, name)
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(tuple(problems))
        held = {tensor: name for name, file in self._files.items() for tensor in file.keys()}  # noqa: SIM118 (no dict)
        if listed is None:
            return held
        lost = [f"{index}: tensor {t} is not in {name}" for t, name in listed.items() if held.get(t) != name]
        if lost:
            raise ConfigError(tuple(lost[:20]))
        return listed

    def _slice(self, tensor: str) -> Any:
        return self._files[self._where[tensor]].get_slice(tensor)


def _open(folder: Path, name: str) -> Any:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 (loads only where a folder is read)

    path = folder / name
    if Path(name).name != name:
        raise ConfigError((f"{folder / INDEX}: {name!r} is not the name of a file in this folder",))
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise ConfigError((f"{path}: there is no such file",)) from None
    except (SafetensorError, OSError) as error:
        raise ConfigError((f"{path}: is not a safetensors file: {error}",)) from None


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file; ConfigError names the file and what is wrong."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}",)) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError((f"{path}: is not JSON: {error}",)) from None
    if not isinstance(found, dict):
        raise ConfigError((f"{path}: holds {type(found).__name__}; accepted: a mapping",))
    return found


def huggingface_model(path: Path | str) -> ModelSpec:
    """Return the model of a folder; ConfigError names the file and what is wrong."""
    folder = Path(path)
    config = folder / CONFIG
    keys = read_json(config)
    kind = keys.get("model_type")
    known = {name: family for name, family in MODEL_FAMILIES.items() if "from_huggingface" in vars(family)}
    if kind not in known:
        raise ConfigError((f"{config}: model_type {kind!r} is not known; accepted: {', '.join(known)}",))
    try:
        shape = known[kind].from_huggingface(Keys(keys.get))
    except ConfigError as error:
        raise ConfigError(tuple(f"{config}: {problem}" for problem in error.problems)) from None
    return ModelSpec(folder.resolve().name, kind, shape, WeightsSpec(path=str(folder.absolute())))
