"""Energy and cost of generated tokens, from what chips draw and what they cost (docs/energy.md has the definitions).

Both are of the time between the first and the last token of every replica, as `tokens_per_s` is. Where the energy of
operations is known, it is counted; else idle power and the limit are weighed by the time in kernels; else the limit is
taken for all of the time, an upper bound. What is unknown is None, and a note says what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from cluster.records import Collective, Compute, Record, Send
from cluster.timeline.expand import distinct, expand
from cluster.timeline.timeline import Timeline
from collectives import GroupView
from collectives import build as build_schedule
from configs.dtypes import DTYPES
from configs.spec.chip import ChipSpec
from configs.spec.cost import CostSpec
from configs.spec.provenance import Confidence

Method = Literal["operations", "busy", "limit"]
CONFIDENCES: tuple[Confidence, ...] = get_args(Confidence)
HOUR_S, YEAR_S, KWH_J = 3600.0, 365.25 * 86400, 3.6e6
PICO = 1e-12


@frozen
class Span:
    """The chips of a replica, and from when to when they generate so many tokens."""

    ranks: tuple[int, ...]
    begin_ps: int
    end_ps: int
    n_tokens: int

    @property
    def length_s(self) -> float:
        """How long it is."""
        return (self.end_ps - self.begin_ps) * PICO


@frozen
class Energy:
    """Joules per token and how they were found; the parts add up to the whole.

    method: operations, busy, or limit: an upper bound.  confidence: of the least sure figure.
    """

    energy_j_per_token: float | None = None
    method: Method | None = None
    confidence: Confidence | None = None
    parts_j_per_token: Mapping[str, float] = field(factory=dict)
    notes: tuple[str, ...] = ()


@frozen
class Cost:
    """Dollars per million tokens, for the chips and their electricity; None where the experiment says no prices."""

    cost_usd_per_million_tokens: float | None = None
    parts_usd_per_million_tokens: Mapping[str, float] = field(factory=dict)
    notes: tuple[str, ...] = ()


@frozen(eq=False)
class _Ran:
    """What ran on the chips of one kind within the spans: how often per second, and for which share of the time.

    For every operation of these chips: its chip and record, runs_per_s, share.
    """

    spec: ChipSpec
    timeline: Timeline
    n_chips: int
    chip: NDArray[np.int32]
    record: NDArray[np.int32]
    runs_per_s: NDArray[np.float64]
    share: NDArray[np.float64]

    @classmethod
    def of(cls, spec: ChipSpec, timeline: Timeline, spans: Sequence[Span]) -> _Ran:
        """Return what ran on chips of this kind; `spans` have those alone."""
        ranks = np.array([rank for span in spans for rank in span.ranks], np.int64)
        begin, end = np.zeros(int(ranks.max()) + 1, np.int64), np.zeros(int(ranks.max()) + 1, np.int64)
        for span in spans:
            begin[list(span.ranks)], end[list(span.ranks)] = span.begin_ps, span.end_ps
        here = np.isin(timeline.chip, ranks)
        chip, start, stop = timeline.chip[here], timeline.start_ps[here], timeline.end_ps[here]
        within = np.clip(np.minimum(stop, end[chip]) - np.maximum(start, begin[chip]), 0, None)
        at_once = (begin[chip] <= start) & (start < end[chip])
        part = np.where(stop > start, within / np.maximum(stop - start, 1), at_once)
        length = (end - begin)[chip]
        return cls(
            spec, timeline, len(ranks), chip, timeline.record[here], part / (length * PICO), within / length
        )  # fmt: skip

    def kernels(self) -> Iterator[tuple[Compute, float, float]]:
        """Yield (kernel, runs per second, share of the time), added up over the chips."""
        runs_per_s, share = np.bincount(self.record, self.runs_per_s), np.bincount(self.record, self.share)
        for number in np.unique(self.record).tolist():
            record = self.timeline.records[number]
            if isinstance(record, Compute) and record.bound != "pause":
                yield record, float(runs_per_s[number]), float(share[number])

    def messages(self) -> Iterator[tuple[Record, int, float]]:
        """Yield (send or collective, chip, runs per second)."""
        talks = np.array([isinstance(record, Collective | Send) for record in self.timeline.records], np.bool_)
        at = np.flatnonzero(talks[self.record])
        n_records = len(self.timeline.records)
        keys, place = np.unique(self.chip[at].astype(np.int64) * n_records + self.record[at], return_inverse=True)
        for key, runs_per_s in zip(keys.tolist(), np.bincount(place, self.runs_per_s[at]).tolist(), strict=True):
            yield self.timeline.records[key % n_records], key // n_records, runs_per_s

    def figures(self) -> Iterator[tuple[str, float | None]]:
        """Yield the figures that counting operations takes, by their keys; None where one is unknown."""
        chip, tiers = self.spec, dict[int, None]()
        yield "idle_power", chip.idle_power_w
        for record, _, _ in self.kernels():
            if record.flops:
                rate = _rate(chip, record.dtype)
                yield f"energy_per_flop.{rate}", chip.energy_per_flop_pj.get(rate)
            tiers |= {tier: None for tier, size_bytes in enumerate(record.moved_bytes) if size_bytes}
        yield from ((f"memory[{tier}].energy_per_byte", chip.memory[tier].energy_per_byte_pj) for tier in tiers)
        if any(True for _ in self.messages()):
            yield "energy_per_link_bit", chip.energy_per_link_bit_pj

    @property
    def counts(self) -> bool:
        """Whether operations can be counted: of nearer memories and links alone the energy may be unknown."""
        far = f"memory[{len(self.spec.memory) - 1}].energy_per_byte"
        needed = ("idle_power", "energy_per_flop", far)
        return not any(key.startswith(needed) and value is None for key, value in self.figures())

    def powers_w(self, method: Method) -> dict[str, float]:
        """Return the mean power of these chips together, by what it is for."""
        chip, n = self.spec, self.n_chips
        limit_w, idle_w = chip.power_w or 0.0, chip.idle_power_w or 0.0
        if method == "limit":
            return {"limit": n * limit_w}
        if method == "busy":
            return {"idle": n * idle_w, "kernels": (limit_w - idle_w) * sum(share for _, _, share in self.kernels())}
        compute_w = memory_w = 0.0
        for record, runs_per_s, _ in self.kernels():
            per_flop_pj = chip.energy_per_flop_pj.get(_rate(chip, record.dtype), 0.0)
            moved = zip(record.moved_bytes, chip.memory, strict=False)
            compute_w += runs_per_s * record.flops * per_flop_pj * PICO
            memory_w += runs_per_s * sum(size * (tier.energy_per_byte_pj or 0.0) for size, tier in moved) * PICO
        return {"idle": n * idle_w, "compute": compute_w, "memory": memory_w, "links": self._links_w()}

    def _links_w(self) -> float:
        """Return the power of messages: of a collective, every member has its share of all transfers."""
        per_bit_pj, known, power_w = self.spec.energy_per_link_bit_pj, dict[object, float](), 0.0
        if per_bit_pj is None:
            return 0.0
        for record, chip, runs_per_s in self.messages():
            key = (record, chip) if isinstance(record, Send) else record
            if key not in known:
                known[key] = _link_bytes(self.timeline, record, chip)
            power_w += runs_per_s * known[key] * 8 * per_bit_pj * PICO
        return power_w


def energy_of(timeline: Timeline, chips: Sequence[ChipSpec], spans: Sequence[Span]) -> Energy:
    """Return the energy per token of spans of a run; chips: of every rank.

    The power of all chips over the rate of all replicas: Σ (E / t) / Σ (tokens / t).
    """
    kinds = []
    for spec in {chips[rank].name: chips[rank] for span in spans for rank in span.ranks}.values():
        own = [(span, tuple(rank for rank in span.ranks if chips[rank].name == spec.name)) for span in spans]
        cut = [Span(ranks, span.begin_ps, span.end_ps, span.n_tokens) for span, ranks in own if ranks]
        kinds.append(_Ran.of(spec, timeline, cut))
    method = _method(kinds)
    if method is None:
        unknown = [kind.spec.name for kind in kinds if kind.spec.power_w is None]
        how = "is unknown, so energy is, too; give it with --set system.chip.power=…W"
        return Energy(notes=tuple(f"{name}: its power {how}" for name in unknown))
    parts: dict[str, float] = {}
    tokens_per_s = sum(span.n_tokens / span.length_s for span in spans)
    for kind in kinds:
        for name, power_w in kind.powers_w(method).items():
            parts[name] = parts.get(name, 0.0) + power_w / tokens_per_s
    notes = [note for kind in kinds for note in _notes(kind, method)]
    return Energy(sum(parts.values()), method, _confidence(kinds, method), parts, tuple(notes))


def cost_of(cost: CostSpec | None, energy: Energy, chips: Sequence[ChipSpec], tokens_per_s: float) -> Cost:
    """Return the cost of tokens that the chips in use generate together at a rate.

    Chips: rent, or price / years, over rate and utilisation. Electricity: the energy of the tokens, and what the chips
    draw while they generate none (idle power, the limit if that is unknown), times pue.
    """
    if cost is None:
        return Cost()
    rent = cost.price_per_chip_hour_usd
    usd_per_s = rent / HOUR_S if rent is not None else (cost.price_usd or 0) / ((cost.years or 1) * YEAR_S)
    parts = {"chips": 1e6 * len(chips) * usd_per_s / (tokens_per_s * cost.utilisation)}
    if cost.electricity_per_kwh_usd is not None:
        if energy.energy_j_per_token is None:
            return Cost(notes=("cost: electricity has a price and the energy is unknown, so the cost is, too",))
        idle_w = sum((chip.power_w or 0.0) if chip.idle_power_w is None else chip.idle_power_w for chip in chips)
        idle_j = (1 / cost.utilisation - 1) * idle_w / tokens_per_s
        usd_per_j = cost.electricity_per_kwh_usd / KWH_J * cost.pue
        parts["electricity"] = 1e6 * (energy.energy_j_per_token + idle_j) * usd_per_j
    return Cost(sum(parts.values()), parts)


def _method(kinds: Sequence[_Ran]) -> Method | None:
    """Return how energy is found: the first method that all kinds of chips have the figures for."""
    if all(kind.counts for kind in kinds):
        return "operations"
    if any(kind.spec.power_w is None for kind in kinds):
        return None
    return "limit" if any(kind.spec.idle_power_w is None for kind in kinds) else "busy"


def _confidence(kinds: Sequence[_Ran], method: Method) -> Confidence:
    """Return that of the least sure figure; a figure that is given by hand is an estimate."""
    if method != "operations":
        return "estimate"
    figures = ((kind.spec.provenance, key) for kind in kinds for key, value in kind.figures() if value is not None)
    found = (provenance[key].confidence if key in provenance else "estimate" for provenance, key in figures)
    return max(found, key=CONFIDENCES.index)


def _notes(kind: _Ran, method: Method) -> Iterator[str]:
    """Say what the energy is, and what it leaves out."""
    chip = kind.spec
    if method == "limit":
        yield (
            f"{chip.name}: energy is an upper bound (estimate), {chip.power_w:g} W at all times; "
            "with --set system.chip.idle_power=…W it follows the time in kernels"
        )
    if method == "busy":
        yield f"{chip.name}: energy is an estimate, {chip.power_w:g} W in kernels and {chip.idle_power_w:g} W otherwise"
    if method == "operations":
        unknown = dict.fromkeys(key for key, value in kind.figures() if value is None)
        yield from (f"{chip.name}: {key} is unknown; that energy is not counted" for key in unknown)


def _rate(chip: ChipSpec, dtype: str) -> str:
    """Return the format whose energy a dtype's operations take: the first of its rates that has a known one."""
    rates = DTYPES[dtype].rates if dtype in DTYPES else (dtype,)
    return next((rate for rate in rates if rate in chip.energy_per_flop_pj), rates[0])


def _link_bytes(timeline: Timeline, record: Record, chip: int) -> float:
    """Return Σ bytes x links of a chip's message, or of its share of a collective."""
    inputs = timeline.inputs
    if isinstance(record, Send):
        owner, peer = np.array([chip], np.int32), np.array([record.dst], np.int32)
        size_bytes, n_members = np.array([float(record.size_bytes)]), 1
    else:
        assert isinstance(record, Collective)
        view = GroupView(inputs.topology, record.ranks)
        schedule = build_schedule(record.op, record.algorithm, view, record.detail, inputs.files)
        template = expand(record, schedule, inputs.system.communication, inputs.topology)
        owner, peer, size_bytes, n_members = template.owner, template.peer, template.size_bytes, len(record.ranks)
    sent, n_nodes = peer >= 0, inputs.topology.n_nodes
    pairs, number = distinct(owner[sent].astype(np.int64) * n_nodes + peer[sent], n_nodes**2)
    routes = inputs.topology.routes(*np.divmod(pairs, n_nodes))
    n_links = np.diff(np.concatenate([[0.0], np.cumsum(routes.weights)])[routes.start])
    return float((size_bytes[sent] * n_links[number]).sum()) / n_members
