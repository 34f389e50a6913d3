"""What must hold between the fields of a spec: each rule yields (keys, message) for what does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from configs.algorithm_names import Offered, algorithm_problem
from configs.errors import ConfigError
from configs.problems import Keys, unknown
from configs.spec.chip import ChipSpec
from configs.spec.cost import CostSpec
from configs.spec.experiment import ExperimentSpec
from configs.spec.model import WeightsSpec
from configs.spec.parallel import PlacementSpec
from configs.spec.system import SystemSpec
from configs.spec.workload import MOST_CHARACTERS, SamplingSpec, WorkloadSpec

if TYPE_CHECKING:
    from configs.structure import Rule

Broken = Iterator[tuple[Keys, str]]


def chip_rule(chip: ChipSpec) -> Broken:
    """A chip has memory whose tiers can be told apart, and its links add up."""
    if not chip.memory:
        yield ("memory",), "is empty; accepted: at least one memory tier"
    names = [tier.name for tier in chip.memory]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield ("memory", i, "name"), f"{name!r} is the name of another tier; accepted: a name of its own"
    if None not in (chip.power_w, chip.idle_power_w) and (chip.idle_power_w or 0) > (chip.power_w or 0):
        yield ("idle_power",), f"{chip.idle_power_w:g} W is above power, {chip.power_w:g} W; accepted: at most power"
    for i, links in enumerate(chip.links):
        if None not in (links.count, links.bandwidth_bytes_per_s, links.total_bytes_per_s):
            yield ("links", i, "total"), "is count times bandwidth; accepted: nothing, where both are known"


def cost_rule(cost: CostSpec) -> Broken:
    """Chips are rented or bought, and what belongs to the other is not given."""
    if (cost.price_per_chip_hour_usd is None) == (cost.price_usd is None):
        given = "neither" if cost.price_usd is None else "both"
        yield (), f"{given} given; accepted: exactly one of price_per_chip_hour and price (of a chip)"
        return
    if cost.price_usd is not None and cost.years is None:
        yield ("years",), "missing; price is written off over them; accepted: a number > 0"
    if cost.price_usd is None:
        if cost.years is not None:
            yield ("years",), "is for chips that are bought; accepted: nothing, or price in place of the rent"
        if cost.electricity_per_kwh_usd is not None:
            yield ("electricity_per_kwh",), "is in the rent; accepted: nothing, or price in place of the rent"
    if cost.pue != 1 and cost.electricity_per_kwh_usd is None:
        yield ("pue",), f"{cost.pue:g} multiplies what electricity costs; accepted: together with electricity_per_kwh"


def system_rule(system: SystemSpec) -> Broken:
    """The routing fits the topology."""
    fitting = system.topology.routings
    if system.routing.kind not in fitting:
        why = "does not fit this kind of topology"
        yield ("routing", "kind"), f"{system.routing.kind!r} {why}; accepted: {', '.join(fitting)}"


def workload_rule(workload: WorkloadSpec) -> Broken:
    """There is one prompt, it is not empty, and it fits the batch."""
    prompts = {
        "prompt": workload.prompt,
        "prompt_ids": workload.prompt_ids,
        "prompt_tokens": workload.prompt_tokens,
    }
    given = [name for name, value in prompts.items() if value is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        yield (), f"{found} given; accepted: exactly one of prompt, prompt_ids, prompt_tokens"
    if workload.chat and workload.prompt is None:
        yield ("chat",), "is for a prompt in words; accepted: false, or prompt in place of its ids or length"
    if workload.prompt is not None and not workload.prompt:
        yield ("prompt",), "is empty; accepted: text of at least one character"
    if workload.prompt is not None and len(workload.prompt) > MOST_CHARACTERS:
        yield ("prompt",), f"has {len(workload.prompt)} characters; accepted: at most {MOST_CHARACTERS}"
    if workload.prompt_ids is not None:
        yield from _prompt_ids_rule(workload.prompt_ids, workload.batch)


def _prompt_ids_rule(rows: tuple[tuple[int, ...], ...], batch: int) -> Broken:
    if not rows:
        yield ("prompt_ids",), "is empty; accepted: one list of token ids per sequence"
    for i, row in enumerate(rows):
        if not row:
            yield ("prompt_ids", i), "is empty; accepted: at least one token id"
    if len(rows) > 1 and len(rows) != batch:
        yield ("batch",), f"{batch} does not match the {len(rows)} rows of prompt_ids; accepted: {len(rows)}"


def placement_rule(placement: PlacementSpec) -> Broken:
    """Axes are named where there is no word."""
    if (placement.kind == "axes") != bool(placement.axes):
        yield ("axes",), "is for a placement along axes, which needs it; accepted: {tp: [y], …}, or identity, or auto"


def sampling_rule(sampling: SamplingSpec) -> Broken:
    """A kind has the parameters that it needs, and no others."""
    takes = {"greedy": (), "temperature": (), "top_k": ("k",), "top_p": ("p", "k")}[sampling.kind]
    for name in ("k", "p"):
        given = getattr(sampling, name) is not None
        if given and name not in takes:
            yield (name,), f"is not for kind {sampling.kind}; accepted: nothing"
        if not given and takes[:1] == (name,):
            yield (name,), f"missing; kind {sampling.kind} needs it"


def weights_rule(weights: WeightsSpec) -> Broken:
    """Weights are in a file or in a package."""
    if (weights.path is None) == (weights.package is None):
        given = "neither" if weights.path is None else "both"
        yield (), f"{given} given; accepted: exactly one of path and package"
    if (weights.package is None) != (weights.file is None):
        yield (), "one of package and file is missing; accepted: both or neither"


def experiment_rule(experiment: ExperimentSpec) -> Broken:
    """Checkpoints are for runs that go on from them."""
    if experiment.checkpoint_every is not None and experiment.on_failure == "fail":
        yield ("checkpoint_every",), "is for on_failure: restart; accepted: nothing"


RULES: Mapping[type, Rule] = {
    ChipSpec: chip_rule,
    CostSpec: cost_rule,
    SystemSpec: system_rule,
    WorkloadSpec: workload_rule,
    PlacementSpec: placement_rule,
    SamplingSpec: sampling_rule,
    WeightsSpec: weights_rule,
    ExperimentSpec: experiment_rule,
}


def check_experiment(spec: ExperimentSpec, n_chips: int) -> None:
    """Raise a ConfigError unless the degrees of parallelism fit the batch and a system of so many chips."""
    degrees, batch, problems = spec.parallel, spec.workload.batch, []
    if degrees.n_ranks > n_chips:
        used = ((name, getattr(degrees, name)) for name in ("tp", "pp", "dp", "ep", "cp"))
        shape = " * ".join(f"{name} {n}" for name, n in used if n > 1)
        limit = f"at most {n_chips}, what {spec.system.name} has"
        problems.append(f"parallel: {shape} = {degrees.n_ranks} chips; accepted: {limit}")
    if degrees.dp > batch:
        problems.append(f"parallel.dp: {degrees.dp} replicas for a batch of {batch}; accepted: at most {batch}")
    if problems:
        raise ConfigError(tuple(f"experiment {spec.name}: {problem}" for problem in problems))


def collectives_rule(collectives: Mapping[str, Any], algorithms: Mapping[str, Offered]) -> Broken:
    """Every operation is known, and its algorithm is too (or `auto`, or an MSCCL XML file)."""
    for operation, name in collectives.items():
        if operation not in algorithms:
            yield (operation,), unknown(operation, "a collective", tuple(algorithms))
            continue
        problem = algorithm_problem(name, operation, algorithms[operation]) if isinstance(name, str) else None
        if problem is not None:
            yield (operation,), problem
