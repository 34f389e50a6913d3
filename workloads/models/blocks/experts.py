"""A mixture of experts in place of a feed-forward block, its experts spread over the expert-parallel group.

Every token goes to the ranks that hold one of its experts, once to each (all_to_all_v), is worked on there by all of
its experts on that rank, and comes back as one weighted sum (all_to_all_v). How many rows go from whom to whom is
gathered first. The rows of every expert are split over the tensor-parallel group, whose sum completes them. Shared
experts see all tokens where they are.

Neutral names: router [experts, hidden], router_bias [experts], experts.E.{gate,up,down}, shared.{gate,up,down}.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from attrs import evolve, field, frozen

from collectives import Rows
from workloads.array import Array, ShapeArray, zeros
from workloads.chip import Chip, Group, Tensor
from workloads.elementwise import Add, GatedActivation
from workloads.experts import ExpertMatmul, FromExperts, FromRanks, Route, ToExperts, ToRanks, chosen_experts, unpack
from workloads.kernels import Matmul
from workloads.models.blocks.feed_forward import FeedForward
from workloads.models.blocks.site import Peers, Plan, RunningBlock, Site
from workloads.rounding import INT32
from workloads.routing import Choice, Traffic, balanced_traffic, copies, drawn_traffic, rank_masks
from workloads.shards import Part, ShardSpec

ROUTER = Matmul("router_matmul")
ADD = Add("add_shared")


@frozen
class Experts:
    """`n_experts` gated feed-forward blocks of `ffn` rows each; every token uses those that `route` chooses."""

    on_grid: ClassVar[bool] = False

    layer: int
    hidden: int
    ffn: int
    n_experts: int
    route: Route
    router_bias: bool = False
    activation: str = "silu"
    shared: FeedForward | None = None

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every stored matrix."""
        found: dict[str, tuple[int, ...]] = {"router": (self.n_experts, self.hidden)}
        if self.router_bias:
            found["router_bias"] = (self.n_experts,)
        for e in range(self.n_experts):
            found |= {f"experts.{e}.{name}": (self.ffn, self.hidden) for name in ("gate", "up")}
            found[f"experts.{e}.down"] = (self.hidden, self.ffn)
        shared = self.shared.tensors() if self.shared else {}
        return found | {f"shared.{name}": shape for name, shape in shared.items()}

    def shards(self, plan: Plan) -> tuple[ShardSpec, ...]:
        """Return the router, whole, and the own rows of the own experts."""
        n_redundant = plan.layout.redundant_experts
        own, experts, hidden = plan.share(self.ffn), plan.experts(self.n_experts + n_redundant), self.hidden
        found = [plan.weights("router", (self.n_experts, hidden))]
        if self.router_bias:
            found.append(plan.weights("router_bias", (self.n_experts,)))
        if experts:
            held = copies(self.n_experts, n_redundant)[experts.start : experts.stop]
            up, down = _parts(held, own)
            found.append(plan.of_feed_forward.weights("experts_gate_up", (len(experts) * 2 * len(own), hidden), *up))
            found.append(plan.of_feed_forward.weights("experts_down", (len(experts) * hidden, len(own)), *down))
        shared = self.shared.shards(plan.under(f"{plan.prefix}shared.")) if self.shared else ()
        return (*found, *shared)

    def traffic(self, peers: Peers, step: int, n_redundant: int) -> Traffic:
        """Return what the routing of a step would mean, without values."""
        route = self.route
        choice = Choice(self.n_experts, route.k, route.n_groups, route.n_groups_kept, n_redundant)
        if peers.skew is None:
            return balanced_traffic(peers.tokens(step), choice)
        return drawn_traffic(peers.seed, peers.skew, self.layer, step, peers.tokens(step), choice, peers.part)

    def start(self, site: Site) -> RunningExperts:
        """Return the block on one rank."""
        shared = self.shared.start(site.under(f"{site.prefix}shared.")) if self.shared else None
        group = site.layout.ep_group(site.chip.rank)
        n_redundant = site.layout.redundant_experts
        n_slots = self.n_experts + n_redundant
        return RunningExperts(
            self, site, site.chip.group(group.name, group.ranks) if len(group) > 1 else None,
            n_slots, evolve(self.route, n_redundant=n_redundant), site.experts(n_slots),
            site.tensors("router"), site.tensors("router_bias"),
            site.tensors("experts_gate_up"), site.tensors("experts_down"), shared,
        )  # fmt: skip


@lru_cache(maxsize=64)  # models have many experts, in layers that are alike
def _parts(held: tuple[int, ...], own: range) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Return the own rows of the gates and of what goes up of these experts, and what goes down."""
    up = tuple(Part(f"experts.{e}.{name}", own) for e in held for name in ("gate", "up"))
    return up, tuple(Part(f"experts.{e}.down", None, own) for e in held)


@frozen(eq=False)
class RunningExperts:
    """The block on one rank."""

    block: Experts
    site: Site
    group: Group | None
    n_slots: int
    route: Route
    experts: range
    router: tuple[Tensor, ...]
    bias: tuple[Tensor, ...]
    gate_up: tuple[Tensor, ...]
    down: tuple[Tensor, ...]
    shared: RunningBlock | None
    _steps: Iterator[int] = field(init=False)
    """Without values, every call may draw anew."""

    @_steps.default
    def _count_steps(self) -> Iterator[int]:
        return itertools.count(self.site.peers.first_step)

    async def __call__(self, x: Array, starts: tuple[int, ...]) -> Array:
        """Return this rank's part of the block's output, to be summed over the tensor-parallel group."""
        apply = self.chip.apply
        routing = apply(self.route, apply(ROUTER, x, *self.router, keep_fp32=True), *self.bias)
        rows, loads = await self._plan(routing)
        if self.group is None:
            y = self._experts(x, routing, loads)
        else:
            n_ranks, index = len(self.group), self.group.ranks.index(self.chip.rank)
            there = apply(ToRanks(self.n_slots, n_ranks), x, routing, n_rows=rows.sent[index])
            theirs, their_routing = unpack(await self.chip.all_to_all_v(there, rows, self.group), x, routing)
            done = self._experts(theirs, their_routing, self._own_loads(their_routing) if self.chip.real else loads)
            back = await self.chip.all_to_all_v(done, rows.transposed, self.group)
            y = apply(FromRanks(self.n_slots, n_ranks), back, routing)
        return y if self.shared is None else apply(ADD, y, await self.shared(x, starts))

    @property
    def chip(self) -> Chip:
        """The chip."""
        return self.site.chip

    def _experts(self, x: Array, routing: Array, loads: tuple[int, ...]) -> Array:
        """Return what the own experts make of their tokens, weighted and summed, [n, hidden]."""
        apply, first = self.chip.apply, self.experts.start
        if not sum(loads):
            return self._zeros(x)
        z = apply(ToExperts(first), x, routing, loads=loads)
        gate_up, down = (
            ExpertMatmul(label, self.site.of_feed_forward.inputs) for label in ("experts_gate_up", "experts_down")
        )
        z = apply(GatedActivation(self.block.activation), apply(gate_up, z, *self.gate_up, loads=loads))
        return apply(FromExperts(first), apply(down, z, *self.down, loads=loads), routing, loads=loads)

    def _zeros(self, x: Array) -> Array:
        return zeros(x.shape, x.dtype, real=self.chip.real)

    async def _plan(self, routing: Array) -> tuple[Rows, tuple[int, ...]]:
        """Return who sends how many rows to whom, and the loads of the own experts where they are known by now."""
        if not self.chip.real:
            n_redundant = self.site.layout.redundant_experts
            traffic = self.block.traffic(self.site.peers, next(self._steps), n_redundant)
            if self.group is not None:
                await self.chip.all_gather(ShapeArray((len(self.group),), INT32), self.group)
            return traffic.rows, traffic.loads[self.experts.start : self.experts.stop]
        if self.group is None:
            return Rows(), self._own_loads(routing)
        goes = rank_masks(chosen_experts(routing), self.n_slots, len(self.group))
        gathered: Any = await self.chip.all_gather(goes.sum(axis=0).astype(np.int32), self.group)
        return Rows(map(tuple, gathered.reshape(len(self.group), -1).tolist())), ()

    def _own_loads(self, routing: Any) -> tuple[int, ...]:
        counts = np.bincount(chosen_experts(routing).ravel(), minlength=self.n_slots)
        return tuple(counts[self.experts.start : self.experts.stop].tolist())
