"""Small random models in Hugging Face folders and plain forward passes over the files' own tensors.

Meant to be obviously right: float64, no cache, no sharding, one head at a time; no reader, name or kernel of ours.
"""

from __future__ import annotations

import json
import math

import numpy as np
from safetensors.numpy import load_file, save_file

PHI3 = {
    "model_type": "phi3", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "intermediate_size": 80, "vocab_size": 97, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
    "sliding_window": 5, "partial_rotary_factor": 0.5, "hidden_act": "silu", "tie_word_embeddings": False,
}  # fmt: skip
GEMMA2 = {
    "model_type": "gemma2", "hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 72, "vocab_size": 97, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6, "rope_theta": 1e4, "sliding_window": 4, "query_pre_attn_scalar": 20,
    "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip
GPT2 = {
    "model_type": "gpt2", "n_embd": 40, "n_layer": 3, "n_head": 5, "n_positions": 32, "vocab_size": 97,
    "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
}  # fmt: skip


def phi3_tensors(c):
    """Return the shape of every tensor by name."""
    h, ffn, dim = c["hidden_size"], c["intermediate_size"], c["hidden_size"] // c["num_attention_heads"]
    wide = (c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * dim
    found = {"model.embed_tokens.weight": (c["vocab_size"], h), "lm_head.weight": (c["vocab_size"], h)}
    found["model.norm.weight"] = (h,)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        found |= {p + "self_attn.qkv_proj.weight": (wide, h), p + "self_attn.o_proj.weight": (h, h)}
        found |= {p + "mlp.gate_up_proj.weight": (2 * ffn, h), p + "mlp.down_proj.weight": (h, ffn)}
        found |= {p + "input_layernorm.weight": (h,), p + "post_attention_layernorm.weight": (h,)}
    return found


def gemma2_tensors(c):
    """Return the shape of every tensor by name."""
    h, ffn, q = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"] * c["head_dim"]
    kv = c["num_key_value_heads"] * c["head_dim"]
    found = {"model.embed_tokens.weight": (c["vocab_size"], h), "model.norm.weight": (h,)}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        found |= {f"{p}self_attn.{n}_proj.weight": (q if n == "q" else kv, h) for n in "qkv"}
        found[f"{p}self_attn.o_proj.weight"] = (h, q)
        found |= {f"{p}mlp.{n}_proj.weight": s for n, s in (("gate", (ffn, h)), ("up", (ffn, h)), ("down", (h, ffn)))}
        norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
        found |= {f"{p}{n}_layernorm.weight": (h,) for n in norms}
    return found


def gpt2_tensors(c):
    """Return the shape of every tensor by name."""
    h = c["n_embd"]
    found = {"wte.weight": (c["vocab_size"], h), "wpe.weight": (c["n_positions"], h)}
    found |= {"ln_f.weight": (h,), "ln_f.bias": (h,)}
    for i in range(c["n_layer"]):
        for name, n_in, n_out in (
            ("attn.c_attn", h, 3 * h), ("attn.c_proj", h, h), ("mlp.c_fc", h, 4 * h), ("mlp.c_proj", 4 * h, h),
        ):  # fmt: skip
            found |= {f"h.{i}.{name}.weight": (n_in, n_out), f"h.{i}.{name}.bias": (n_out,)}
        found |= {f"h.{i}.{n}.{kind}": (h,) for n in ("ln_1", "ln_2") for kind in ("weight", "bias")}
    return found


def softmax(x):
    """Return the softmax over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu_tanh(x):
    """Return x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def rms(x, w, eps):
    """Normalise by the root of the mean square."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def rotate_half(x, theta, rotated):
    """Turn the pairs (j, j + rotated/2) of the first `rotated` elements of every token."""
    half = rotated // 2
    angle = np.outer(np.arange(len(x)), theta ** (-np.arange(half) / half))
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = x[:, :half], x[:, half:rotated]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, x[:, rotated:]], axis=1)


def attend(q, k, v, *, scale, window=None, softcap=None):
    """Return the causal attention of one head, q k v [tokens, dim]."""
    scores = q @ k.T * scale
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    i, j = np.indices(scores.shape)
    scores[(j > i) | (i - j >= (window or len(q)))] = -np.inf
    return softmax(scores) @ v


def heads(x, dim):
    """Return the heads of x [tokens, heads·dim]."""
    return np.split(x, x.shape[1] // dim, axis=1)


def phi3(c, w, ids):
    """Return the logits of every position."""
    n, n_kv, eps = c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"]
    dim = c["hidden_size"] // n
    rotated = int(dim * c["partial_rotary_factor"])
    x = w["model.embed_tokens.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        qkv = heads(rms(x, w[p + "input_layernorm.weight"], eps) @ w[p + "self_attn.qkv_proj.weight"].T, dim)
        turned = [rotate_half(head, c["rope_theta"], rotated) for head in qkv[: n + n_kv]]
        out = [
            attend(turned[h], turned[n + h // (n // n_kv)], qkv[n + n_kv + h // (n // n_kv)], scale=dim**-0.5,
                   window=c["sliding_window"])
            for h in range(n)
        ]  # fmt: skip
        x = x + np.concatenate(out, 1) @ w[p + "self_attn.o_proj.weight"].T
        y = rms(x, w[p + "post_attention_layernorm.weight"], eps) @ w[p + "mlp.gate_up_proj.weight"].T
        gate, up = np.split(y, 2, axis=1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
    return rms(x, w["model.norm.weight"], eps) @ w["lm_head.weight"].T


def gemma2(c, w, ids):
    """Return the logits of every position."""
    n, n_kv, dim, eps = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"], c["rms_norm_eps"]
    x = w["model.embed_tokens.weight"][ids] * math.sqrt(c["hidden_size"])
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."

        def norm(y, name, p=p):
            return rms(y, 1 + w[f"{p}{name}_layernorm.weight"], eps)

        y = norm(x, "input")
        q, k, v = (heads(y @ w[f"{p}self_attn.{name}_proj.weight"].T, dim) for name in "qkv")
        q, k = ([rotate_half(head, c["rope_theta"], dim) for head in part] for part in (q, k))
        out = [
            attend(q[h], k[h // (n // n_kv)], v[h // (n // n_kv)], scale=c["query_pre_attn_scalar"] ** -0.5,
                   window=None if i % 2 else c["sliding_window"], softcap=c["attn_logit_softcapping"])
            for h in range(n)
        ]  # fmt: skip
        x = x + norm(np.concatenate(out, 1) @ w[p + "self_attn.o_proj.weight"].T, "post_attention")
        y = norm(x, "pre_feedforward")
        gate, up = (y @ w[f"{p}mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + norm((gelu_tanh(gate) * up) @ w[p + "mlp.down_proj.weight"].T, "post_feedforward")
    logits = rms(x, 1 + w["model.norm.weight"], eps) @ w["model.embed_tokens.weight"].T
    return c["final_logit_softcapping"] * np.tanh(logits / c["final_logit_softcapping"])


def gpt2(c, w, ids):
    """Return the logits of every position."""
    dim = c["n_embd"] // c["n_head"]

    def norm(y, name):
        y = y - y.mean(-1, keepdims=True)
        scaled = y / np.sqrt((y * y).mean(-1, keepdims=True) + c["layer_norm_epsilon"])
        return scaled * w[name + ".weight"] + w[name + ".bias"]

    def linear(y, name):
        return y @ w[name + ".weight"] + w[name + ".bias"]

    x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]
    for i in range(c["n_layer"]):
        q, k, v = (heads(part, dim) for part in np.split(linear(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), 3, 1))
        out = [attend(*head, scale=dim**-0.5) for head in zip(q, k, v, strict=True)]
        x = x + linear(np.concatenate(out, 1), f"h.{i}.attn.c_proj")
        x = x + linear(gelu_tanh(linear(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")), f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f") @ w["wte.weight"].T


PLAIN = {
    "phi3": (PHI3, phi3_tensors, phi3),
    "gemma2": (GEMMA2, gemma2_tensors, gemma2),
    "gpt2": (GPT2, gpt2_tensors, gpt2),
}
"""Of every family without a stored oracle: a small config, its tensors, its forward pass."""


def write_folder(folder, family, seed=0):
    """Write a random model of a family; return the folder."""
    config, tensors, _ = PLAIN[family]
    rng, found = np.random.default_rng(seed), {}
    for name, shape in tensors(config).items():
        values = rng.standard_normal(shape)
        scale = 0.3 if len(shape) == 1 else shape[-1] ** -0.5
        around = 1.0 if len(shape) == 1 and family != "gemma2" and name.endswith("weight") else 0.0
        found[name] = (around + scale * values).astype(np.float32)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(found, folder / "model.safetensors")
    return folder


def greedy(folder, family, prompt, new_tokens):
    """Return the greedy ids and the logits of each step."""
    config, _, forward = PLAIN[family]
    weights = {name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()}
    ids, logits = list(prompt), []
    for _ in range(new_tokens):
        logits.append(forward(config, weights, ids)[-1])
        ids.append(int(np.argmax(logits[-1])))
    return ids[len(prompt) :], np.array(logits)
