"""Models in GGUF files: the shape from the metadata, the weights from memory-mapped, quantised tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import ConfigError
from configs.spec import ModelSpec, WeightsSpec
from workloads.gguf_file import GgufFile, read_gguf
from workloads.models.llama import LlamaShape
from workloads.rounding import Floats

_NAMES = {"embedding": "token_embd", "norm": "output_norm", "head": "output"}
_LAYER_NAMES = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def _gguf_name(name: str) -> str:
    """Return GGUF's name of a matrix.

    >>> _gguf_name("layers.3.down")
    'blk.3.ffn_down.weight'
    """
    if name in _NAMES:
        return f"{_NAMES[name]}.weight"
    _, layer, matrix = name.split(".")
    return f"blk.{layer}.{_LAYER_NAMES[matrix]}.weight"


class GgufWeights:
    """The matrices of a GGUF file by neutral name; of a quantised row only the blocks in use are decoded.

    Conversion to GGUF has permuted the rows of q and k of Llama models so that rotated pairs are neighbours,
    which is what the neutral scheme asks for.
    """

    def __init__(self, path: Path) -> None:
        self._file = read_gguf(path)

    def check(self, tensors: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
        """Return what is wrong with the file if it should hold these tensors."""
        if "rope_freqs.weight" in self._file.tensors:
            return ("has scaled rotary frequencies (rope_freqs.weight), which are not supported",)
        problems = (self._problem(_gguf_name(name), shape) for name, shape in tensors.items())
        return tuple(problem for problem in problems if problem)

    def _problem(self, name: str, shape: tuple[int, ...]) -> str:
        tensor = self._file.tensors.get(name)
        if tensor is None:
            return f"tensor {name} is missing"
        if tensor.shape != shape:
            return f"tensor {name} has shape {list(tensor.shape)}; the model's shape asks for {list(shape)}"
        block = _block(tensor.type_id)
        if block is None:
            return f"tensor {name} has number format {tensor.type_id}, which cannot be decoded"
        if shape[-1] % block[0]:
            return f"tensor {name} has rows of {shape[-1]}, not a multiple of its block of {block[0]}"
        end = tensor.offset + _n_rows(shape) * (shape[-1] // block[0]) * block[1]
        if end > len(self._file.data):
            return f"is truncated: tensor {name} ends at byte {end}, the file at {len(self._file.data)}"
        return ""

    def read(self, name: str, rows: range | None = None, cols: range | None = None) -> Floats:
        """Return a block of a matrix [rows, cols], or of a vector [rows]; None takes all."""
        from gguf.quants import dequantize  # noqa: PLC0415 (loads only where a file is read)

        tensor = self._file.tensors[_gguf_name(name)]
        block = _block(tensor.type_id)
        assert block is not None, "read follows check"
        n, row_bytes = block[0], tensor.shape[-1] // block[0] * block[1]
        matrix = self._file.data[tensor.offset : tensor.offset + _n_rows(tensor.shape) * row_bytes]
        matrix = matrix.reshape(-1, row_bytes)
        if rows is not None:
            matrix = matrix[rows.start : rows.stop]
        cols = range(tensor.shape[-1]) if cols is None else cols
        first, stop = cols.start // n, -(-cols.stop // n)
        covering = np.ascontiguousarray(matrix[:, first * block[1] : stop * block[1]])
        values = dequantize(covering, _quantization(tensor.type_id))
        trimmed = values[:, cols.start - first * n : cols.stop - first * n]
        floats: Floats = np.ascontiguousarray(trimmed, np.float32)
        return floats[0] if len(tensor.shape) == 1 else floats


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
    file = read_gguf(path)
    architecture = str(file.get("general.architecture"))
    shape_of = GGUF_SHAPES.get(architecture)
    if shape_of is None:
        raise ConfigError((f"{path}: architecture {architecture!r} is not known; accepted: {', '.join(GGUF_SHAPES)}",))
    try:
        shape = shape_of(file)
    except ConfigError as error:
        raise ConfigError(tuple(f"{path}: {problem}" for problem in error.problems)) from None
    return ModelSpec(path.stem, architecture, shape, WeightsSpec(path=str(path)))


_REQUIRED = object()


def _llama_shape(file: GgufFile) -> LlamaShape:
    scaling = file.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ConfigError((f"llama.rope.scaling.type: {scaling!r} is not supported; accepted: none",))
    hidden = _number(file, "llama.embedding_length", int)
    n_heads = _number(file, "llama.attention.head_count", int)
    head_dim = _number(file, "llama.attention.key_length", int, hidden // max(n_heads, 1))
    for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if _number(file, key, int, head_dim) != head_dim:
            raise ConfigError((f"{key}: {file.get(key)} differs from the head dimension {head_dim}",))
    embedding = file.tensors.get("token_embd.weight")
    vocab = _number(file, "llama.vocab_size", int, embedding.shape[0] if embedding else _REQUIRED)
    return LlamaShape(
        n_layers=_number(file, "llama.block_count", int),
        hidden=hidden,
        n_heads=n_heads,
        n_kv_heads=_number(file, "llama.attention.head_count_kv", int, n_heads),
        head_dim=head_dim,
        ffn=_number(file, "llama.feed_forward_length", int),
        vocab=vocab,
        rope_theta=_number(file, "llama.rope.freq_base", float, 10000.0),
        rms_eps=_number(file, "llama.attention.layer_norm_rms_epsilon", float),
        tied_embeddings="output.weight" not in file.tensors,
        max_context=_number(file, "llama.context_length", int),
    )


def _number(file: GgufFile, key: str, kind: type, default: Any = _REQUIRED) -> Any:
    value = file.get(key, default)
    if value is _REQUIRED:
        raise ConfigError((f"{key} is missing from the metadata",))
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        raise ConfigError((f"{key}: {value!r} is not a number",))
    return value


GGUF_SHAPES: dict[str, Callable[[GgufFile], LlamaShape]] = {
    "llama": _llama_shape,
}
"""How the shape of every architecture is read from the metadata."""
