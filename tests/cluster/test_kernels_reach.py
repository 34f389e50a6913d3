"""What kernels reach of the roofline, by kind: every constant against hand computation; ideal ones are the roofline."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.cost import duration
from cluster.experiment import run_experiment
from cluster.serving import served
from cluster.vocabulary import VOCABULARY
from configs.catalogue_files import catalogue_names
from configs.loader import load_chip, load_experiment, load_kernels, load_software, load_system
from configs.spec.kernels import KernelSpec, KernelsSpec
from tests.cluster.machines import CHIP
from workloads.chip import Work

SLOW = KernelSpec(start_ps=5_000_000, compute=0.5, memory=0.25, stream=0.01)
CALIBRATED = attrs.evolve(
    CHIP, kernels=KernelsSpec("test", {"matmul": SLOW, "residual": KernelSpec(fused=True)}, rounding_ps=1_000_000)
)


def cost(chip=CALIBRATED, **work):
    """Return the duration of some work in fp32, in microseconds."""
    return duration(chip, Work("fp32", **work))[0] * 1e-6


def test_start_and_fractions():
    """10^6 operations at half of 1 TFLOPS, or 10^6 bytes at a quarter of 1 TB/s, after 5 us."""
    assert cost(vector_flops=10**6, kind="matmul") == pytest.approx(5 + 2)
    assert cost(activation_bytes=10**6, kind="matmul") == pytest.approx(5 + 4)


def test_rounded_inputs_take_a_kernel_more():
    """Rounding is charged once per kernel, whatever its bytes."""
    assert cost(vector_flops=10**6, kind="matmul", rounded_bytes=1) == pytest.approx(5 + 2 + 1)


def test_few_streams_reach_less():
    """One stream has 1 % of the bandwidth, ten have 10 %, a thousand no more than the kernel reaches."""
    for streams, fraction in ((1, 0.01), (10, 0.1), (1000, 0.25)):
        assert cost(activation_bytes=10**6, kind="matmul", streams=streams) == pytest.approx(5 + 1 / fraction)


def test_fused_kernels_take_no_time():
    """Not even the launch of the chip."""
    chip = attrs.evolve(CALIBRATED, kernel_launch_ps=7)
    assert cost(chip, vector_flops=10**6, kind="residual") == 0


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.sampled_from(["matmul", "attention", "norm"]))
def test_ideal_kernels_are_the_roofline(flops, size, kind):
    """The kind of a kernel is nothing to a chip without a profile."""
    work = {"vector_flops": flops, "activation_bytes": size, "rounded_bytes": size, "streams": 3}
    assert duration(CHIP, Work("fp32", kind=kind, **work)) == duration(CHIP, Work("fp32", **work))


@pytest.mark.parametrize("name", catalogue_names("kernels"))
def test_no_profile_is_faster_than_the_roofline(name):
    """All fractions are at most 1, the large kinds are there, and a chip names it, or software that brings it."""
    kernels = load_kernels(name)
    assert {"matmul", "attention", "norm"} <= set(kernels.kinds)
    brought = (one for software in catalogue_names("software") for one in load_software(software).kernels.values())
    assert name in brought or any(load_chip(chip).kernels == kernels for chip in catalogue_names("chips"))


def test_the_ideal_word():
    """`ideal` is the roofline, and software that adds nothing."""
    assert load_chip("h100-sxm", ("kernels=ideal",)).kernels == KernelsSpec()
    assert load_chip("h100-sxm").kernels == load_kernels("nvidia-hopper")


EXPERIMENT = {
    "system": "dgx-h100",
    "model": "llama-3.2-1b",
    "parallel": {"tp": 2},
    "numerics": "shapes",
    "workload": {"batch": 4, "prompt_tokens": 64, "new_tokens": 3},
}


def test_software_adds_its_host_kernels_and_calls():
    """A step is longer by the host's time, and by that of every kernel and call; the host's time is idle time."""
    base = run_experiment(load_experiment(EXPERIMENT, [], VOCABULARY))
    software = {"name": "slow", "step": "1ms", "row": "10us", "kernel": "2us", "call": "3us"}
    slow = run_experiment(load_experiment({**EXPERIMENT, "software": software}, [], VOCABULARY))
    counts = {"kernels": 0, "calls": 0}
    for operation in base.timeline.operations:
        counts["calls" if operation.bound == "communication" else "kernels"] += operation.count
    fused = sum(o.count for o in base.timeline.operations if o.name == "add")
    more_s = 3 * (1e-3 + 4 * 10e-6) + (counts["kernels"] - fused) / 2 * 2e-6 + counts["calls"] / 2 * 3e-6
    assert slow.times.total_s - base.times.total_s == pytest.approx(more_s, rel=1e-6)
    assert slow.timeline.breakdown.idle_s - base.timeline.breakdown.idle_s == pytest.approx(
        3 * (1e-3 + 40e-6), rel=1e-3
    )


def test_software_of_the_catalogue_is_about_microseconds():
    """Every profile loads; a decode step waits for the host for less than twenty milliseconds."""
    for name in catalogue_names("software"):
        assert load_software(name).step_ps < 20e9


@pytest.mark.parametrize(("one_host", "starts"), [(False, 1), (True, 2)])
def test_software_without_graphs_starts_every_kernel(one_host, starts):
    """None takes less than its start, of all chips in turn where one process drives them, and calls wait for it."""
    software = {"name": "eager", "dispatch": "1ms", "one_host": one_host}
    run = run_experiment(load_experiment({**EXPERIMENT, "software": software}, [], VOCABULARY))
    base = run_experiment(load_experiment(EXPERIMENT, [], VOCABULARY))
    started = sum(o.count for o in base.timeline.operations if o.name != "add")
    least_s = starts * 1e-3 * started / 2
    assert least_s < run.times.total_s < least_s + base.times.total_s


def test_software_brings_its_kernels():
    """In place of those that it names, and of no others."""
    system = load_system("mi300x-node", [], VOCABULARY)
    old = served(system, load_software("vllm-2024-rocm"), 8)
    assert old.chip.kernels == load_kernels("amd-cdna3-2024")
    assert served(system, load_software("vllm"), 8).chip.kernels == load_kernels("amd-cdna3")
