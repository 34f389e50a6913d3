"""Tiny Llama models with random weights, written as GGUF files by the library's own writer."""

from __future__ import annotations

import gguf
import numpy as np

TINY = {
    "block_count": 4,
    "embedding_length": 64,
    "head_count": 6,
    "head_count_kv": 2,
    "key_length": 16,
    "feed_forward_length": 96,
    "vocab": 101,
}


def write_tiny(
    path,
    *,
    seed=0,
    tied=True,
    quantization="F32",
    architecture="llama",
    without=(),
    metadata=(),
    **sizes,
):
    """Write a model of random weights; `without` leaves tensors out, `metadata` adds keys."""
    n = TINY | sizes
    rng = np.random.default_rng(seed)
    hidden, ffn = n["embedding_length"], n["feed_forward_length"]
    q, kv = n["head_count"] * n["key_length"], n["head_count_kv"] * n["key_length"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(n["block_count"])
    writer.add_embedding_length(hidden)
    writer.add_head_count(n["head_count"])
    writer.add_head_count_kv(n["head_count_kv"])
    writer.add_key_length(n["key_length"])
    writer.add_value_length(n["key_length"])
    writer.add_feed_forward_length(ffn)
    writer.add_context_length(n.get("context", 64))
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in metadata:
        kinds = {list: writer.add_array, str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}
        kinds[type(value)](key, value)
    shapes = {"token_embd": (n["vocab"], hidden), "output_norm": (hidden,)}
    if not tied:
        shapes["output"] = (n["vocab"], hidden)
    for i in range(n.get("n_written", n["block_count"])):
        shapes |= {
            f"blk.{i}.attn_norm": (hidden,),
            f"blk.{i}.attn_q": (q, hidden),
            f"blk.{i}.attn_k": (kv, hidden),
            f"blk.{i}.attn_v": (kv, hidden),
            f"blk.{i}.attn_output": (hidden, q),
            f"blk.{i}.ffn_norm": (hidden,),
            f"blk.{i}.ffn_gate": (ffn, hidden),
            f"blk.{i}.ffn_up": (ffn, hidden),
            f"blk.{i}.ffn_down": (hidden, ffn),
        }
    kind = gguf.GGMLQuantizationType[quantization]
    for name, shape in shapes.items():
        if name in without:
            continue
        values = rng.standard_normal(shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", 1 + 0.1 * values)
        else:
            scaled = values if name == "token_embd" else values / np.sqrt(np.float32(shape[1]))
            writer.add_tensor(f"{name}.weight", gguf.quantize(scaled, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
