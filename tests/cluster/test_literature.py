"""Facts of the literature that must come out of the model."""

from __future__ import annotations

import pytest

from cluster.cost import duration
from cluster.experiment import run_experiment
from cluster.vocabulary import VOCABULARY
from configs.loader import load_chip, load_experiment, load_model, load_system
from topology import build_topology
from workloads.array import ShapeArray
from workloads.attention import Attention
from workloads.chip import Tensor
from workloads.kernels import Matmul
from workloads.rounding import NUMPY_DTYPES

BF16 = NUMPY_DTYPES["bf16"]


def stored(*shape):
    """Return a bf16 tensor in the farthest memory."""
    n = 1
    for side in shape:
        n *= side
    return Tensor("w", shape, "bf16", 2, 2 * n, None)


@pytest.mark.parametrize(("name", "critical"), [("h100-sxm", 295), ("a100-sxm-80gb", 153)])
def test_critical_batch(name, critical):
    """Weights in bf16 take 2 bytes and 2 flops per token: compute takes over at a batch of peak / bandwidth.

    jax-ml.github.io/scaling-book/gpus: 295 for the H100; 156 for an A100 of 2.0 TB/s, here it has 2.039.
    """
    chip = load_chip(name, ("kernels=ideal",))
    peak, bandwidth = chip.peak_flops["bf16"], chip.memory[2].bandwidth_bytes_per_s
    assert peak / bandwidth == pytest.approx(critical, abs=0.5)
    w = stored(65_536, 65_536)  # so large that the activations' traffic hardly counts

    def bound(batch):
        return duration(chip, Matmul().work(ShapeArray((batch, 65_536), BF16), w))[1]

    assert bound(int(critical * 0.97)) == "memory"
    assert bound(int(critical * 1.05)) == "compute"


def test_critical_batch_of_the_a100_as_published():
    """312 TFLOPS / 2.0 TB/s."""
    chip = load_chip("a100-sxm-80gb", ("memory[2].bandwidth=2.0TB/s",))
    assert chip.peak_flops["bf16"] / chip.memory[2].bandwidth_bytes_per_s == pytest.approx(156)


@pytest.mark.parametrize("length", [1, 100, 8192])
def test_intensity_of_attention(length):
    """One new token (T = 1) that sees S keys has S·T/(S+T) flops per byte (jax-ml.github.io/scaling-book/inference)."""
    cache, heads, dim = stored(1, 16, 8192, 128), 16, 128
    q = ShapeArray((1, heads * dim), BF16)
    work = Attention().work(q, cache, cache, starts=(length - 1,), queries=(1,) * heads)
    flops = sum(2 * count * m * k * n for count, m, k, n in work.matmuls)
    n_bytes = work.activation_bytes + sum(size for _, size in work.tensor_bytes)
    assert flops / n_bytes == pytest.approx(length / (length + 1))


def test_deepseek_cache_per_token():
    """Full heads would take 1,749 KB in bf16, the latents 62.5 KB; with the rotated key, which is kept too, 70.3 KB."""
    shape = load_model("deepseek-v3", (), VOCABULARY).shape
    assert 2 * 2 * shape.n_layers * shape.hidden / 1000 == pytest.approx(1749, abs=0.5)
    assert 2 * shape.n_layers * shape.kv_latent / 1000 == pytest.approx(62.5, abs=0.05)
    assert shape.kv_bytes_per_token("bf16") == 2 * shape.n_layers * (shape.kv_latent + 64) == 70_272


def test_bound_of_tensor_parallelism():
    """F > Y·C/W: 18,432 rows of a feed-forward block keep 16 H100s busy; W is both directions of a chip's links."""
    chip, topology = load_chip("h100-sxm"), build_topology(load_system("dgx-h100", (), VOCABULARY))
    both_ways = sum(topology.link_bandwidth_bytes_per_s[link] for link in topology.out_links(0)) * 2
    assert both_ways == 900e9
    assert 18_432 * both_ways / chip.peak_flops["bf16"] == pytest.approx(16.8, abs=0.05)


IDEAL = (
    "system.topology.link.bandwidth=1000TB/s", "system.topology.link.latency=0ps", "model.shape.max_context=8193",
    "system.chip.memory[1].capacity=4TiB", "system.communication=ideal",
)  # fmt: skip


def decode_step_ms(batch, prompt_tokens):
    """Return TPOT of LLaMA-2-13B in bf16 on eight TPU v5e that communicate for nothing."""
    source = {
        "system": "tpu-v5e-2x4", "model": "llama-2-13b", "parallel": {"tp": 8}, "numerics": "shapes",
        "workload": {"batch": batch, "prompt_tokens": prompt_tokens, "new_tokens": 2},
    }  # fmt: skip
    return run_experiment(load_experiment(source, IDEAL, VOCABULARY)).times.tpot_s * 1e3


@pytest.mark.parametrize(
    ("batch", "published_ms"), [(1, 4.98), (8, 12.13), (16, 20.30), (32, 36.65), (64, 69.33), (240, 249.09)]
)
def test_decode_steps_of_the_scaling_book(batch, published_ms):
    """At a context of 8,192 (jax-ml.github.io/scaling-book/applied-inference; capacity is not looked at there)."""
    assert decode_step_ms(batch, 8191) == pytest.approx(published_ms, rel=0.01)


def test_streaming_the_weights():
    """With a short context and batch 1 a step takes 2P / (N·bandwidth), P without the table of embeddings."""
    model, chip = load_model("llama-2-13b", (), VOCABULARY), load_chip("tpu-v5e")
    streamed = model.shape.n_parameters - model.shape.vocab * model.shape.hidden
    floor_ms = 2 * streamed / (8 * chip.memory[1].bandwidth_bytes_per_s) * 1e3
    assert floor_ms < decode_step_ms(1, 1) < 1.01 * floor_ms
