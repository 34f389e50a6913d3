"""Small machines, kernels and programs that the tests of this folder share."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from attrs import frozen

from configs.spec.chip import ChipSpec, MemoryTier
from configs.spec.communication import CommunicationSpec
from configs.spec.system import SystemSpec
from configs.spec.topology import LinkSpec, RoutingSpec
from tests.collectives.rows import TOPOLOGIES, fitting
from topology import Mesh, Ring, Switch, Torus
from workloads.array import ShapeArray
from workloads.chip import Work

US = 1_000_000
"""A microsecond in ps."""
CHIP = ChipSpec(
    "toy",
    {"fp32": 1e12, "bf16": 4e12},
    (MemoryTier("sram", 2**20, 1e12), MemoryTier("dram", 2**30, 1e11, efficiency=0.5)),
    matrix_tile=(32, 32, 32),
)


def system(topology, chip=CHIP, **communication) -> SystemSpec:
    """Return a system of toy chips."""
    return SystemSpec("toy-system", chip, topology, RoutingSpec(), CommunicationSpec(**communication))


def ring(n, bandwidth=1e9, latency_ps=US, **communication) -> SystemSpec:
    """Return a ring of n toy chips."""
    return system(Ring(dims=(n,), link=LinkSpec(bandwidth, latency_ps)), **communication)


def mesh(*dims, bandwidth=1e9, latency_ps=US, **communication) -> SystemSpec:
    """Return a mesh of toy chips."""
    return system(Mesh(dims=dims, link=LinkSpec(bandwidth, latency_ps)), **communication)


def torus(*dims, bandwidth=1e9, latency_ps=US, **communication) -> SystemSpec:
    """Return a torus of toy chips."""
    return system(Torus(dims=dims, link=LinkSpec(bandwidth, latency_ps)), **communication)


def switch(n, bandwidth=1e9, latency_ps=US, planes=(1,), **communication) -> SystemSpec:
    """Return n toy chips behind switch planes."""
    return system(Switch(chips=n, link=LinkSpec(bandwidth, latency_ps), planes=planes), **communication)


def fitting_system(op, name, n, **communication) -> SystemSpec:
    """Return a system of about n toy chips that the algorithm fits."""
    kind, count = fitting(op, name, n)
    return system(TOPOLOGIES[kind](count), **communication)


def array(chip, shape, fill=1, dtype=np.float32):
    """Return an array of the shape, with data or without, as the chip runs."""
    shape = (shape,) if isinstance(shape, int) else shape
    return np.full(shape, fill, dtype) if chip.real else ShapeArray(shape, np.dtype(dtype))


@frozen
class Burn:
    """Takes `flops` of vector work and moves `size` bytes; returns its input, doubled."""

    name: ClassVar[str] = "burn"

    def infer(self, x, *, flops=0, size=0):
        """Return the input's shape and dtype."""
        del flops, size
        return x.shape, x.dtype

    def evaluate(self, x, *, flops=0, size=0):
        """Return twice the input."""
        del flops, size
        return x + x

    def work(self, x, *, flops=0, size=0):
        """Return the work asked for."""
        del x
        return Work("fp32", vector_flops=flops, activation_bytes=size)


@frozen
class Product:
    """y = x Wᵀ with a stored matrix."""

    name: ClassVar[str] = "product"

    def infer(self, x, w):
        """Return [n, out]."""
        return (x.shape[0], w.shape[0]), x.dtype

    def evaluate(self, x, w):
        """Return the product."""
        return x @ w.values.T

    def work(self, x, w):
        """Return one multiplication that reads all of W."""
        (n, k), out = x.shape, w.shape[0]
        return Work("fp32", matmuls=((1, n, k, out),), tensor_bytes=((w.tier, w.size_bytes),))


BURN, PRODUCT = Burn(), Product()


async def layers(chip, n_layers=2, seed=0):
    """Run a toy model: products, all-reduces in pairs of chips, and a hand-over round the ring."""
    rng = np.random.default_rng([seed, chip.rank])
    pair = chip.group(f"pair {chip.rank // 2}", tuple(r for r in range(chip.n_chips) if r // 2 == chip.rank // 2))
    w = chip.place("w", (48, 48), "fp32", rng.integers(-2, 3, (48, 48)).astype(np.float32) if chip.real else None)
    x = array(chip, (5, 48), chip.rank)
    for _ in range(n_layers):
        x = await chip.all_reduce(chip.apply(PRODUCT, x, w), group=pair)
        await chip.send(x, (chip.rank + 1) % chip.n_chips, "on")
        x = await chip.recv((chip.rank - 1) % chip.n_chips, "on")
        chip.emit("layer")
    x = chip.apply(BURN, x, flops=1000 * (chip.rank + 1))
    return await chip.all_gather(x)


async def beside(chip, n_rounds=2, seed=0):
    """Let reductions, a gather and messages round the ring go on beside kernels; await them in another order."""
    rng = np.random.default_rng([seed, chip.rank])
    x = rng.standard_normal((6, 40)).astype(np.float32) if chip.real else array(chip, (6, 40))
    for i in range(n_rounds):
        received = chip.start(chip.recv((chip.rank - 1) % chip.n_chips, "ring"))
        reduced = [chip.start(chip.all_reduce(x, reduction=how)) for how in ("sum", "max")]
        y = chip.apply(BURN, x, flops=1000 * (chip.rank + 1))
        sent = chip.start(chip.send(y, (chip.rank + 1) % chip.n_chips, "ring"))
        gathered = chip.start(chip.all_gather(y))
        second, first = await reduced[1], await reduced[0]
        chip.apply(BURN, second, flops=500)
        x, _ = await received, await sent
        chip.emit("round", first, i)
        await gathered
    return await chip.all_gather(x)
