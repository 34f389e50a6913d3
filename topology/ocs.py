"""Optical circuit switching: a superpod of cubes, slices of it, and the circuits that join their faces.

A cube is an electrical mesh; each chip on a face has an optical link there. Switch (axis, position) has the links of
that position on both faces of that axis of all cubes: port 2c is the far (upper) face of cube c, port 2c + 1 the near
one. A circuit joins the far face of a cube to the near face of the next one along the axis, or, at the end of a slice,
to that of the first: so slices are tori (twisted ones if cubes of other rows are joined), wherever their cubes stand.

State goes in and comes out: a `Superpod` never changes.

>>> pod = Superpod(SuperpodPlan(n_cubes=64)).allocate("mine", (4, 4, 8), twist=True)
>>> pod.slice("mine").cubes, len(pod.slice_circuits("mine")), len(pod.free_cubes)
((0, 1), 96, 62)
>>> mended, rewiring = pod.fail_cube(1)
>>> mended.slice("mine").cubes, rewiring.spare, rewiring.n_removed
((0, 2), 2, 96)
"""

from __future__ import annotations

import math
import re

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from configs.errors import ConfigError
from topology.checks import MAX_CHIPS
from topology.twist import standard_twist

SMALL_SLICES = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
"""Slices that are smaller than a cube of 4x4x4: docs.cloud.google.com/tpu/docs/v4, v5p and tpu7x."""

LEAST_SIDE = 3  # of a cube: across a side of 2, a circuit would double the electrical link


def shape_name(dims: tuple[int, ...]) -> str:
    """Write a shape.

    >>> shape_name((4, 4, 8))
    '4x4x8'
    """
    return "x".join(map(str, dims))


def parse_shape(given: str | tuple[int, ...]) -> tuple[int, ...]:
    """Return the sides of a shape such as 4x4x8, or (4, 4, 8) as they are; raise ConfigError for what is none.

    >>> parse_shape("4x4x8")
    (4, 4, 8)
    """
    if not isinstance(given, str):
        return tuple(given)
    if not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5}){0,7}", given):
        raise ConfigError((f"slice: {given[:60]!r} is not a shape; accepted: sides such as 4x4x8",))
    return tuple(map(int, given.split("x")))


@frozen
class SuperpodPlan:
    """What a superpod is made of; `switch_ports` is None where it is not known."""

    n_cubes: int
    cube: tuple[int, ...] = (4, 4, 4)
    switch_ports: int | None = None

    def positions(self, axis: int) -> int:
        """Return the optical links of one face across an axis: so many switches does the axis have."""
        return math.prod(self.cube) // self.cube[axis]

    @property
    def n_switches(self) -> int:
        """Number of optical circuit switches: one for each axis and position."""
        return sum(self.positions(axis) for axis in range(len(self.cube)))

    def problems(self) -> list[str]:
        """Return what is wrong with the plan."""
        found = []
        if not self.cube or min(self.cube) < LEAST_SIDE or math.prod(self.cube) > MAX_CHIPS:
            return [f"cube: {list(self.cube)}; accepted: sides of at least {LEAST_SIDE}, at most {MAX_CHIPS:,} chips"]
        if not 1 <= self.n_cubes <= MAX_CHIPS // math.prod(self.cube):
            found.append(f"cubes: {self.n_cubes}; accepted: 1 to {MAX_CHIPS // math.prod(self.cube)}")
        if self.switch_ports is not None and self.switch_ports < 2 * self.n_cubes:
            found.append(f"switch_ports: {self.switch_ports}; accepted: 2 for each of {self.n_cubes} cubes, or more")
        return found

    def is_small(self, dims: tuple[int, ...]) -> bool:
        """Return whether a slice is a part of one cube: a mesh without circuits."""
        return self.cube == (4, 4, 4) and dims in SMALL_SLICES

    def grid(self, dims: tuple[int, ...]) -> tuple[int, ...]:
        """Return the cubes of a slice along each axis."""
        return tuple(-(-side // cube) for side, cube in zip(dims, self.cube, strict=True))

    def slice_problems(self, dims: tuple[int, ...], *, twist: bool) -> list[str]:
        """Return whether no slice can have this shape, with those that can."""
        rule = f"sides that are multiples of {shape_name(self.cube)}, at most {self.n_cubes} cubes"
        small = ", ".join(map(shape_name, SMALL_SLICES)) if self.cube == (4, 4, 4) else ""
        accepted = f"accepted: {rule}{', or ' + small if small else ''}"
        if len(dims) != len(self.cube):
            return [f"slice: {shape_name(dims)} has {len(dims)} sides; {accepted}"]
        whole = all(side > 0 and side % cube == 0 for side, cube in zip(dims, self.cube, strict=True))
        if not self.is_small(dims) and not (whole and math.prod(self.grid(dims)) <= self.n_cubes):
            return [f"slice: {shape_name(dims)} is not possible; {accepted}"]
        if twist and (self.is_small(dims) or standard_twist(dims) is None):
            return [f"twist: not possible for {shape_name(dims)}; accepted: slices of k×k×2k or k×2k×2k, such as 4x4x8"]
        return []


@frozen
class Slice:
    """Chips that belong together: `cubes` are the cube at each place of the slice's grid of cubes, row-major."""

    name: str
    dims: tuple[int, ...]
    twist: bool
    cubes: tuple[int, ...]


@frozen
class Rewiring:
    """What it took to replace a cube; nothing is rewired (spare None) if no slice had it."""

    failed: int
    spare: int | None
    n_removed: int
    n_added: int


@frozen
class Superpod:
    """The slices that a superpod has been shared out to, and the cubes that have failed."""

    plan: SuperpodPlan
    slices: tuple[Slice, ...] = ()
    failed: frozenset[int] = frozenset()

    @property
    def free_cubes(self) -> tuple[int, ...]:
        """The cubes that belong to no slice and work, in ascending order."""
        taken = self.failed.union(*(s.cubes for s in self.slices))
        return tuple(cube for cube in range(self.plan.n_cubes) if cube not in taken)

    def slice(self, name: str) -> Slice:
        """Return a slice by name."""
        found = next((s for s in self.slices if s.name == name), None)
        if found is None:
            known = ", ".join(s.name for s in self.slices) or "none"
            raise ConfigError((f"no slice {name!r}; there are: {known}",))
        return found

    def allocate(self, name: str, dims: tuple[int, ...], *, twist: bool = False) -> Superpod:
        """Give the lowest free cubes to a new slice; one smaller than a cube takes a whole one."""
        problems = self.plan.slice_problems(dims, twist=twist)
        if any(s.name == name for s in self.slices):
            problems.append(f"slice {name!r} is there already; accepted: another name, or release it first")
        if problems:
            raise ConfigError(tuple(problems))
        needed, free = math.prod(self.plan.grid(dims)), self.free_cubes
        if needed > len(free):
            state = f"{len(free)} of {self.plan.n_cubes} are free, {len(self.failed)} have failed"
            raise ConfigError((f"slice: {shape_name(dims)} needs {needed} cubes; {state}",))
        return evolve(self, slices=(*self.slices, Slice(name, dims, twist, free[:needed])))

    def release(self, name: str) -> Superpod:
        """Take a slice's cubes back."""
        gone = self.slice(name)
        return evolve(self, slices=tuple(s for s in self.slices if s is not gone))

    def fail_cube(self, cube: int) -> tuple[Superpod, Rewiring]:
        """Mark a cube as failed; in its slice the lowest free cube takes its place, joined by circuits of its own."""
        if not 0 <= cube < self.plan.n_cubes or cube in self.failed:
            state = "has failed already" if cube in self.failed else "does not exist"
            raise ConfigError((f"cube {cube} {state}; accepted: 0 to {self.plan.n_cubes - 1}, each once",))
        owner = next((s for s in self.slices if cube in s.cubes), None)
        if owner is None:
            return evolve(self, failed=self.failed | {cube}), Rewiring(cube, None, 0, 0)
        if not self.free_cubes:
            raise ConfigError((f"cube {cube}: no spare cube is left to take its place",))
        spare = self.free_cubes[0]
        mended = evolve(owner, cubes=tuple(spare if c == cube else c for c in owner.cubes))
        slices = tuple(mended if s is owner else s for s in self.slices)
        after = evolve(self, slices=slices, failed=self.failed | {cube})
        old, new = (set(map(tuple, pod.slice_circuits(owner.name).tolist())) for pod in (self, after))
        return after, Rewiring(cube, spare, len(old - new), len(new - old))

    def slice_circuits(self, name: str) -> NDArray[np.int64]:
        """Return a slice's circuits, a row (switch, port of a far face, port of the near face it leads to) each."""
        part, plan = self.slice(name), self.plan
        if plan.is_small(part.dims):
            return np.zeros((0, 3), np.int64)
        grid = plan.grid(part.dims)
        cubes = np.array(part.cubes).reshape(grid)
        twist = standard_twist(part.dims) if part.twist else None
        circuits, first = [], 0
        for axis in range(len(grid)):
            ahead = np.moveaxis(np.roll(cubes, -1, axis=axis), axis, 0)
            for j, by in enumerate(twist[axis] if twist else ()):
                if by:
                    ahead[-1] = np.roll(ahead[-1], -(by // plan.cube[j]), axis=j - (j > axis))
            ends = np.stack([np.moveaxis(cubes, axis, 0).reshape(-1) * 2, ahead.reshape(-1) * 2 + 1], axis=1)
            switches = first + np.arange(plan.positions(axis))
            circuits.append(
                np.column_stack([np.repeat(switches, len(ends)), np.tile(ends, (len(switches), 1))]).astype(np.int64)
            )
            first += plan.positions(axis)
        return np.concatenate(circuits)
