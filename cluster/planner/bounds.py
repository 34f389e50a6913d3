"""What no run of a layout can beat: lower bounds of TTFT and TPOT, from what one chip of every stage must do.

A row's token passes all pipeline stages, one after the other. On the chip of each stage that it passes, its kernels run
one after the other, and what blocks the chip takes at least the time in which the chip's own data leaves it:

    collective, send ≥ launch + hop + own bytes / (bandwidth of all links of a chip)

hop is the least latency between two chips. Waiting, contention, further steps of the algorithm and what others send
are left out. A step of a row takes at least the sum over the stages; with micro-batches also as long as the last stage
needs for all parts, since a chip works on one at a time and takes them strictly in turn.

Kernels are those of the program itself, run without data on one chip per stage: there is no second formula for them.
Where experts are drawn, every step draws anew, and where they have copies, more rows may mean fewer tokens for those
of one chip: so what the experts' kernels take is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from attrs import evolve, frozen

from cluster.backends.base import Setting, run_host
from cluster.host import Host
from cluster.planner.space import Candidate
from cluster.records import Collective, Compute, Mark, Record, Send
from configs.algorithm_names import AUTO
from configs.spec.experiment import Contention
from configs.spec.system import SystemSpec
from topology import Topology
from workloads.decode import DecodeJob, decode

OF_EXPERTS = ("to_ranks", "from_ranks", "to_experts", "from_experts", "experts_gate_up", "experts_down")
"""How the names of the kernels begin that work on the tokens of experts; activations that gate, too, end in `_mul`."""
ROUNDED_PS = 1000
"""What rounding the times of the pieces of a message to the clock may take off, at half a picosecond each."""
SLACK = 1 - 1e-9
"""Rates and times are floating-point numbers; the run's own may be off in their last digits."""


@frozen
class Least:
    """The least time of a stage or of all stages, in ps; kernels by what bounds them."""

    compute_ps: float = 0.0
    memory_ps: float = 0.0
    communication_ps: float = 0.0

    @property
    def total_ps(self) -> float:
        """All together."""
        return self.compute_ps + self.memory_ps + self.communication_ps

    def __add__(self, other: Least) -> Least:
        return Least(
            self.compute_ps + other.compute_ps,
            self.memory_ps + other.memory_ps,
            self.communication_ps + other.communication_ps,
        )


@frozen
class Bound:
    """The least times of some rows that go through the stages together: prefill, a step, a step on the last stage.

    last_stage_ps leaves messages out: with micro-batches they go on beside.
    """

    prefill: Least
    step: Least
    last_stage_ps: float

    def ttft_s(self) -> float:
        """Return what the time to the first token is at least."""
        return self.prefill.total_ps * 1e-12 * SLACK

    def tpot_s(self, n_parts: int) -> float:
        """Return what the time per further token is at least, with so many parts of the rows."""
        return max(self.step.total_ps, n_parts * self.last_stage_ps) * 1e-12 * SLACK


def bound_of(system: SystemSpec, topology: Topology, contention: Contention, job: DecodeJob) -> Bound:
    """Return the bound of one replica, without micro-batches; all its chips are of one kind."""
    job = evolve(job, micro_batches=1, new_tokens=2, stops=())
    layout, floor = job.layout, _Floor.of(system, topology, contention)
    ranks = [layout.on_stage(layout.ranks[0], stage) for stage in range(layout.pp)]
    setting = Setting(system, max(layout.ranks) + 1, "shapes", contention)
    done = run_host(setting, ranks, Host(), decode, (job,), lambda *_: None, lambda _call: AUTO)
    traces = {trace.rank: [done.records[number] for number in trace.numbers] for trace in done.traces}
    stages = [list(_steps(traces[rank], last=rank == ranks[-1])) for rank in ranks]
    if job.skew is not None or layout.redundant_experts:
        stages = [[[record for record in step if not _is_of_experts(record)] for step in steps] for steps in stages]
    prefill, step = (sum((floor.sum(stage[i]) for stage in stages), Least()) for i in (0, 1))
    own = [record for record in stages[-1][1] if not isinstance(record, Send)]
    return Bound(prefill, step, floor.sum(own).total_ps)


def least_score(objective: str, candidate: Candidate, bound: Bound, usd_per_chip_s: float) -> float:
    """Return what a candidate's score (`search.score_of`: less is better) is at least."""
    tpot_s = bound.tpot_s(candidate.micro_batches)
    if objective == "tpot":
        return tpot_s
    tokens_per_s = candidate.batch / tpot_s if tpot_s else float("inf")
    if objective == "throughput":
        return -tokens_per_s
    return 1e6 * candidate.n_ranks * usd_per_chip_s / tokens_per_s


def _is_of_experts(record: Record) -> bool:
    """Return whether an operation's time may follow from which experts tokens go to."""
    return isinstance(record, Compute) and (record.name.startswith(OF_EXPERTS) or record.name.endswith("_mul"))


def _steps(records: Sequence[Record], *, last: bool) -> Iterator[list[Record]]:
    """Yield the operations of the prefill and of the step after it.

    A step ends with the stage's send, on the last stage with its tokens; ids that go back belong to the next step.
    """
    ends = [i for i, record in enumerate(records) if isinstance(record, Mark if last else Send)]
    ends = [i for i in ends if not last or getattr(records[i], "name", "") == "tokens"]
    yield list(records[: ends[0] + 1])
    yield list(records[ends[0] + 1 : ends[1] + 1])


@frozen
class _Floor:
    """The least times of operations on a system."""

    launch_ps: int
    hop_ps: int
    bytes_per_ps: float

    @classmethod
    def of(cls, system: SystemSpec, topology: Topology, contention: Contention) -> _Floor:
        """Return those of a system: its shortest way between two chips, and the chip with the most bandwidth.

        Without contention every transfer has its links to itself, and only latencies count.
        """
        if not len(topology.link_src):
            return cls(system.communication.call_ps, 0, np.inf)
        least_ps = int(topology.link_latency_ps.min())
        direct = bool(((topology.link_src < topology.n_chips) & (topology.link_dst < topology.n_chips)).any())
        leaving = np.bincount(topology.link_src, topology.link_bandwidth_bytes_per_s, topology.n_nodes)
        rate = float(leaving[: topology.n_chips].max()) * 1e-12 if contention == "fluid" else np.inf
        return cls(system.communication.call_ps, least_ps if direct else 2 * least_ps, rate)

    def sum(self, records: Sequence[Record]) -> Least:
        """Return the least time of operations of one chip, one after the other."""
        compute_ps = memory_ps = communication_ps = 0.0
        for record in records:
            match record:
                case Compute(duration_ps=duration_ps, bound="memory"):
                    memory_ps += duration_ps
                case Compute(duration_ps=duration_ps):
                    compute_ps += duration_ps
                case Collective():
                    communication_ps += self.launch_ps + self._leave_ps(record)
                case Send(size_bytes=size_bytes):
                    communication_ps += self.launch_ps + self._transfers_ps(size_bytes)
        return Least(compute_ps, memory_ps, communication_ps)

    def _leave_ps(self, call: Collective) -> float:
        """Return the least time in which the part of a chip's input leaves it that others need."""
        n, item = len(call.ranks), call.dtype.itemsize
        kept = {"all_reduce": 0, "all_gather": 0, "reduce_scatter": -(-call.n_elements // n),
                "all_to_all": -(-call.n_elements // n)}  # fmt: skip
        if n == 1 or call.op not in kept:
            return 0.0
        return self._transfers_ps((call.n_elements - kept[call.op]) * item)

    def _transfers_ps(self, size_bytes: int) -> float:
        """Return the least time in which bytes leave; they may be cut into pieces, whose times the clock rounds."""
        return self.hop_ps + max(0.0, size_bytes / self.bytes_per_ps - ROUNDED_PS)
