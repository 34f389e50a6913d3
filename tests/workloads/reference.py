"""A plain Llama forward pass, meant to be obviously right: fp32, no cache, no sharding, no own reader."""

from __future__ import annotations

import gguf
import numpy as np


class Reference:
    """A GGUF model that recomputes everything for every token."""

    def __init__(self, path) -> None:
        reader = gguf.GGUFReader(path)
        self.meta = {name: field.contents() for name, field in reader.fields.items()}
        self.weights = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}

    def logits(self, ids):
        """Return the logits after the last of `ids`, [vocab]."""
        meta, w = self.meta, self.weights
        x = w["token_embd.weight"][list(ids)]
        for i in range(meta["llama.block_count"]):
            x = x + self.attention(self.norm(x, f"blk.{i}.attn_norm"), f"blk.{i}.")
            h = self.norm(x, f"blk.{i}.ffn_norm")
            gate, up = h @ w[f"blk.{i}.ffn_gate.weight"].T, h @ w[f"blk.{i}.ffn_up.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"blk.{i}.ffn_down.weight"].T
        head = w.get("output.weight", w["token_embd.weight"])
        return head @ self.norm(x, "output_norm")[-1]

    def norm(self, x, name):
        """Return x / rms(x) · w."""
        eps = self.meta["llama.attention.layer_norm_rms_epsilon"]
        return x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + np.float32(eps)) * self.weights[name + ".weight"]

    def attention(self, x, layer):
        """Return causal attention, one head at a time."""
        w, meta = self.weights, self.meta
        n_heads, n_kv = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
        q, k, v = (x @ w[f"{layer}attn_{name}.weight"].T for name in "qkv")
        dim = q.shape[1] // n_heads
        out = []
        for head in range(n_heads):
            kv = head // (n_heads // n_kv)
            qh = self.rotate(q[:, head * dim : (head + 1) * dim])
            kh = self.rotate(k[:, kv * dim : (kv + 1) * dim])
            scores = qh @ kh.T / np.sqrt(np.float32(dim))
            scores[np.triu_indices(len(x), 1)] = -np.inf
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            out.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, kv * dim : (kv + 1) * dim])
        return np.concatenate(out, axis=1) @ w[f"{layer}attn_output.weight"].T

    def rotate(self, x):
        """Return x with the pair (2j, 2j+1) of token t turned by t · base^(-2j/dim)."""
        n, dim = x.shape
        base = self.meta["llama.rope.freq_base"]
        angle = np.outer(np.arange(n), float(base) ** (-np.arange(0, dim, 2) / dim))
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        y = np.empty_like(x)
        y[:, 0::2] = x[:, 0::2] * cos - x[:, 1::2] * sin
        y[:, 1::2] = x[:, 0::2] * sin + x[:, 1::2] * cos
        return y

    def greedy(self, prompt, new_tokens):
        """Return the greedy ids and the logits of each step."""
        ids, logits = list(prompt), []
        for _ in range(new_tokens):
            logits.append(self.logits(ids))
            ids.append(int(np.argmax(logits[-1])))
        return ids[len(prompt) :], np.array(logits)
