"""Hugging Face folders: what is read is what the files hold, and bad folders are refused in words."""

from __future__ import annotations

import json
import math
import shutil

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from configs.errors import ConfigError
from tests.workloads.test_families import ORACLES
from workloads.huggingface import CONFIG, INDEX, SINGLE, huggingface_model
from workloads.rope import RopeScaling
from workloads.weights import open_weights

QWEN3 = ORACLES / "qwen3"


def copy_of(name, folder, *, config=None, tensors=None, **keys):
    """Return a copy of an oracle's folder with some keys of its config and some tensors changed (None: left out)."""
    shutil.copytree(ORACLES / name, folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    found = json.loads((folder / CONFIG).read_text()) | keys
    text = json.dumps({k: v for k, v in found.items() if v is not None}) if config is None else config
    (folder / CONFIG).write_text(text)
    if tensors is not None:
        held = load_file(folder / SINGLE) | tensors
        save_file({k: v for k, v in held.items() if v is not None}, folder / SINGLE)
    return folder


def split(folder):
    """Spread a folder's tensors over two files with an index."""
    held = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    where = {name: f"model-{i % 2 + 1:05d}-of-00002.safetensors" for i, name in enumerate(held)}
    for file in set(where.values()):
        save_file({name: value for name, value in held.items() if where[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def refusal(folder):
    """Return the message of the refusal to open this model."""
    with pytest.raises(ConfigError) as caught:
        open_weights(huggingface_model(folder))
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(path.name for path in ORACLES.iterdir()))
def test_every_number_is_read_once(name):
    """The neutral matrices hold all numbers of the file, each as often as the file."""
    model = huggingface_model(ORACLES / name)
    weights = open_weights(model)
    read = np.concatenate([weights.read(tensor).ravel() for tensor in model.shape.tensors()])
    held = np.concatenate([value.ravel() for value in load_file(ORACLES / name / SINGLE).values()])
    np.testing.assert_array_equal(np.sort(read), np.sort(held))
    assert model.shape.n_parameters == held.size


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["q", "k", "v", "o", "up"]), st.data())
def test_a_block_is_that_block_of_the_whole(matrix, data):
    """Any rows and columns of a fused, permuted matrix."""
    model = huggingface_model(ORACLES / "falcon")
    weights, name = open_weights(model), f"layers.1.{matrix}"
    rows, cols = (
        range(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))) for n in model.shape.tensors()[name]
    )
    whole = weights.read(name)
    block = weights.read(name, rows, cols)
    np.testing.assert_array_equal(block, whole[rows.start : rows.stop, cols.start : cols.stop])
    assert block.dtype == np.float32
    assert block.flags.c_contiguous


def test_rotated_pairs_become_neighbours():
    """Rows j and j + dim/2 of a head in the file are rows 2j and 2j + 1 of the neutral matrix."""
    held = load_file(QWEN3 / SINGLE)["model.layers.0.self_attn.q_proj.weight"].reshape(8, 2, 8, 64)
    expected = held.swapaxes(1, 2).reshape(128, 64)
    np.testing.assert_array_equal(open_weights(huggingface_model(QWEN3)).read("layers.0.q"), expected)


def test_a_sharded_folder_reads_like_a_single_file(tmp_path):
    """The index says which file holds which tensor."""
    one, two = QWEN3, split(copy_of("qwen3", tmp_path / "two"))
    a, b = (open_weights(huggingface_model(path)) for path in (one, two))
    for name in huggingface_model(one).shape.tensors():
        np.testing.assert_array_equal(a.read(name), b.read(name))


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision(tmp_path, dtype):
    """Numbers of 16 bits are widened as they are."""
    value = load_file(QWEN3 / SINGLE)["model.norm.weight"].astype(dtype)
    folder = copy_of("qwen3", tmp_path / "m", tensors={"model.norm.weight": value})
    read = open_weights(huggingface_model(folder)).read("norm")
    np.testing.assert_array_equal(read, value.astype(np.float32))


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    """Missing, misshapen and unreadable tensors, by the file's names."""
    folder = copy_of(
        "qwen3",
        tmp_path / "m",
        tensors={
            "model.norm.weight": None,
            "lm_head.weight": np.zeros((288, 63), np.float32),
            "model.layers.1.mlp.up_proj.weight": np.zeros((192, 64), np.int32),
        },
    )
    message = refusal(folder)
    assert "tensor model.norm.weight is missing" in message
    assert "tensor lm_head.weight has shape [288, 63]; the model's shape asks for [288, 64]" in message
    assert "up_proj.weight has number format I32; accepted: F32, F16, BF16" in message
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not known; accepted: "),
        ({"model_type": None}, "model_type None is not known"),
        ({"hidden_size": "64"}, "hidden_size: '64' is not a whole number"),
        ({"hidden_size": None, "vocab_size": None}, "vocab_size is missing"),
        ({"hidden_act": "relu"}, "hidden_act: 'relu' is not supported; accepted: silu"),
        ({"num_attention_heads": 7}, "n_heads: 7 is not a multiple of n_kv_heads 2"),
        (
            {"rope_parameters": {"rope_type": "longrope"}},
            "'longrope' is not supported; accepted: default, linear, llama3",
        ),
        ({"rope_parameters": {"rope_type": "yarn"}}, "factor is missing"),
        ({"rope_theta": 1.0, "rope_parameters": None}, "rope_theta: 1.0 must be above 1"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor is missing"),
        ({"rope_parameters": 3}, "rope_parameters: 3 is not a mapping"),
        ({"config": "{"}, "is not JSON"),
        ({"config": "[]"}, "holds list; accepted: a mapping"),
    ],
)
def test_configs_that_cannot_run(tmp_path, keys, words):
    """The file, the key, what was given and what is accepted."""
    assert words in refusal(copy_of("qwen3", tmp_path / "m", **keys))


def test_folders_that_hold_no_model(tmp_path):
    """No config, no weights, an index of files that are not there, files that are none."""
    assert "cannot be read: No such file" in refusal(tmp_path)
    bare = copy_of("qwen3", tmp_path / "bare")
    (bare / SINGLE).write_bytes(b"\xff" * 100)
    assert "is not a safetensors file" in refusal(bare)
    (bare / SINGLE).unlink()
    assert f"has no weights; accepted: {SINGLE}, or {INDEX}" in refusal(bare)
    for weight_map, words in (
        ({"a": "b.safetensors"}, "b.safetensors: there is no such file"),
        ({"a": "../b"}, "is not the name of a file in this folder"),
        (7, "weight_map is not a mapping"),
    ):
        (bare / INDEX).write_text(json.dumps({"weight_map": weight_map}))
        assert words in refusal(bare)


def yarn_of(tmp_path, name="qwen2", **more):
    """Return the scaling of a folder with rope_type yarn."""
    scaling = {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0, **more}
    folder = tmp_path / f"{name} {len(more)}"
    return huggingface_model(copy_of(name, folder, rope_parameters=scaling)).shape.rope_scaling


def test_keys_of_yarn(tmp_path):
    """The context is the model's where it is not given; null means the default; DeepSeek's keys scale scores, too."""
    plain = yarn_of(tmp_path, original_max_position_embeddings=32768, beta_fast=None)
    assert plain == RopeScaling(kind="yarn", factor=4.0, original_context=32768)
    assert yarn_of(tmp_path, truncate=False).original_context == 512
    both = {"mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 64}
    scaling = yarn_of(tmp_path, "deepseek-v3", **both)
    assert (scaling.amplitude, scaling.score_factor) == (1.0, pytest.approx((0.1 * math.log(4) + 1) ** 2))


def test_older_keys_of_rotary_positions(tmp_path):
    """rope_theta and rope_scaling at the top mean what rope_parameters means."""
    old = json.loads((ORACLES / "llama3-rope-scaled" / CONFIG).read_text())["rope_parameters"]
    theta = old.pop("rope_theta")
    folder = copy_of("llama3-rope-scaled", tmp_path / "m", rope_parameters=None, rope_theta=theta, rope_scaling=old)
    assert huggingface_model(folder).shape == huggingface_model(ORACLES / "llama3-rope-scaled").shape
