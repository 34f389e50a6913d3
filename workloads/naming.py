"""Where files keep a model's matrices: neutral names to tensors of a file, row by row.

A file may fuse matrices (q, k and v in one tensor), order their rows otherwise (rotated pairs as halves of a head) or
transpose them. A family says so once per kind of file, as `Names`; the readers know only tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from workloads.rounding import Floats

Indices = npt.NDArray[np.int64]
RowMap = Callable[[Indices], Indices]
"""From rows of a neutral matrix to rows of the file's tensor."""


@frozen
class Stored:
    """A neutral matrix in a file: the tensor, which of its rows (None: the same), and whether it is [in, out]."""

    tensor: str
    rows: RowMap | None = None
    transposed: bool = False


@frozen
class Names:
    """The tensors of one kind of file: those of the whole model, and those of a layer after `layer_prefix`.

    root: a prefix that some files leave out.
    """

    model: Mapping[str, Stored | str]
    layer: Mapping[str, Stored | str]
    layer_prefix: str
    root: str = ""

    def locate(self, name: str) -> Stored:
        """Return where the matrix of a neutral name is.

        >>> Names({}, {"q": "attn.q.weight"}, "h.{}.").locate("layers.3.q").tensor
        'h.3.attn.q.weight'
        """
        if not name.startswith("layers."):
            return _stored(self.model[name], "")
        _, index, matrix = name.split(".", 2)
        return _stored(self.layer[matrix], self.layer_prefix.format(index))


def _stored(found: Stored | str, prefix: str) -> Stored:
    if isinstance(found, str):
        return Stored(prefix + found)
    return Stored(prefix + found.tensor, found.rows, found.transposed)


def halves(dim: int, rotated: int | None = None) -> RowMap:
    """Return the map for heads of `dim` rows whose rotated pairs are (j, j + rotated/2), not neighbours.

    >>> halves(4)(np.arange(8)).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    half = (dim if rotated is None else rotated) // 2

    def rows(r: Indices) -> Indices:
        head, i = r - r % dim, r % dim
        return head + np.where(i < 2 * half, i // 2 + i % 2 * half, i)

    return rows


def last_halves(block: int, rotated: int) -> RowMap:
    """Return the map for blocks of rows of which the last `rotated` are pairs (j, j + rotated/2), not neighbours.

    >>> last_halves(6, 4)(np.arange(6)).tolist()
    [0, 1, 2, 4, 3, 5]
    """
    first, half = block - rotated, rotated // 2

    def rows(r: Indices) -> Indices:
        i = r % block
        j = i - first
        return r - i + np.where(i < first, i, first + j // 2 + j % 2 * half)

    return rows


def blocks_of(dim: int, block: int, first: int) -> RowMap:
    """Return the map for blocks of `dim` rows that are stored from row `first` on in blocks of `block` rows.

    >>> blocks_of(2, 5, 3)(np.arange(4)).tolist()
    [3, 4, 8, 9]
    """
    return lambda r: r // dim * block + first + r % dim


def offset(first: int, inner: RowMap | None = None) -> RowMap:
    """Return the map for a matrix that begins at row `first` of its tensor."""
    return lambda r: first + (r if inner is None else inner(r))


def grouped(dim: int, group: int, member: int, n_members: int, inner: RowMap | None = None) -> RowMap:
    """Return the map for heads that are stored in groups of `group` heads.

    A head of `dim` rows, number h, is the head `member + h % n_members` of group `h // n_members`.

    >>> grouped(1, 4, 0, 2)(np.arange(4)).tolist()  # two of the four heads of each group
    [0, 1, 4, 5]
    """

    def rows(r: Indices) -> Indices:
        r = r if inner is None else inner(r)
        head = r // dim
        return (head // n_members * group + member + head % n_members) * dim + r % dim

    return rows


class TensorFile(Protocol):
    """A file (or folder) of tensors by the file's own names."""

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return a tensor's shape; None if there is none of this name."""

    def problem(self, tensor: str) -> str:
        """Return why a tensor's values cannot be read, or nothing."""

    def read(self, tensor: str, rows: range, cols: range | None = None) -> Floats:
        """Return a block of a matrix [rows, cols], or of a vector [rows], reading no more than it needs."""


@frozen(eq=False)
class NamedWeights:
    """A model's matrices by neutral name; implements `workloads.weights.WeightSource`."""

    file: TensorFile
    names: Names
    tensors: Mapping[str, tuple[int, ...]]
    _located: dict[str, Stored] = field(factory=dict, init=False)

    def problems(self) -> tuple[str, ...]:
        """Return what the file lacks of the model's tensors: missing, misshapen and unreadable ones."""
        wanted: dict[str, tuple[int, ...]] = {}
        transposed: set[str] = set()
        for name, shape in self.tensors.items():
            stored = self._locate(name)
            n_before = wanted.get(stored.tensor, (0,))[0]  # rows of the matrices that it is fused with
            wanted[stored.tensor] = (n_before + shape[0], *shape[1:])
            transposed |= {stored.tensor} if stored.transposed else set()
        found = (self._problem(t, shape[::-1] if t in transposed else shape) for t, shape in wanted.items())
        return tuple(problem for problem in found if problem)

    def _problem(self, tensor: str, wanted: tuple[int, ...]) -> str:
        shape = self.file.shape(tensor)
        if shape is None:
            return f"tensor {tensor} is missing"
        if shape != wanted:
            return f"tensor {tensor} has shape {list(shape)}; the model's shape asks for {list(wanted)}"
        return self.file.problem(tensor)

    def read(self, name: str, rows: range | None = None, cols: range | None = None) -> Floats:
        """Return a block of a matrix [rows, cols], or of a vector [rows]; None takes all."""
        stored = self._locate(name)
        rows = range(self.tensors[name][0]) if rows is None else rows
        if stored.rows is None:
            return self._block(stored, rows, cols)
        wanted = stored.rows(np.arange(rows.start, rows.stop))
        order = np.argsort(wanted)
        blocks = [self._block(stored, run, cols) for run in _runs(wanted[order])]
        if not blocks:
            return self._block(stored, range(0), cols)
        sorted_rows = np.concatenate(blocks)
        values = np.empty_like(sorted_rows)
        values[order] = sorted_rows
        return values

    def _block(self, stored: Stored, rows: range, cols: range | None) -> Floats:
        if not stored.transposed:
            return self.file.read(stored.tensor, rows, cols)
        shape = self.file.shape(stored.tensor)
        assert shape is not None, "read follows problems"
        return np.ascontiguousarray(self.file.read(stored.tensor, range(shape[0]) if cols is None else cols, rows).T)

    def _locate(self, name: str) -> Stored:
        found = self._located.get(name)
        if found is None:
            found = self.names.locate(name)
            short = found.tensor.removeprefix(self.names.root)
            if self.file.shape(found.tensor) is None and self.file.shape(short) is not None:
                found = Stored(short, found.rows, found.transposed)
            self._located[name] = found
        return found


def _runs(rows: Indices) -> list[range]:
    """Return the runs of consecutive numbers in ascending rows.

    >>> _runs(np.array([3, 4, 5, 9]))
    [range(3, 6), range(9, 10)]
    """
    if not rows.size:
        return []
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    return [range(int(run[0]), int(run[-1]) + 1) for run in np.split(rows, breaks)]


LLAMA_LAYER: Mapping[str, str] = {
    "attention_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "o_bias": "self_attn.o_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
}
"""A layer's tensors in Hugging Face folders of Llama and the families that follow it."""

LLAMA_MODEL: Mapping[str, str] = {
    "embedding": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "head": "lm_head.weight",
}

GGUF_LAYER: Mapping[str, str] = {
    "attention_norm": "attn_norm.weight",
    "q": "attn_q.weight",
    "k": "attn_k.weight",
    "v": "attn_v.weight",
    "o": "attn_output.weight",
    "ffn_norm": "ffn_norm.weight",
    "gate": "ffn_gate.weight",
    "up": "ffn_up.weight",
    "down": "ffn_down.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
    "o_bias": "attn_output.bias",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
}
"""A layer's tensors in GGUF files (ggml-org/llama.cpp: gguf-py/gguf/constants.py)."""

GGUF_MODEL: Mapping[str, str] = {
    "embedding": "token_embd.weight",
    "norm": "output_norm.weight",
    "head": "output.weight",
}


def with_rows(table: Mapping[str, str], rows: RowMap, names: tuple[str, ...]) -> dict[str, Stored | str]:
    """Return the table with another order of rows for some of its names."""
    return {**table, **{name: Stored(table[name], rows) for name in names}}


PAIRED = ("q", "k", "q_bias", "k_bias", "q_norm", "k_norm")
"""What holds rotated pairs."""


def llama_names(dim: int, layer: Mapping[str, str] = LLAMA_LAYER) -> Names:
    """Return the names in a Hugging Face folder: rotated pairs are halves of a head of `dim`."""
    return Names(LLAMA_MODEL, with_rows(layer, halves(dim), PAIRED), "model.layers.{}.", root="model.")


def gguf_names(dim: int | None = None) -> Names:
    """Return the names in a GGUF file; `dim`: rotated pairs are halves of a head (None: neighbours)."""
    layer = GGUF_LAYER if dim is None else with_rows(GGUF_LAYER, halves(dim), PAIRED)
    return Names(GGUF_MODEL, layer, "blk.{}.")
