"""Superpods: slices come and go, circuits make the tori that are promised, spares take the place of failed cubes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.spec.topology import LinkSpec, RoutingSpec
from topology import Ocs
from topology.kinds.ocs import SLICE, CubeFailure
from topology.ocs import Superpod, SuperpodPlan, parse_shape

LINK = LinkSpec(bandwidth_bytes_per_s=45e9, latency_ps=1_000_000)
V4 = SuperpodPlan(n_cubes=64, switch_ports=136)
SLICES = [
    ("4x4x4", False), ("4x4x8", False), ("4x4x8", True), ("8x4x4", True), ("4x8x8", True), ("8x8x4", True),
    ("8x8x16", True), ("4x8x12", False), ("16x16x16", False), ("2x2x4", False),
]  # fmt: skip


def joined(pod: Superpod, name: str) -> set[tuple[int, int]]:
    """Return the pairs of ranks that the mesh inside the cubes and the slice's circuits join."""
    part, side = pod.slice(name), np.array(pod.plan.cube)
    grid = pod.plan.grid(part.dims)
    place = {cube: np.array(np.unravel_index(i, grid)) * side for i, cube in enumerate(part.cubes)}

    def rank(cube: int, inside: np.ndarray) -> int:
        return int(np.ravel_multi_index(tuple(place[cube] + inside), part.dims))

    extent = np.minimum(side, part.dims)
    pairs = set()
    for cube in part.cubes:
        for inside in itertools.product(*map(range, extent)):
            for axis in range(3):
                beyond = np.array(inside) + np.eye(3, dtype=int)[axis]
                if beyond[axis] < extent[axis]:
                    pairs.add((rank(cube, np.array(inside)), rank(cube, beyond)))
    for switch, far, near in pod.slice_circuits(name).tolist():
        axis, position = divmod(switch, 16)
        face = np.array(np.unravel_index(position, np.delete(side, axis)))
        assert (far % 2, near % 2) == (0, 1)
        pairs.add((rank(far // 2, np.insert(face, axis, 3)), rank(near // 2, np.insert(face, axis, 0))))
    return {(min(pair), max(pair)) for pair in pairs}


@pytest.mark.parametrize(("shape", "twist"), SLICES)
def test_circuits_make_the_topology(shape: str, twist: bool) -> None:
    """Cubes and circuits join just the chips that the built slice joins, wherever the cubes stand."""
    spec = Ocs(64, shape, LINK, twist=twist)
    topology = spec.build(RoutingSpec())
    built = set(zip(topology.link_src[::2].tolist(), topology.link_dst[::2].tolist(), strict=True))
    built = {(min(pair), max(pair)) for pair in built}
    assert joined(spec.superpod(), SLICE) == built
    if shape != "16x16x16":
        elsewhere = Superpod(V4).allocate("other", (4, 4, 8)).fail_cube(5)[0].allocate(SLICE, spec.dims, twist=twist)
        assert joined(elsewhere, SLICE) == built


def test_whole_superpod() -> None:
    """All 64 cubes: 64 circuits in each of 48 switches, 128 of its 136 ports, each once; 6,144 optical links."""
    pod = Superpod(V4).allocate("all", (16, 16, 16))
    circuits = pod.slice_circuits("all")
    assert V4.n_switches == 48
    assert np.bincount(circuits[:, 0]).tolist() == [64] * 48
    ports = np.concatenate([circuits[:, [0, 1]], circuits[:, [0, 2]]])
    assert len(np.unique(ports, axis=0)) == len(ports) == 6144
    assert pod.free_cubes == ()


def test_failed_cube_is_replaced() -> None:
    """The spare takes the failed cube's place; only the circuits of that cube change, and as many come as go."""
    pod = Superpod(V4).allocate("a", (4, 4, 8)).allocate("b", (8, 8, 8))
    after, rewiring = pod.fail_cube(3)
    assert (rewiring.failed, rewiring.spare, rewiring.n_removed, rewiring.n_added) == (3, 10, 96, 96)
    assert after.slice("b").cubes == (2, 10, 4, 5, 6, 7, 8, 9)
    assert after.slice("a") == pod.slice("a")
    assert joined(after, "b") == joined(pod, "b")
    assert after.release("b").allocate("c", (4, 4, 4)).slice("c").cubes == (2,)
    idle, nothing = after.fail_cube(63)
    assert (nothing.spare, nothing.n_removed, idle.slices) == (None, 0, after.slices)


def test_what_a_superpod_refuses() -> None:
    """Each refusal says what there is."""
    full = Superpod(SuperpodPlan(n_cubes=2)).allocate("a", (4, 4, 8))
    for act, message in (
        (lambda: full.allocate("b", (4, 4, 4)), "4x4x4 needs 1 cubes; 0 of 2 are free, 0 have failed"),
        (lambda: full.allocate("a", (4, 4, 4)), "slice 'a' is there already"),
        (lambda: full.release("b"), "no slice 'b'; there are: a"),
        (lambda: full.fail_cube(1), "cube 1: no spare cube is left to take its place"),
        (lambda: full.fail_cube(2), "cube 2 does not exist; accepted: 0 to 1"),
        (lambda: full.release("a").fail_cube(1)[0].fail_cube(1), "cube 1 has failed already"),
        (lambda: full.allocate("b", (4, 8, 8)), "sides that are multiples of 4x4x4, at most 2 cubes"),
        (lambda: parse_shape("4x"), "'4x' is not a shape; accepted: sides such as 4x4x8"),
    ):
        with pytest.raises(ConfigError) as error:
            act()
        assert message in str(error.value)


@given(data=st.data())
def test_slices_never_share_a_cube(data: st.DataObject) -> None:
    """Whatever comes, goes and fails: slices keep their size, share nothing and have no failed cube."""
    pod, sizes = Superpod(SuperpodPlan(n_cubes=12)), {}
    for step in range(data.draw(st.integers(1, 12))):
        names = [s.name for s in pod.slices]
        try:
            match data.draw(st.sampled_from(["allocate", "release", "fail"])):
                case "allocate":
                    dims = data.draw(st.sampled_from([(4, 4, 4), (4, 4, 8), (2, 2, 1), (4, 8, 8), (8, 8, 8)]))
                    pod = pod.allocate(f"slice {step}", dims)
                    sizes[f"slice {step}"] = len(pod.slice(f"slice {step}").cubes)
                case "release" if names:
                    pod = pod.release(data.draw(st.sampled_from(names)))
                case "fail":
                    pod, _ = pod.fail_cube(data.draw(st.integers(0, 11)))
        except ConfigError:
            continue
        held = [cube for s in pod.slices for cube in s.cubes]
        assert len(set(held)) == len(held)
        assert not pod.failed & set(held)
        assert sorted({*held, *pod.failed, *pod.free_cubes}) == list(range(12))
        assert all(len(s.cubes) == sizes[s.name] for s in pod.slices)


def test_report() -> None:
    """What `chipmesh topo` says of a slice: cubes, circuits, ports, wrap, and each failure with its spare."""
    failures = (CubeFailure(2, after_token=9), CubeFailure(1, after_token=4))
    spec = Ocs(
        64, "4x4x8", LINK, twist=True, switch_ports=136, reconfiguration_ps=10 * 10**12, failed_cubes=(0,),
        failures=failures,
    )  # fmt: skip
    report = spec.report()
    assert (report["cubes"], report["failed_cubes"], report["n_free_cubes"]) == ((1, 2), [0], 61)
    assert (report["n_switches"], report["n_circuits"], report["ports_used_per_switch"]) == (48, 96, 4)
    assert report["wrap"] == {"x": "shifted", "y": "shifted", "z": True}
    assert [(f["cube"], f["after_token"], f["spare"]) for f in report["failures"]] == [(1, 4, 3), (2, 9, 4)]
    assert spec.stops() == ((4, 10**13), (9, 10**13))
