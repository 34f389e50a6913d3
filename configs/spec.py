"""Frozen specifications: what the files of the catalogue become.

Plain numbers, the unit in the name. Where a figure comes from is kept beside it in `provenance`, keyed by the
figure's path in the file (``peak.bf16``, ``memory[1].bandwidth``).

Files write an attribute without its unit: `kernel_launch_ps` is the key ``kernel_launch`` (`configs.fields`).
Attributes with `eq=False` are for people, or say how a run is carried out: no result depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, get_args

from attrs import field, frozen

from configs.algorithm_names import base_name, split_name
from configs.dtypes import DTYPES, RATED_DTYPES
from configs.errors import ConfigError
from configs.fields import above, at_least, between, keys_of, one_of
from configs.problems import unknown

Confidence = Literal["vendor", "measured", "secondary", "estimate"]
Numerics = Literal["real", "shapes"]
Contention = Literal["fluid", "none"]
OnFailure = Literal["fail", "restart"]
Status = Literal["shipping", "legacy", "internal", "announced", "claimed"]

MOST_LINKS = 10_000  # parallel links of one edge
MOST_ROWS = 100_000  # sequences in a batch
MOST_CHARACTERS = 1_000_000  # in a prompt


@frozen
class Provenance:
    """Where a figure comes from and how sure it is."""

    source: str
    confidence: Confidence


@frozen
class MemoryTier:
    """One level of a chip's memory; what is unknown is None. Traffic at an unknown bandwidth is not charged."""

    name: str
    capacity_bytes: int | None = field(default=None, metadata=above(0))
    bandwidth_bytes_per_s: float | None = None
    efficiency: float = field(default=1.0, metadata=above(0, 1))
    energy_per_byte_pj: float | None = None


KernelKind = Literal[
    "matmul", "experts", "attention", "norm", "residual", "activation", "rope", "route", "permute", "lookup", "sample",
    "elementwise",
]  # fmt: skip
"""Sorts of kernels: products with stored matrices, with those of experts, attention over the cache, normalisation,
sums of residuals, activation functions, rotation of queries and keys with the cache's update, choice of experts, copies
to and from experts, copies of rows, choice of tokens; elementwise is any other."""


@frozen
class KernelSpec:
    """What one kind of kernel reaches: start + max(flops / (peak × compute), bytes / (bandwidth × memory)).

    start_ps: from the end of the kernel before it to its streaming at full rate: launch, ramp and drain.
    compute, memory: the fraction of the peak and of the memory's bandwidth that long kernels reach.
    stream: the most that one part of the traffic reaches of the bandwidth: of a row's keys and values of one head.
    fused: it is part of the kernel before or after it, and takes no time of its own.
    """

    start_ps: int = field(default=0, metadata=at_least(0))
    compute: float = field(default=1.0, metadata=above(0, 1))
    memory: float = field(default=1.0, metadata=above(0, 1))
    stream: float = field(default=1.0, metadata=above(0, 1))
    fused: bool = False


@frozen
class KernelsSpec:
    """What the kernels of a chip's libraries reach, by kind; a kind that is not listed reaches the roofline.

    rounding_ps: what rounding its activations to a narrower format adds to a product.
    """

    name: str = "ideal"
    kinds: Mapping[str, KernelSpec] = field(factory=dict, metadata=keys_of(get_args(KernelKind)))
    rounding_ps: int = field(default=0, metadata=at_least(0))
    description: str = field(default="", eq=False)
    provenance: Mapping[str, Provenance] = field(factory=dict, eq=False)


@frozen
class ChipLinks:
    """A chip's links of one sort, as its data sheet has them: bandwidths per direction; what is unknown is None.

    `total_bytes_per_s` is for sheets that give no more than the sum.
    """

    name: str
    count: int | None = field(default=None, metadata=between(1, MOST_LINKS))
    bandwidth_bytes_per_s: float | None = None
    total_bytes_per_s: float | None = None

    @property
    def sum_bytes_per_s(self) -> float | None:
        """Return what all links carry per direction, or None.

        >>> ChipLinks("NVLink4", count=18, bandwidth_bytes_per_s=25e9).sum_bytes_per_s
        450000000000.0
        """
        if self.total_bytes_per_s is not None or self.count is None or self.bandwidth_bytes_per_s is None:
            return self.total_bytes_per_s
        return self.count * self.bandwidth_bytes_per_s


@frozen
class ChipSpec:
    """A chip: dense peak FLOPS per dtype, matrix tile (m, k, n), memory tiers, the nearest first.

    kernel_launch_ps is added to every kernel; none takes less than kernel_floor_ps, in which the next one is started.
    devices: how many accelerators software sees in it. measured_flops: the best matrix product that was measured.
    power_w: the most that it draws; idle_power_w: what it draws doing nothing. energy_per_flop_pj, by dtype, and
    energy_per_link_bit_pj, of a bit over one link, both ends together, come on top of that (docs/energy.md).
    """

    name: str
    peak_flops: Mapping[str, float] = field(metadata=keys_of(RATED_DTYPES))
    memory: tuple[MemoryTier, ...]
    matrix_tile: tuple[int, int, int] = field(default=(1, 1, 1), metadata=at_least(1))
    kernel_launch_ps: int = 0
    kernel_floor_ps: int = 0
    kernels: KernelsSpec = KernelsSpec()
    power_w: float | None = None
    idle_power_w: float | None = None
    energy_per_flop_pj: Mapping[str, float] = field(factory=dict, metadata=keys_of(RATED_DTYPES))
    energy_per_link_bit_pj: float | None = None
    vendor: str = field(default="", eq=False)
    description: str = field(default="", eq=False)
    status: Status = field(default="shipping", eq=False)
    process: str = field(default="", eq=False)
    devices: int = field(default=1, eq=False, metadata=at_least(1))
    measured_flops: Mapping[str, float] = field(factory=dict, eq=False, metadata=keys_of(RATED_DTYPES))
    links: tuple[ChipLinks, ...] = field(default=(), eq=False)
    price_usd: float | None = field(default=None, eq=False)
    notes: str = field(default="", eq=False)
    provenance: Mapping[str, Provenance] = field(factory=dict, eq=False)


@frozen
class LinkSpec:
    """An edge: `count` parallel links, each of this bandwidth per direction."""

    bandwidth_bytes_per_s: float
    latency_ps: int
    count: int = field(default=1, metadata=between(1, MOST_LINKS))


@frozen
class RoutingSpec:
    """How a transfer finds its way (docs/topologies.md has the table of kinds and routings).

    ties: which of two equally short ways round a ring.
    spread: which of several equal paths: by destination modulo their number, or by a hash of (source, destination).
    planes: behind switch planes, a transfer is split over all of them, or goes over one that its pair chooses.
    """

    kind: Literal["dimension_order", "shortest", "ecmp", "up_down", "minimal", "valiant"] = "dimension_order"
    ties: Literal["positive", "alternate"] = "positive"
    spread: Literal["modulo", "hash"] = "modulo"
    planes: Literal["split", "hash"] = "split"


@frozen
class ProtocolSpec:
    """One way in which a library carries out schedules; `auto` takes the fastest pair of algorithm and protocol.

    algorithms: what it serves, as `auto` names them. operations: of those only these; empty: all.
    base_ps: once per call, on every rank. step_ps, network_step_ps: before every message, inside a node and between
    nodes (`topology.Topology.domain_of_chip`). message_ps: a rank's messages of one step leave so far apart.
    payload, network_payload: the fraction of the bytes on a wire that is data, inside a node and between nodes.
    min_ranks, max_ranks, max_size_bytes (of a rank's input): the library's own limits.
    """

    algorithms: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    base_ps: int = 0
    step_ps: int = 0
    network_step_ps: int = 0
    message_ps: int = 0
    payload: float = field(default=1.0, metadata=above(0, 1))
    network_payload: float = field(default=1.0, metadata=above(0, 1))
    min_ranks: int = field(default=2, metadata=at_least(2))
    max_ranks: int | None = field(default=None, metadata=at_least(2))
    max_size_bytes: int | None = field(default=None, metadata=at_least(0))

    def serves(self, op: str, n_ranks: int, size_bytes: float) -> bool:
        """Tell whether the library uses it for such a call."""
        return (
            (not self.operations or op in self.operations)
            and self.min_ranks <= n_ranks <= (self.max_ranks or n_ranks)
            and size_bytes <= (self.max_size_bytes if self.max_size_bytes is not None else size_bytes)
        )


NO_PROTOCOL = ProtocolSpec()


@frozen
class CommunicationSpec:
    """What the communication library adds to the links; `ideal` is all zeros and the whole link.

    launch_ps: once per collective or point-to-point call, on every rank.
    launches_ps: further ones by the way in which a program launches it; `mode` is the way, without one there is none.
    step_ps: once per step of a schedule, on every rank.
    link_efficiency: the fraction of every link's bandwidth that carries payload.
    in_network_min_ranks: `auto` lets switches add only for groups of at least so many ranks.
    protocols: the ways in which schedules are carried out, None for one that is left out; a schedule that none of them
    serves takes the figures above.
    """

    launch_ps: int = 0
    launches_ps: Mapping[str, int] = field(factory=dict)
    mode: str | None = None
    step_ps: int = 0
    link_efficiency: float = field(default=1.0, metadata=above(0, 1))
    in_network_min_ranks: int = field(default=2, metadata=at_least(2))
    protocols: Mapping[str, ProtocolSpec | None] = field(factory=dict)
    name: str = field(default="", eq=False)
    description: str = field(default="", eq=False)
    provenance: Mapping[str, Provenance] = field(factory=dict, eq=False)

    def __attrs_post_init__(self) -> None:
        if self.mode is not None and self.mode not in self.launches_ps:
            raise ConfigError((f"mode: {unknown(self.mode, 'a way of launching', tuple(self.launches_ps))}",))

    @property
    def call_ps(self) -> int:
        """What the launch of a call costs."""
        return self.launch_ps + (self.launches_ps[self.mode] if self.mode is not None else 0)

    @property
    def used_protocols(self) -> dict[str, ProtocolSpec]:
        """The protocols that are not left out, by name."""
        return {name: protocol for name, protocol in sorted(self.protocols.items()) if protocol is not None}

    def protocol_of(self, op: str, algorithm: str, n_ranks: int, size_bytes: float) -> ProtocolSpec:
        """Return the protocol that an algorithm's name says (`ring:protocol=LL`), or the first by name that serves it.

        Raises ConfigError for a protocol that there is not.
        """
        name, parameters = split_name(algorithm)
        said = parameters.get("protocol")
        if said is not None:
            if said not in self.used_protocols:
                names = tuple(self.used_protocols)
                raise ConfigError((f"{algorithm}: {unknown(said, 'a protocol of this system', names)}",))
            return self.used_protocols[str(said)]
        for protocol in self.used_protocols.values():
            if name in map(base_name, protocol.algorithms) and protocol.serves(op, n_ranks, size_bytes):
                return protocol
        return NO_PROTOCOL


@frozen
class LinkFault:
    """Dead links between two neighbours, as `chip3-chip4`: so many of the parallel ones, by default all."""

    link: str
    count: int | None = field(default=None, metadata=between(1, MOST_LINKS))

    @classmethod
    def of(cls, given: str | tuple[int, int] | LinkFault) -> LinkFault:
        """Return a fault that is written as a name or a pair of chips.

        >>> LinkFault.of((3, 4))
        LinkFault(link='chip3-chip4', count=None)
        """
        if isinstance(given, LinkFault):
            return given
        return cls(given if isinstance(given, str) else "-".join(f"chip{chip}" for chip in given))


@frozen
class FaultsSpec:
    """What is dead: links by the names of their ends (two numbers for two chips), chips and switches by number."""

    links: tuple[str | tuple[int, int] | LinkFault, ...] = ()
    chips: tuple[int, ...] = field(default=(), metadata=at_least(0))
    switches: tuple[int, ...] = field(default=(), metadata=at_least(0))


class TopologySpec(Protocol):
    """The parameters of one kind of topology (a frozen class in topology/kinds); it can build itself.

    routings: the kinds of routing that fit it.
    """

    routings: ClassVar[tuple[str, ...]]

    def build(self, routing: RoutingSpec) -> Any:
        """Return the `topology.Topology` that these parameters describe."""


@frozen
class SystemSpec:
    """Chips joined by a topology, and what the communication library adds."""

    name: str
    chip: ChipSpec
    topology: TopologySpec
    routing: RoutingSpec = RoutingSpec()
    communication: CommunicationSpec = CommunicationSpec()
    faults: FaultsSpec = FaultsSpec()
    description: str = field(default="", eq=False)
    provenance: Mapping[str, Provenance] = field(factory=dict, eq=False)


@frozen
class WeightsSpec:
    """Where a model's weights are: a file, or a file in an installed package (located, never imported)."""

    path: str | None = None
    package: str | None = None
    file: str | None = None
    requirement: str | None = None


@frozen
class ModelSpec:
    """A model: its family, the family's own frozen shape (a class of workloads/models), its weights."""

    name: str
    family: str
    shape: Any
    weights: WeightsSpec | None = None
    provenance: Mapping[str, Provenance] = field(factory=dict, eq=False)


@frozen
class ParallelSpec:
    """Degrees of parallelism; their product is the number of chips in use.

    sequence: between the blocks of a layer, the ranks that share matrices have a share of the tokens each.
    tp_grid: x, y with x · y = tp: matrices are cut into x parts along the hidden size and y along the other side.
    tp_attention: on a grid, whether the ranks split attention by heads or by rows of the batch.
    """

    tp: int = field(default=1, metadata=at_least(1))
    pp: int = field(default=1, metadata=at_least(1))
    dp: int = field(default=1, metadata=at_least(1))
    ep: int = field(default=1, metadata=at_least(1))
    cp: int = field(default=1, metadata=at_least(1))
    sequence: bool = False
    tp_grid: tuple[int, int] | None = field(default=None, metadata=at_least(1))
    tp_attention: Literal["heads", "batch"] = "heads"

    @property
    def n_ranks(self) -> int:
        """Number of chips in use."""
        return self.tp * self.pp * self.dp * self.ep * self.cp


@frozen
class PlacementSpec:
    """Which chip every rank is: the one of the same number, the fastest of several orders, or along named axes.

    axes: for tp, ep, cp, pp, dp, the axes of the topology that they go along, the last one fastest.
    """

    kind: Literal["identity", "auto", "axes"] = "axes"
    axes: Mapping[str, tuple[str, ...]] = field(factory=dict, metadata=keys_of(("tp", "ep", "cp", "pp", "dp")))


IDENTITY = PlacementSpec("identity")
AUTO = PlacementSpec("auto")


@frozen
class ExpertsSpec:
    """How a mixture of experts is run.

    redundant: copies of experts beyond the first, spread evenly over the experts; tokens take turns at the copies.
    skew: without values, how unevenly experts are drawn: the e-th most popular one ∝ e^-skew (0: all alike). None draws
    nothing: every expert gets equally many tokens.
    """

    redundant: int = field(default=0, metadata=at_least(0))
    skew: float | None = field(default=None, metadata=between(0, 10))


@frozen
class DtypeSpec:
    """Number formats of the weights, the KV cache and the activations.

    feed_forward, feed_forward_activations: within feed-forward blocks and experts; head: of the embedding and the head;
    None: as the others.
    """

    weights: str = field(default="bf16", metadata=one_of(DTYPES))
    kv: str = field(default="bf16", metadata=one_of(DTYPES))
    activations: str = field(default="bf16", metadata=one_of(DTYPES))
    feed_forward: str | None = field(default=None, metadata=one_of(DTYPES))
    feed_forward_activations: str | None = field(default=None, metadata=one_of(DTYPES))
    head: str | None = field(default=None, metadata=one_of(DTYPES))

    @property
    def of_feed_forward(self) -> DtypeSpec:
        """The formats within feed-forward blocks and experts."""
        return DtypeSpec(self.feed_forward or self.weights, self.kv, self.feed_forward_activations or self.activations)

    @property
    def of_head(self) -> DtypeSpec:
        """The formats of the embedding and the head; inputs are not rounded for a head of its own format."""
        if self.head is None:
            return self
        return DtypeSpec(self.head, self.kv, DTYPES[self.activations].carrier)


@frozen
class TiersSpec:
    """The memory tier of the weights and of the KV cache, by name; by default the farthest."""

    weights: str | None = None
    kv: str | None = None

    def of(self, role: str) -> str | None:
        """Return the tier of what has a role: weights or kv."""
        return self.kv if role == "kv" else self.weights


@frozen
class SamplingSpec:
    """How the next token is chosen: the best, or drawn from softmax(logits / temperature).

    top_k: among the k best.  top_p: among the fewest that add up to the probability p; with a k, of the k best.
    """

    kind: Literal["greedy", "temperature", "top_k", "top_p"] = "greedy"
    temperature: float = field(default=1.0, metadata=above(0))
    k: int | None = field(default=None, metadata=at_least(1))
    p: float | None = field(default=None, metadata=above(0, 1))
    seed: int = field(default=0, metadata=between(0, 2**63))


@frozen
class WorkloadSpec:
    """What is asked of the model: one of prompt, prompt_ids and prompt_tokens (a seeded random prompt).

    A loaded `prompt_ids` has one row per sequence of the batch. stop_ids: tokens at which a row's ids and text are cut;
    the run goes on to `new_tokens`, since simulated time may not depend on values.
    """

    kind: Literal["decode"] = "decode"
    batch: int = field(default=1, metadata=between(1, MOST_ROWS))
    new_tokens: int = field(default=32, metadata=at_least(1))
    prompt: str | None = None
    prompt_ids: tuple[tuple[int, ...], ...] | None = field(default=None, metadata=at_least(0))
    prompt_tokens: int | None = field(default=None, metadata=at_least(1))
    chat: bool = False
    sampling: SamplingSpec = SamplingSpec()
    stop_ids: tuple[int, ...] = field(default=(), metadata=at_least(0))


@frozen
class CostSpec:
    """What a chip costs: rented by the hour, or bought and written off over some years with the electricity it draws.

    utilisation: the fraction of the time in which the chips generate tokens at the rate of the run.
    electricity_per_kwh_usd: of what the chips draw, times `pue` (power usage effectiveness) for what is around them.
    """

    price_per_chip_hour_usd: float | None = None
    price_usd: float | None = None
    years: float | None = field(default=None, metadata=above(0, 100))
    electricity_per_kwh_usd: float | None = None
    pue: float = field(default=1.0, metadata=between(1, 10))
    utilisation: float = field(default=1.0, metadata=above(0, 1))


@frozen
class SoftwareSpec:
    """What the serving software adds to every step and call; `ideal` adds nothing.

    step_ps, row_ps: the chips wait for the host so long before every step, and for every row of it: what of scheduling,
    sampling and handing out tokens does not go on beside the chips' work.
    kernel_ps, call_ps: more time between kernels, and before collectives, than the libraries' own.
    stall: the fraction of a prefill's time for which rows that are decoding stand still, where both share the chips.
    dispatch_ps: what the host takes to start a kernel where no graph or trace does it: none takes less on the chip.
    one_host: one process starts the kernels of all chips, and the steps of all replicas, in turn.
    kernels: profiles of kernels that it has in place of a chip's: {amd-cdna3: amd-cdna3-2024}.
    """

    name: str = "ideal"
    step_ps: int = field(default=0, metadata=at_least(0))
    row_ps: int = field(default=0, metadata=at_least(0))
    kernel_ps: int = field(default=0, metadata=at_least(0))
    call_ps: int = field(default=0, metadata=at_least(0))
    stall: float = field(default=1.0, metadata=between(0, 1))
    dispatch_ps: int = field(default=0, metadata=at_least(0))
    one_host: bool = False
    kernels: Mapping[str, str] = field(factory=dict)
    description: str = field(default="", eq=False)
    provenance: Mapping[str, Provenance] = field(factory=dict, eq=False)


@frozen
class ExperimentSpec:
    """Everything that decides a run; two equal specs give the same tokens and the same timeline.

    micro_batches: parts of a replica's rows that take turns on its chips; `overlap: true` is short for (at least) two.
    on_failure: whether a run on Ray goes on when a process is lost; checkpoint_every: from a step of so many, or else
    from its start. They decide no result.
    """

    name: str
    system: SystemSpec
    model: ModelSpec
    workload: WorkloadSpec
    parallel: ParallelSpec = ParallelSpec()
    placement: PlacementSpec = IDENTITY
    experts: ExpertsSpec = ExpertsSpec()
    numerics: Numerics = "real"
    dtype: DtypeSpec = DtypeSpec()
    tiers: TiersSpec = TiersSpec()
    software: SoftwareSpec = SoftwareSpec()
    collectives: Mapping[str, str] = field(factory=dict)
    contention: Contention = "fluid"
    overlap: bool = False
    micro_batches: int = field(default=1, metadata=between(1, MOST_ROWS))
    seed: int = field(default=0, metadata=at_least(0))
    cost: CostSpec | None = None
    on_failure: OnFailure = field(default="fail", eq=False)
    checkpoint_every: int | None = field(default=None, eq=False, metadata=at_least(1))
    description: str = field(default="", eq=False)

    @property
    def n_parts(self) -> int:
        """How many parts of the rows take turns."""
        return max(self.micro_batches, 2 if self.overlap else 1)
