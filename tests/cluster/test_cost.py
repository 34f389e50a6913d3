"""What a kernel costs: the roofline with the matrix tile against hand computation."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import launch
from cluster.cost import duration, matmul_flops
from configs.errors import ConfigError
from configs.spec.chip import MemoryTier
from tests.cluster.machines import BURN, CHIP, PRODUCT, array, ring
from workloads.chip import Work


def cost(chip=CHIP, **work):
    """Return the duration and bound of some work in fp32."""
    return duration(chip, Work("fp32", **work))


def test_compute_bound():
    """10^6 operations at 1 TFLOPS are 1 us, whatever fits into that time of memory traffic."""
    assert cost(vector_flops=10**6) == (1_000_000, "compute")
    assert cost(vector_flops=10**6, activation_bytes=999_999) == (1_000_000, "compute")


def test_memory_bound():
    """Tiers add up: 10^6 B of SRAM at 1 TB/s and 10^6 B of DRAM at 100 GB/s x 0.5 are 1 + 20 us."""
    assert cost(activation_bytes=10**6, tensor_bytes=((1, 10**6),), vector_flops=10) == (21_000_000, "memory")
    assert cost(tensor_bytes=((1, 500_000), (1, 500_000), (0, 10**6))) == (21_000_000, "memory")


def test_launch_comes_on_top():
    """The launch is added to what bounds the kernel, and is all that an empty kernel takes."""
    chip = attrs.evolve(CHIP, kernel_launch_ps=77)
    assert cost(chip, vector_flops=10**6) == (1_000_077, "compute")
    assert cost(chip) == (77, "compute")
    assert cost() == (0, "compute")


def test_padded_work_counts():
    """One row costs as much as 32 on a 32 x 32 unit; 33 rows as much as 64."""
    times = [cost(matmuls=((1, m, 64, 64),))[0] for m in (1, 32, 33, 64)]
    assert times == [2 * 32 * 64 * 64, 2 * 32 * 64 * 64, 2 * 64 * 64 * 64, 2 * 64 * 64 * 64]


@given(st.integers(1, 9), *[st.integers(1, 300)] * 3, st.tuples(*[st.sampled_from([1, 8, 32, 128])] * 3))
def test_padding_is_to_whole_tiles(count, m, k, n, tile):
    """The work of padded sides: a multiple of the tile's, at least the exact, below one tile more on each side."""
    flops = matmul_flops(count, m, k, n, tile)
    assert flops % (2 * count * np.prod(tile)) == 0
    assert 2 * count * m * k * n <= flops < 2 * count * (m + tile[0]) * (k + tile[1]) * (n + tile[2])
    if (m % tile[0], k % tile[1], n % tile[2]) == (0, 0, 0):
        assert flops == 2 * count * m * k * n


def test_each_dtype_has_its_peak():
    """bf16 runs four times as fast on this chip."""
    works = [Work(dtype, matmuls=((1, 64, 64, 64),)) for dtype in ("fp32", "bf16")]
    fp32, bf16 = (duration(CHIP, work)[0] for work in works)
    assert fp32 == 4 * bf16 == 2 * 64**3


def test_an_unknown_peak_is_refused():
    """A dtype without a peak is an error that names the chip, the key and what is known."""
    with pytest.raises(
        ConfigError, match=r"chip toy: peak.fp8 is unknown.*known: bf16, fp32; .*--set system.chip.peak"
    ):
        duration(CHIP, Work("fp8", vector_flops=1))


def test_an_unknown_peak_is_not_asked_for_without_arithmetic():
    """Moving bytes needs no peak."""
    assert duration(CHIP, Work("fp8", activation_bytes=10**6))[0] == 1_000_000


def test_an_unknown_bandwidth_is_not_charged():
    """Traffic to a tier of unknown bandwidth takes no time."""
    chip = attrs.evolve(CHIP, memory=(MemoryTier("sram", 2**20), CHIP.memory[1]))
    assert cost(chip, activation_bytes=10**9)[0] == 0
    assert cost(chip, activation_bytes=10**9, tensor_bytes=((1, 50_000),))[0] == 1_000_000


@pytest.mark.parametrize("numerics", ["real", "shapes"])
def test_a_chip_charges_the_roofline(numerics):
    """A product on a chip takes the larger of its padded work and the stream of its matrix from DRAM."""

    async def program(chip):
        w = chip.place("w", (64, 96), "fp32", np.ones((64, 96)) if chip.real else None)
        y = chip.apply(PRODUCT, array(chip, (3, 96)), w)
        chip.apply(BURN, y, flops=5000)
        return tuple(y.shape)

    result = launch(ring(1), numerics=numerics).run(program)
    product, burn = result.timeline.events()
    stream_ps = round(64 * 96 * 4 / 0.5e11 * 1e12)
    assert stream_ps > 2 * 32 * 96 * 64
    assert (product.end_ps, burn.start_ps, burn.end_ps) == (stream_ps, stream_ps, stream_ps + 5000)
    assert result.values == [(3, 64)]


def test_kernels_are_priced_by_what_their_parameters_mean():
    """Two calls with equal values under different names are two prices."""

    async def program(chip):
        x = array(chip, 4)
        chip.apply(BURN, x, flops=10**6)
        chip.apply(BURN, x, size=10**6)
        chip.apply(BURN, x, flops=10**6, size=3)
        chip.apply(BURN, x, flops=3, size=10**7)

    events = launch(ring(1), numerics="shapes").run(program).timeline.events()
    assert [e.end_ps - e.start_ps for e in events] == [1_000_000, 1_000_000, 1_000_000, 10_000_000]


def test_the_dtype_of_an_operand_is_part_of_the_price():
    """The same shape in another dtype is worked out anew."""

    async def program(chip):
        return [chip.apply(BURN, array(chip, 4, dtype=t)).dtype for t in (np.float32, np.int32)]

    assert launch(ring(1)).run(program).values == [[np.float32, np.int32]]
