"""OCS: a slice of a superpod whose cubes are joined by optical circuit switches."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from attrs import field, frozen

from configs.errors import ConfigError
from configs.fields import at_least
from configs.spec.topology import LinkSpec, RoutingSpec
from topology.checks import link_problems, reject
from topology.graph import Topology
from topology.grid import build_grid, grid_problems
from topology.ocs import Rewiring, Superpod, SuperpodPlan, parse_shape
from topology.routing import ON_ANY_GRAPH
from topology.twist import standard_twist

SLICE = "slice"


@frozen
class CubeFailure:
    """A cube that fails when so many tokens have been generated."""

    cube: int = field(metadata=at_least(0))
    after_token: int = field(metadata=at_least(1))


@frozen
class Ocs:
    """A slice of a superpod of `cubes` (see `topology.ocs`): a torus, twisted or not, or a mesh smaller than a cube.

    failed_cubes: allocated around, without any time.
    failures: cubes that fail in mid-run. Each is replaced by a spare and its circuits are rewired, which takes
    `reconfiguration` for all chips; the slice is the same torus after that.

    >>> ici = LinkSpec(45e9, latency_ps=1_000_000)
    >>> twisted = Ocs(cubes=64, slice="4x4x8", link=ici, twist=True).build(RoutingSpec())
    >>> twisted.n_chips, twisted.n_links, twisted.wraps
    (128, 384, (False, False, True))
    """

    routings: ClassVar[tuple[str, ...]] = ON_ANY_GRAPH

    cubes: int
    slice: str | tuple[int, ...]
    link: LinkSpec
    cube: tuple[int, ...] = (4, 4, 4)
    twist: bool = False
    switch_ports: int | None = None
    reconfiguration_ps: int | None = field(default=None, metadata=at_least(0))
    failed_cubes: tuple[int, ...] = ()
    failures: tuple[CubeFailure, ...] = ()
    axes: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        reject([*self.plan.problems(), *link_problems(self.link)])
        reject(self.plan.slice_problems(self.dims, twist=self.twist))
        reject(grid_problems(self.dims, self.axes, self.link))
        if self.failures and self.reconfiguration_ps is None:
            reject(["reconfiguration: missing, and cubes fail in mid-run; accepted: a time such as 10s"])
        self.rewirings()

    @property
    def plan(self) -> SuperpodPlan:
        """What the superpod is made of."""
        return SuperpodPlan(self.cubes, self.cube, self.switch_ports)

    @property
    def dims(self) -> tuple[int, ...]:
        """The slice's sides."""
        return parse_shape(self.slice)

    def superpod(self) -> Superpod:
        """Return the superpod with this one slice allocated; raise ConfigError where it does not fit."""
        pod = Superpod(self.plan)
        for i, cube in enumerate(self.failed_cubes):
            pod = _failed(pod, cube, f"failed_cubes[{i}]")[0]
        return pod.allocate(SLICE, self.dims, twist=self.twist)

    def rewirings(self) -> list[Rewiring]:
        """Return what each failure in mid-run rewires, in the order of their tokens."""
        pod, found = self.superpod(), []
        for i, failure in sorted(enumerate(self.failures), key=lambda item: item[1].after_token):
            cubes = pod.slice(SLICE).cubes
            if failure.cube not in cubes:
                accepted = f"one of the slice's, which are then {', '.join(map(str, cubes[:16]))}"
                raise ConfigError((f"failures[{i}].cube: {failure.cube}; accepted: {accepted}",))
            pod, rewiring = _failed(pod, failure.cube, f"failures[{i}].cube")
            found.append(rewiring)
        return found

    def stops(self) -> tuple[tuple[int, int], ...]:
        """Return after how many tokens all chips stop to be rewired, and for how many picoseconds, in order."""
        tokens = sorted({failure.after_token for failure in self.failures})
        return tuple((after, self.reconfiguration_ps or 0) for after in tokens)

    def report(self) -> dict[str, Any]:
        """Return what the slice takes of the superpod, as plain data.

        wrap: for every axis, whether it closes to a ring, "shifted" if only with a shift along others, or false.
        ports: the most that the slice uses of any switch.
        """
        pod = self.superpod()
        circuits, part = pod.slice_circuits(SLICE), pod.slice(SLICE)
        topology = self.build(RoutingSpec())
        wrap = (
            "shifted" if topology.twist and any(topology.twist[k]) else not self.plan.is_small(self.dims)
            for k in range(len(self.dims))
        )
        failures = sorted(self.failures, key=lambda failure: failure.after_token)
        return {
            "slice": self.dims,
            "twist": self.twist,
            "cube": self.cube,
            "cubes": part.cubes,
            "n_cubes": self.cubes,
            "n_free_cubes": len(pod.free_cubes),
            "failed_cubes": sorted(pod.failed),
            "n_switches": self.plan.n_switches,
            "switch_ports": self.switch_ports,
            "n_circuits": len(circuits),
            "ports_used_per_switch": 2 * int(np.bincount(circuits[:, 0]).max(initial=0)),
            "wrap": dict(zip(topology.axes, wrap, strict=True)),
            "reconfiguration_s": None if self.reconfiguration_ps is None else self.reconfiguration_ps * 1e-12,
            "failures": [
                {"cube": r.failed, "after_token": f.after_token, "spare": r.spare, "circuits_removed": r.n_removed,
                 "circuits_added": r.n_added}
                for f, r in zip(failures, self.rewirings(), strict=True)
            ],
        }  # fmt: skip

    def build(self, routing: RoutingSpec) -> Topology:
        """Return the slice's chips and links as `topology.grid` numbers them; the switches are part of the links."""
        small = self.plan.is_small(self.dims)
        return build_grid(
            "ocs",
            dims=self.dims,
            axes=self.axes,
            wraps=(not small,) * len(self.dims),
            link=self.link,
            routing=routing,
            twist=(standard_twist(self.dims) or ()) if self.twist else (),
        )


def _failed(pod: Superpod, cube: int, key: str) -> tuple[Superpod, Rewiring]:
    try:
        return pod.fail_cube(cube)
    except ConfigError as error:
        raise ConfigError(tuple(f"{key}: {problem}" for problem in error.problems)) from None
