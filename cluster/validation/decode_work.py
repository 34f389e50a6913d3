"""What decode rows are predicted by: runs without data of single steps, put together as the row was measured.

A decode step at a given context begins after a prefill that took no time (`DecodeJob.first_step`). Its time is
linear in the number of layers that are alike, so a model that is not cut into stages runs with few of them, twice:

    t(L) = t(a) + (L - a) / (b - a) · (t(b) - t(a))

serving:  a fixed number of requests; each time one ends, another one's prefill holds up those that decode:
          TPOT = step(rows, ISL + OSL / 2) + stall · (rows - 1) / OSL · prefill(1, ISL), rows those whose cache fits.
batch:    one batch as a whole: E2E = prefill(rows, ISL) + (OSL - 1) · step(rows, ISL + OSL / 2), in as many waves as
          its cache needs.
step:     one step of all rows at a context of ISL tokens, or of ISL + OSL / 2 where an output is generated.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal, cast

from attrs import evolve, frozen

from cluster.serving import host_ps, served
from cluster.session import Cluster, launch
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError
from configs.loader import load_model, load_software, load_system
from configs.spec.dtype import DtypeSpec
from configs.spec.model import ModelSpec
from configs.spec.software import SoftwareSpec
from topology import chips_of
from workloads.decode import DecodeJob, check_job, decode, plan_rank
from workloads.layout import Layout
from workloads.models.blocks.experts import Experts
from workloads.models.decoder import DecoderShape
from workloads.roles import DecodeRoles

Method = Literal["serving", "batch", "step"]

EXPERT_SKEW = 0.3
"""How unevenly experts are chosen in decode rows: docs/fidelity.md says what it was derived from."""
CACHE_SHARE = 0.9
"""The fraction of the memory that serving software fills with weights and cache, vLLM's and TensorRT-LLM's default."""
LAYERS_ALIKE = 1
"""How many rounds of layers that are alike the shallower run has, and the deeper one has more."""


@frozen
class DecodeWork:
    """A model on so many chips of a system under serving software; lengths in tokens, `rows` of the whole batch.

    communication, software: the names of their profiles, or `ideal`.
    """

    system: str
    communication: str
    software: str
    model: str
    layout: Layout
    dtype: DtypeSpec
    rows: int
    input_len: int
    output_len: int
    method: Method

    @property
    def place(self) -> Hashable:
        """Works on one system share its topology and its choices of algorithms."""
        return self.system

    def run(self) -> Mapping[str, float]:
        """Return tpot_s, and e2e_s of a batch."""
        self._check_weights()
        stall = software_named(self.software).stall
        return {
            quantity: sum(weight * (stall if stalls else 1) * step.time_s() for weight, step, stalls in terms)
            for quantity, terms in self.terms().items()
        }

    def terms(self) -> Mapping[str, tuple[tuple[float, Step, bool], ...]]:
        """Return what every quantity is the sum of: so many times a step, and whether decoding rows stall in it."""
        context, n_replicas = self.input_len + self.output_len // 2, self.layout.n_replicas
        rows = min(self.rows, self._rows_that_fit(context)) if self.method == "serving" else self.rows
        step = (1.0, self._step(rows, context, first_step=1), False)
        if self.method == "step":
            return {"tpot_s": (step,)}
        if self.method == "batch":
            return {"tpot_s": (step,), "e2e_s": tuple(self._waves())}
        waiting = max(rows / n_replicas - 1, 0) / self.output_len
        return {"tpot_s": (step, (waiting, self._step(n_replicas, self.input_len, first_step=0), True))}

    def _waves(self) -> Iterator[tuple[float, Step, bool]]:
        """Yield the terms of a batch: as many rows at a time as the memory has room for at their longest."""
        most = self._rows_that_fit(self.input_len + self.output_len)
        for rows, count in ((most, self.rows // most), (self.rows % most, 1)):
            if rows and count:
                yield float(count), self._step(rows, self.input_len, first_step=0), False
                context = self.input_len + self.output_len // 2
                yield count * (self.output_len - 1.0), self._step(rows, context, first_step=1), False

    def _step(self, rows: int, context: int, *, first_step: int) -> Step:
        machine = self.system, self.communication, self.software
        return Step(machine, self.model, self.layout, self.dtype, rows, context, first_step)

    def _check_weights(self) -> None:
        """Raise ConfigError if no chip could hold its share of the weights: then the formats are not those measured."""
        capacity = self._capacity_bytes()
        weights, _ = _sizes(self.model, self.layout, self.dtype, self.input_len)
        if capacity is not None and weights > capacity:
            sizes = f"{weights / 1e9:.1f} GB of weights in {self.dtype.weights} on a chip of {capacity / 1e9:.1f} GB"
            accepted = "more chips, or the weights_dtype that was measured"
            raise ConfigError((f"{self.model}: {sizes}; accepted: {accepted}",))

    def _capacity_bytes(self) -> int | None:
        cluster = _cluster((self.system, self.communication, self.software), self.layout.n_ranks)
        return chips_of(cluster.system, cluster.topology)[0].memory[-1].capacity_bytes

    def _rows_that_fit(self, context: int) -> int:
        """Return how many rows of this context the fullest chip has room for beside its weights, at least one each."""
        capacity = self._capacity_bytes()
        if capacity is None:
            return self.rows
        weights, caches = _sizes(self.model, self.layout, self.dtype, context)
        fitting = int((capacity * CACHE_SHARE - weights) / caches) if caches else self.rows
        if fitting < 1:
            raise ConfigError((f"{self.model}: no row of {context} tokens fits beside {weights / 1e9:.1f} GB",))
        return fitting * self.layout.n_replicas


@lru_cache(maxsize=1024)
def _sizes(model: str, layout: Layout, dtype: DtypeSpec, context: int) -> tuple[int, int]:
    """Return the bytes of the first rank's weights, and of its cache per row."""
    shards = plan_rank(_job(_model(model, context + 1), layout, dtype, layout.n_replicas, context, 1), 0)
    weights = sum(shard.size_bytes for shard in shards if shard.role != "kv")
    return weights, sum(shard.size_bytes for shard in shards) - weights


@frozen
class Step:
    """A prefill (first step 0) of so many rows, or a decode step after it; machine: system, communication, software."""

    machine: tuple[str, str, str]
    model: str
    layout: Layout
    dtype: DtypeSpec
    rows: int
    context: int
    first_step: int

    def time_s(self) -> float:
        """Return how long it takes."""
        return sum(weight * total_s(cluster, job) for weight, cluster, job in self.runs())

    def runs(self) -> tuple[tuple[float, Cluster, DecodeJob], ...]:
        """Return the runs whose weighted sum is the step: of few layers and of more, unless stages cut the model."""
        spec, software = _model(self.model, self.context + self.first_step + 1), software_named(self.machine[2])
        cluster = _cluster(self.machine, self.layout.n_ranks)
        job = _job(spec, self.layout, self.dtype, self.rows, self.context, self.first_step + 1)
        step_ps, row_ps = host_ps(software, self.layout.n_replicas)
        job = evolve(job, first_step=self.first_step, step_ps=step_ps, row_ps=row_ps)
        if self.first_step == 0:  # many tokens use every expert, whoever they prefer
            job = evolve(job, skew=None)
        check_job(job)
        shape = cast("DecoderShape", spec.shape)
        few, more = fewer_layers(shape)
        if self.layout.pp > 1 or more >= shape.n_layers:
            return ((1.0, cluster, job),)
        beyond = (shape.n_layers - few) / (more - few)
        shallow, deep = (evolve(job, model=evolve(spec, shape=evolve(shape, n_layers=n))) for n in (few, more))
        return (1 - beyond, cluster, shallow), (beyond, cluster, deep)


@lru_cache(maxsize=8192)
def total_s(cluster: Cluster, job: DecodeJob) -> float:
    """Return the time of a run without data."""
    return cluster.run(decode, job, roles=DecodeRoles(job)).time_s


def fewer_layers(shape: DecoderShape) -> tuple[int, int]:
    """Return two numbers of layers whose difference is whole rounds of the sorts of layers that repeat to the end."""
    sorts = [_sort(shape, i) for i in range(shape.n_layers)]
    first, period = next(
        (first, period)
        for period in range(1, shape.n_layers + 1)
        for first in range(shape.n_layers - period + 1)
        if all(sorts[i] == sorts[i + period] for i in range(first, shape.n_layers - period))
        and first + 2 * LAYERS_ALIKE * period <= max(shape.n_layers, first + 2 * period)
    )
    few = first + (shape.n_layers - first) % period + LAYERS_ALIKE * period
    return few, few + LAYERS_ALIKE * period


def _sort(shape: DecoderShape, index: int) -> Any:
    layer = shape.layer(index)
    experts = layer.feed_forward
    return evolve(layer, feed_forward=evolve(experts, layer=0)) if isinstance(experts, Experts) else layer


def _job(model: ModelSpec, layout: Layout, dtype: DtypeSpec, rows: int, context: int, new_tokens: int) -> DecodeJob:
    has_experts = hasattr(model.shape, "n_experts")
    # a decode step in an expert-parallel group draws for every rank: even shares let ranks that are alike run once
    skew = EXPERT_SKEW if has_experts and layout.ep == 1 else None
    return DecodeJob(model, layout, dtype, (context,) * rows, new_tokens, skew=skew)


@lru_cache(maxsize=1024)
def _model(name: str, context: int) -> ModelSpec:
    """Return a model that takes contexts so long: a benchmark may go beyond what it was trained for."""
    spec = load_model(name, [], VOCABULARY)
    shape = cast("DecoderShape", spec.shape)
    return spec if shape.max_context >= context else evolve(spec, shape=evolve(shape, max_context=context))


@lru_cache(maxsize=64)
def software_named(name: str) -> SoftwareSpec:
    """Return the serving software of the catalogue, or `ideal`."""
    return SoftwareSpec() if name == SoftwareSpec().name else load_software(name)


@lru_cache(maxsize=16)
def _cluster(machine: tuple[str, str, str], n_chips: int) -> Cluster:
    system, communication, software = machine
    spec = served(
        load_system(system, [f"communication={communication}"], VOCABULARY), software_named(software), n_chips
    )
    return launch(spec, n_chips=n_chips, numerics="shapes")
