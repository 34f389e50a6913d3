"""A plain, unsharded numpy Llama with a KV cache: what local decoding is compared with.

Nothing of chipmesh is used: the file is read by `gguf` and the forward pass is written for speed at batch 1.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import gguf
import numpy as np


def _silu(x: Any) -> Any:
    return x / (1 + np.exp(-np.maximum(x, np.float32(-80))))


class Llama:
    """Weights as float32, q/k/v and gate/up fused, rotary pairs as complex numbers."""

    def __init__(self, path: str, max_length: int) -> None:
        reader = gguf.GGUFReader(path)
        weights = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}

        def meta(key: str) -> Any:
            return reader.fields[f"llama.{key}"].contents()

        self.n_heads, self.n_kv = meta("attention.head_count"), meta("attention.head_count_kv")
        self.eps = np.float32(meta("attention.layer_norm_rms_epsilon"))
        self.dim = meta("embedding_length") // self.n_heads
        n_layers = meta("block_count")
        self.embedding = weights["token_embd.weight"]
        self.head = weights.get("output.weight", self.embedding)
        self.norm = weights["output_norm.weight"]
        self.layers = [
            (
                w["attn_norm"],
                np.concatenate([w["attn_q"], w["attn_k"], w["attn_v"]]),
                w["attn_output"],
                w["ffn_norm"],
                np.concatenate([w["ffn_gate"], w["ffn_up"]]),
                w["ffn_down"],
            )
            for i in range(n_layers)
            for w in [{k.split(".")[2]: v for k, v in weights.items() if k.startswith(f"blk.{i}.")}]
        ]
        frequency = meta("rope.freq_base") ** (-np.arange(0, self.dim, 2) / self.dim)
        self.turns = np.exp(1j * np.outer(np.arange(max_length), frequency)).astype(np.complex64)
        self.cache = np.zeros((n_layers, 2, self.n_kv, max_length, self.dim), np.float32)

    def rms_norm(self, x: Any, w: Any) -> Any:
        """Return x / rms(x) · w."""
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * w

    def attend(self, qkv: Any, cache: Any, start: int) -> Any:
        """Return causal attention over the cache, to which the new keys and values are appended."""
        n, stop = len(qkv), start + len(qkv)
        heads = qkv.reshape(n, -1, self.dim).swapaxes(0, 1)
        n_roped = self.n_heads + self.n_kv
        roped = np.ascontiguousarray(heads[:n_roped]).view(np.complex64) * self.turns[start:stop]
        roped = roped.view(np.float32)
        cache[0, :, start:stop], cache[1, :, start:stop] = roped[self.n_heads :], heads[n_roped:]
        q = (roped[: self.n_heads] * np.float32(self.dim**-0.5)).reshape(self.n_kv, -1, self.dim)
        scores = q @ cache[0, :, :stop].swapaxes(1, 2)
        if n > 1:
            hidden = np.arange(stop) > np.arange(start, stop)[:, None]
            scores.reshape(self.n_kv, -1, n, stop)[:, :, hidden] = -np.inf
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        out = scores @ cache[1, :, :stop]
        return out.reshape(self.n_heads, n, self.dim).swapaxes(0, 1).reshape(n, -1)

    def forward(self, ids: Any, start: int) -> int:
        """Return the greedy id after `ids`, which stand at `start`."""
        x = self.embedding[ids]
        for layer, (attention_norm, qkv, o, ffn_norm, gate_up, down) in enumerate(self.layers):
            x = x + self.attend(self.rms_norm(x, attention_norm) @ qkv.T, self.cache[layer], start) @ o.T
            gate, up = np.split(self.rms_norm(x, ffn_norm) @ gate_up.T, 2, axis=1)
            x = x + (_silu(gate) * up) @ down.T
        return int(np.argmax(self.head @ self.rms_norm(x[-1], self.norm)))


def decode(path: str, prompt_ids: list[int], new_tokens: int) -> tuple[list[int], float]:
    """Return the greedy ids and the seconds per decoded token (prefill and loading left out)."""
    model = Llama(path, len(prompt_ids) + new_tokens)
    ids = [model.forward(np.array(prompt_ids), 0)]
    begin = time.perf_counter()
    for _ in range(new_tokens - 1):
        ids.append(model.forward(np.array(ids[-1:]), len(prompt_ids) + len(ids) - 1))
    return ids, (time.perf_counter() - begin) / max(new_tokens - 1, 1)


if __name__ == "__main__":
    generated, seconds_per_token = decode(sys.argv[1], [504, 3575, 282, 4649, 314], 30)
    print(generated)
    print(f"{seconds_per_token * 1e3:.1f} ms per token")
