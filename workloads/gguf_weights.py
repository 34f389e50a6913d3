"""Models in GGUF files: the shape from the metadata, the weights from memory-mapped, quantised tensors."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import ConfigError
from configs.spec.model import ModelSpec, WeightsSpec
from workloads.gguf_file import GgufFile, read_gguf
from workloads.keys import Keys
from workloads.models import MODEL_FAMILIES
from workloads.rounding import Floats

_FACTORS = "rope_freqs.weight"
"""What the frequency of every rotated pair is divided by."""


class GgufTensors:
    """The tensors of a GGUF file; of a quantised row only the blocks in use are decoded."""

    def __init__(self, path: Path) -> None:
        self.file = read_gguf(path)

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return a tensor's shape; None if there is none of this name."""
        found = self.file.tensors.get(tensor)
        return None if found is None else found.shape

    def problem(self, tensor: str) -> str:
        """Return why a tensor's values cannot be read, or nothing."""
        found = self.file.tensors[tensor]
        shape, block = found.shape, _block(found.type_id)
        if block is None:
            return f"tensor {tensor} has number format {found.type_id}, which cannot be decoded"
        if shape[-1] % block[0]:
            return f"tensor {tensor} has rows of {shape[-1]}, not a multiple of its block of {block[0]}"
        end = found.offset + _n_rows(shape) * (shape[-1] // block[0]) * block[1]
        if end > len(self.file.data):
            return f"is truncated: tensor {tensor} ends at byte {end}, the file at {len(self.file.data)}"
        return ""

    def read(self, tensor: str, rows: range, cols: range | None = None) -> Floats:
        """Return a block of a matrix [rows, cols], or of a vector [rows]."""
        from gguf.quants import dequantize  # noqa: PLC0415 (loads only where a file is read)

        found = self.file.tensors[tensor]
        block = _block(found.type_id)
        assert block is not None, "read follows problem"
        is_vector, width = len(found.shape) == 1, found.shape[-1]
        n, row_bytes = block[0], width // block[0] * block[1]
        matrix = self.file.data[found.offset : found.offset + _n_rows(found.shape) * row_bytes].reshape(-1, row_bytes)
        if is_vector:
            cols = rows
        else:
            matrix = matrix[rows.start : rows.stop]
        cols = range(width) if cols is None else cols
        first, stop = cols.start // n, -(-cols.stop // n)
        covering = np.ascontiguousarray(matrix[:, first * block[1] : stop * block[1]])
        if not covering.size:
            return np.zeros(len(cols) if is_vector else (len(rows), len(cols)), np.float32)
        values = dequantize(covering, _quantization(found.type_id))
        floats: Floats = np.ascontiguousarray(values[:, cols.start - first * n : cols.stop - first * n], np.float32)
        return floats[0] if is_vector else floats


def _n_rows(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[:-1], dtype=object))


def _quantization(type_id: int) -> Any:
    from gguf.constants import GGMLQuantizationType  # noqa: PLC0415 (loads only where a file is read)

    return GGMLQuantizationType(type_id)


@lru_cache(maxsize=64)
def _block(type_id: int) -> tuple[int, int] | None:
    """Return (elements, bytes) of one block of a number format, or None if it cannot be decoded."""
    from gguf.constants import GGML_QUANT_SIZES  # noqa: PLC0415 (loads only where a file is read)
    from gguf.quants import dequantize  # noqa: PLC0415

    try:
        kind = _quantization(type_id)
        n_elements, n_bytes = GGML_QUANT_SIZES[kind]
        dequantize(np.zeros((1, n_bytes), np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError):
        return None
    return n_elements, n_bytes


def gguf_model(path: Path | str) -> ModelSpec:
    """Return the model that a GGUF file holds; ConfigError names the file and what is wrong."""
    path = Path(path)
    tensors = GgufTensors(path)
    architecture = str(tensors.file.get("general.architecture"))
    known = {name: family for name, family in MODEL_FAMILIES.items() if "from_gguf" in vars(family)}
    if architecture not in known:
        raise ConfigError((f"{path}: architecture {architecture!r} is not known; accepted: {', '.join(known)}",))
    try:
        shape = known[architecture].from_gguf(_keys(tensors, architecture))
    except ConfigError as error:
        raise ConfigError(tuple(f"{path}: {problem}" for problem in error.problems)) from None
    return ModelSpec(path.stem, architecture, shape, WeightsSpec(path=str(path.absolute())))


def _keys(tensors: GgufTensors, architecture: str) -> Keys:
    """Return an architecture's keys, and what only the tensors tell."""
    file: GgufFile = tensors.file
    embedding = tensors.shape("token_embd.weight")
    told: dict[str, Any] = {"tied_embeddings": tensors.shape("output.weight") is None}
    if embedding and file.get(f"{architecture}.vocab_size") is None:
        told["vocab_size"] = embedding[0]
    factors = tensors.shape(_FACTORS)
    if factors and not tensors.problem(_FACTORS):
        told["rope.factors"] = tensors.read(_FACTORS, range(factors[0])).tolist()

    def get(key: str) -> Any:
        own = told.get(key.removeprefix(f"{architecture}."))
        return file.get(key) if own is None else own

    return Keys(get, f"{architecture}.")
