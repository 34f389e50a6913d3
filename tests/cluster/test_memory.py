"""Memory tiers: what is placed where, and refusal of what does not fit."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from cluster import launch
from cluster.memory import Memory
from configs.errors import CapacityError, ConfigError
from configs.spec.chip import MemoryTier
from tests.cluster.machines import CHIP, ring

MIB = 2**20


def test_tiers_and_roles():
    """Tensors go to the farthest tier unless told otherwise; accounts are by role over all tiers."""
    memory = Memory(CHIP, "chip 0")
    assert memory.place("w", 100, None, "weights") == 1
    assert memory.place("k", 10, "sram", "kv") == 0
    assert memory.place("v", 20, "dram", "kv") == 1
    assert (memory.used_bytes(0), memory.used_bytes(1)) == (10, 120)
    assert memory.by_role() == {"weights": 100, "kv": 30}


def test_a_full_tier_refuses_and_names_what_is_in_it():
    """The error has the chip, the sum, the capacity and the largest tensors with their sizes."""
    memory = Memory(CHIP, "chip 3")
    for i in range(7):
        memory.place(f"t{i}", (i + 1) * 1024, "sram", "weights")
    with pytest.raises(CapacityError) as refusal:
        memory.place("last", MIB, "sram", "kv")
    text = str(refusal.value)
    assert text.startswith("chip 3 (toy): 8 tensors need 1.03 MiB, sram holds 1 MiB; the largest: last 1 MiB, t6 7 KiB")
    assert "t2" not in text
    assert "use more chips" in text


def test_the_last_byte_fits():
    """A tier takes exactly its capacity and not one byte more."""
    memory = Memory(CHIP, "chip 0")
    memory.place("all", MIB, "sram", "weights")
    memory.place("nothing", 0, "sram", "weights")
    with pytest.raises(CapacityError):
        memory.place("one", 1, "sram", "weights")


def test_an_unknown_tier_is_refused():
    """The error lists the chip's tiers."""
    with pytest.raises(ConfigError, match="no memory tier 'hbm'; accepted: sram, dram"):
        Memory(CHIP, "chip 0").place("w", 1, "hbm", "weights")


def test_an_unknown_capacity_is_refused():
    """The error names the tier and how to give its capacity."""
    chip = attrs.evolve(CHIP, memory=(CHIP.memory[0], MemoryTier("dram")))
    assert Memory(chip, "chip 0").place("near", 1, "sram", "weights") == 0
    message = r"chip toy: the capacity of dram is unknown.*--set system\.chip\.memory\[1\]\.capacity="
    with pytest.raises(ConfigError, match=message):
        Memory(chip, "chip 0").place("far", 1, None, "weights")


@pytest.mark.parametrize("numerics", ["real", "shapes"])
@pytest.mark.parametrize(("dtype", "size"), [("fp32", 4000), ("bf16", 2000)])
def test_sizes_follow_the_dtype(numerics, dtype, size):
    """A placed tensor takes its elements times its dtype's size, with data or without."""

    async def program(chip):
        return chip.place("w", (10, 100), dtype, np.zeros((10, 100)) if chip.real else None).size_bytes

    result = launch(ring(2), numerics=numerics).run(program)
    assert result.values == [size, size]
    assert result.memory_bytes == {0: {"weights": size}, 1: {"weights": size}}


def test_block_formats_take_whole_blocks():
    """Rows of 100 elements of bfp8 are 7 blocks of 17 bytes each."""

    async def program(chip):
        return chip.place("w", (10, 100), "bfp8").size_bytes

    assert launch(ring(1), numerics="shapes").run(program).values == [10 * 7 * 17]


@pytest.mark.parametrize("numerics", ["real", "shapes"])
def test_a_program_that_places_too_much_is_refused(numerics):
    """The refusal reaches the caller as bad input, with chip and tensor, in both numerics."""

    async def program(chip):
        chip.place("kv.0", (2**18 + 1,), "fp32", tier="sram", role="kv")

    with pytest.raises(CapacityError, match=r"chip 0 \(toy\): 1 tensors need .*kv.0 1 MiB"):
        launch(ring(2), numerics=numerics).run(program)


def test_values_are_rounded_to_the_dtype():
    """What is placed as bf16 has bf16 values."""

    async def program(chip):
        return chip.place("w", (2,), "bf16", np.array([1.001, 3.0], np.float32)).values.tolist()

    assert launch(ring(1)).run(program).values == [[1.0, 3.0]]
