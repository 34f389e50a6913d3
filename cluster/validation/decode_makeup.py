"""What a prediction of decoding is the sum of, so that other constants of kernels and software give it at once.

Chips that do the same run one kernel after the other: a run's time is that of its kernels on one chip of every stage,
the host's, and the rest, which is communication and does not depend on what kernels reach.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache, partial
from typing import Any, NamedTuple

from attrs import frozen

from cluster.chip import Machine, SimChip
from cluster.cost import ROOFLINE, peak_flops, stream_s, work_flops
from cluster.host import Host
from cluster.records import Collective, Compute, Send
from cluster.session import Cluster
from cluster.validation.decode_work import DecodeWork, Step, software_named, total_s
from cluster.validation.kernel_cases import KernelWork
from configs.algorithm_names import AUTO
from configs.spec.chip import ChipSpec
from configs.spec.software import SoftwareSpec
from workloads.chip import Work
from workloads.decode import DecodeJob, decode


class Kernel(NamedTuple):
    """A kernel's time at the peak and at the memory's bandwidth; streams, rounds: as `Work` has them."""

    kind: str
    compute_s: float
    memory_s: float
    streams: int
    rounds: bool


class Rest(NamedTuple):
    """What of a time is not kernels: steps, rows and calls that wait for the host, and what depends on none."""

    steps: float = 0.0
    rows: float = 0.0
    calls: float = 0.0
    rest_s: float = 0.0

    def times(self, weight: float) -> Rest:
        """Return so many times as much."""
        return Rest(*(weight * part for part in self))

    def plus(self, other: Rest) -> Rest:
        """Return both together."""
        return Rest(*(mine + its for mine, its in zip(self, other, strict=True)))


NOTHING = Rest()


@frozen
class Makeup:
    """A time, the sum of kernels, and how many of each, and the rest.

    stalls: it counts as far as prefills hold up those that decode. chips: whose kernels one process starts in turn.
    """

    kernels: tuple[tuple[Kernel, float], ...]
    rest: Rest = NOTHING
    stalls: bool = False
    chips: int = 1


def makeups(work: DecodeWork | KernelWork, quantity: str) -> tuple[str, str, tuple[Makeup, ...]]:
    """Return (profile of the kernels, software, parts of the quantity); raises ChipmeshError as the work's run does."""
    if isinstance(work, KernelWork):
        chip, asked = work.asked()
        return chip.kernels.name, "ideal", (Makeup(((_kernel(chip, asked), 1.0),)),)
    terms = work.terms()[quantity]
    kernels = terms[0][1].runs()[0][1].system.chip.kernels.name
    chips = work.layout.n_ranks if software_named(work.software).one_host else 1
    parts = (_scaled(_of_step(step), weight, stalls, chips) for weight, step, stalls in terms)
    return kernels, work.software, tuple(parts)


@cache
def _of_step(step: Step) -> Makeup:
    kernels: defaultdict[Kernel, float] = defaultdict(float)
    rest = NOTHING
    for weight, cluster, job in step.runs():
        one = _of_run(cluster, job, software_named(step.machine[2]))
        for kernel, count in one.kernels:
            kernels[kernel] += weight * count
        rest = rest.plus(one.rest.times(weight))
    return Makeup(tuple(kernels.items()), rest)


def _of_run(cluster: Cluster, job: DecodeJob, software: SoftwareSpec) -> Makeup:
    """Return what a run of one step is the sum of."""
    machine = Machine(cluster.system, cluster.topology, "shapes", lambda _call: AUTO, {})
    layout, host = job.layout, Host()
    ranks = [layout.on_stage(layout.ranks[0], stage) for stage in range(layout.pp)]
    chips = [SimChip(rank, max(layout.ranks) + 1, machine, host, lambda *_: None) for rank in ranks]
    host.run({chip.rank: partial(_to_the_end, chip, job) for chip in chips})
    kernels: Counter[Kernel] = Counter()
    spent_s = calls = steps = 0.0
    for chip in chips:
        for number in chip.trace.numbers:
            record = machine.table.records[number]
            spent_s += record.duration_ps * 1e-12 if isinstance(record, Compute) else 0
            calls += isinstance(record, Collective | Send)
            steps += isinstance(record, Compute) and record.bound == "pause"
            if number in machine.works and record.duration_ps:  # not a part of another kernel
                kernels[_kernel(chip.spec, machine.works[number])] += 1
    rows = steps * len(job.prompt_lengths) / layout.n_replicas
    hosted, started = (layout.n_replicas, layout.n_ranks) if software.one_host else (1, 1)
    spent_s += calls * (software.call_ps + software.dispatch_ps * started) * 1e-12
    rest_s = total_s(cluster, job) - spent_s
    return Makeup(tuple(kernels.items()), Rest(steps * hosted, rows, calls, rest_s))


async def _to_the_end(chip: Any, job: DecodeJob) -> None:
    await decode(chip, job)
    chip.close()


def _kernel(chip: ChipSpec, work: Work) -> Kernel:
    flops = work_flops(chip, work)
    compute_s = flops / peak_flops(chip, work.dtype) if flops else 0.0
    memory_s = sum(stream_s(chip, tier, size) for tier, size in ((0, work.activation_bytes), *work.tensor_bytes))
    whole = chip.kernels.kinds.get(work.kind, ROOFLINE).stream == 1
    return Kernel(work.kind, compute_s, memory_s, 0 if whole else work.streams, bool(work.rounded_bytes))


def _scaled(one: Makeup, weight: float, stalls: bool, chips: int) -> Makeup:
    kernels = tuple((kernel, weight * count) for kernel, count in one.kernels)
    return Makeup(kernels, one.rest.times(weight), stalls, chips)
