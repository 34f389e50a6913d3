"""GGUF files of several families: the oracles' tensors, named and ordered as conversion does, give their logits."""

from __future__ import annotations

import json

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.workloads.test_families import ORACLES, check
from workloads.gguf_weights import gguf_model
from workloads.layout import Layout

TENSORS = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def neighbours(x, dim):
    """Bring the halves of each head side by side, as conversion does for Llama alone."""
    return x.reshape(-1, 2, dim // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def converted(name, path, architecture):
    """Write an oracle as a GGUF file."""
    config = json.loads((ORACLES / name / "config.json").read_text())
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    for full, value in load_file(ORACLES / name / "model.safetensors").items():
        stem, _, kind = full.rpartition(".")
        layer, _, matrix = stem.removeprefix("model.layers.").partition(".")
        target = TENSORS[stem] if stem in TENSORS else f"blk.{layer}.{TENSORS[matrix]}"
        turned = architecture == "llama" and matrix in {"self_attn.q_proj", "self_attn.k_proj"}
        writer.add_tensor(f"{target}.{kind}", np.ascontiguousarray(neighbours(value, dim) if turned else value))
    rope = config["rope_parameters"]
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, dim))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama3_factors(rope, dim):
    """Return what each frequency is divided by, one pair at a time."""
    factors, length = [], rope["original_max_position_embeddings"]
    for j in range(dim // 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (2 * j / dim)
        if wavelength < length / rope["high_freq_factor"]:
            factors.append(1.0)
        elif wavelength > length / rope["low_freq_factor"]:
            factors.append(rope["factor"])
        else:
            low, high = rope["low_freq_factor"], rope["high_freq_factor"]
            smooth = (length / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.float32(factors)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("llama-gqa", "llama"), ("llama3-rope-scaled", "llama"), ("qwen2", "qwen2"), ("qwen3", "qwen3")],
)
def test_oracle(tmp_path, name, architecture):
    """Biases, norms of heads, scaled frequencies; rotated pairs as neighbours or as halves."""
    expected = np.load(ORACLES / name / "expected.npz")
    prompts = tuple(map(tuple, expected["prompt_ids"].tolist()))
    model = gguf_model(converted(name, tmp_path / "m.gguf", architecture))
    assert model.family == architecture
    check(model, Layout(tp=3, pp=2), prompts, expected["greedy_ids"], expected["logits"])
