"""The bench: rows mean what nccl-tests mean, `wrong` counts what is wrong, bad arguments are refused."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from cluster import Cluster
from cluster.backends.local import LocalBackend
from cluster.bench import DEFAULT_SIZES_BYTES, bench, measure
from cluster.bench_cases import NUMBER_FORMATS, Case
from cluster.selection import Chooser, tried_for
from cluster.session import launch
from collectives import ALGORITHMS, OPERATIONS, REDUCTIONS
from configs.errors import ConfigError
from configs.spec.topology import LinkSpec
from tests.cluster.machines import array, fitting_system, mesh, ring, switch, torus
from tests.cluster.machines import system as make_system
from tests.collectives.rows import ROWS, ring_of, schedule_of
from topology import Switch

KIB = 1024
WHOLE = ("broadcast", "reduce", "permute", "barrier")
"""Operations whose bus bandwidth is their algorithm bandwidth."""
SIZED = [op for op in OPERATIONS if op != "barrier"]


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_rows(op, name):
    """Every algorithm is right on real data; algbw is size over time and busbw that times nccl-tests' factor."""
    for about in (2, 3, 8):
        [row] = bench(fitting_system(op, name, about), op, algorithm=name, sizes_bytes=[24 * KIB])
        n = row.n_ranks
        assert (row.op, row.algorithm, row.size_bytes, row.wrong) == (op, name, 24 * KIB * (op != "barrier"), 0)
        factor = {"all_reduce": 2 * (n - 1) / n, **dict.fromkeys(WHOLE, 1.0)}.get(op, (n - 1) / n)
        assert row.algbw_bytes_per_s == pytest.approx(row.size_bytes / row.time_s)
        assert row.busbw_bytes_per_s == pytest.approx(row.algbw_bytes_per_s * factor)


@pytest.mark.parametrize(
    ("op", "name", "busbw"),
    [
        ("all_gather", "ring", 1e9),
        ("reduce_scatter", "ring", 1e9),
        ("all_reduce", "ring", 1e9),
        ("all_gather", "direct", 1e9),
        ("all_to_all", "direct", 1e9),
        ("broadcast", "binomial", 1e9 / 3),
    ],
)
def test_bus_bandwidth_is_the_links(op, name, busbw):
    """Without latency an algorithm that fills every chip's link has the link's bandwidth as its bus bandwidth."""
    [row] = bench(switch(8, 1e9, latency_ps=0), op, algorithm=name, sizes_bytes=[8000], numerics="shapes")
    assert row.busbw_bytes_per_s == pytest.approx(busbw, rel=1e-6)


@pytest.mark.parametrize("op", OPERATIONS)
def test_shapes_time_the_same_and_count_nothing(op):
    """Without data the times are the same and `wrong` is unknown."""
    sizes = [40, 4 * KIB, 100_000]
    real, shapes = (list(bench(ring(5), op, sizes_bytes=sizes, numerics=n)) for n in ("real", "shapes"))
    assert [r.time_s for r in real] == [r.time_s for r in shapes]
    assert {r.wrong for r in real} == {0}
    assert {r.wrong for r in shapes} == {None}


@pytest.mark.parametrize("op", SIZED)
def test_sizes_are_whole_elements_and_parts(op):
    """A size is rounded down to float32 elements, and to equal parts where the operation has parts."""
    [row] = bench(ring(3), op, sizes_bytes=[1003])
    assert row.size_bytes == (1000 if op in {"all_reduce", *WHOLE} else 996)


@pytest.mark.parametrize("op", SIZED)
def test_sizes_too_small_are_refused(op):
    """The error says what is accepted, and that is then accepted."""
    smallest = 4 if op in {"all_reduce", *WHOLE} else 12
    with pytest.raises(ConfigError, match=f"--sizes: 3 B; accepted: at least {smallest} B"):
        list(bench(ring(3), op, sizes_bytes=[3]))
    assert [r.wrong for r in bench(ring(3), op, sizes_bytes=[smallest])] == [0]


def test_all_algorithms():
    """`all` gives a row per size and algorithm that fits, and says why others are left out."""
    names = [r.algorithm for r in bench(ring(4), "all_gather", algorithm="all", sizes_bytes=[16, 32])]
    fit = [name for name in ALGORITHMS["all_gather"] if schedule_of("all_gather", name, ring_of(4))]
    assert names == [name for name in fit for _ in range(2)]
    left_out = []
    rows = list(bench(mesh(3, 3), "all_gather", algorithm="all", sizes_bytes=[36], on_misfit=left_out.append))
    misfits = {"ring_neighbours", "rail_ring", "in_network"}
    assert {r.algorithm for r in rows} == set(ALGORITHMS["all_gather"]) - misfits
    assert {reason.split(":")[0] for reason in left_out} == {f"algorithm {name}" for name in misfits}
    assert len(DEFAULT_SIZES_BYTES) > 4


def test_a_reason_is_given_once():
    """An algorithm that `auto` tries in several numbers of pieces is left out once; a barrier has one row."""
    left_out = []
    list(bench(ring(4), "broadcast", algorithm="all", sizes_bytes=[16], on_misfit=left_out.append))
    assert [reason.split(":")[0] for reason in left_out] == ["algorithm in_network"]
    assert [row.size_bytes for row in bench(ring(4), "barrier")] == [0]
    assert [(row.time_s, row.algbw_bytes_per_s) for row in bench(ring(4, latency_ps=0), "barrier")] == [(0, 0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"op": "allreduce"}, "--op: 'allreduce' is not an operation; .*did you mean 'all_reduce'"),
        ({"algorithm": "tree"}, "--algorithm: 'tree' is not an algorithm of all_reduce; accepted: auto, all, ring"),
        ({"algorithm": "ring:channels=0"}, "channels is 0; accepted: a whole number ≥ 1 and ≤ 32"),
        ({"algorithm": "ring:pieces=2"}, "'pieces' is not a parameter of ring; accepted: channels"),
        ({"algorithm": "hierarchical:node=torus"}, "node is 'torus'; accepted: ring, "),
        ({"algorithm": "ring:channels"}, "accepted: ring:parameter=value"),
        ({"dtype": "fp7"}, "--dtype: 'fp7' is not a number format; accepted: fp64, fp32"),
        ({"reduction": "mean"}, "--reduction: 'mean' is not a reduction; accepted: sum, max, min"),
        ({"op": "all_gather", "reduction": "max"}, "--reduction: all_gather reduces nothing"),
        ({"ranks": [0, 9]}, "--ranks: 0,9; accepted: at least 2 different chips of 0 to 8"),
        ({"axis": "z"}, "--axis: 'z' is not an axis of this system; accepted: x, y"),
        ({"axis": "x", "n_ranks": 2}, "--ranks, --axis: both given"),
        ({"n_ranks": 1}, "--ranks: 1; accepted: 2 to 9"),
        ({"n_ranks": 10}, "--ranks: 10; accepted: 2 to 9"),
        ({"algorithm": "ring_neighbours"}, "no ring of neighbours is known for these 9 chips"),
        ({"numerics": "half"}, "numerics: 'half'"),
    ],
)
def test_bad_arguments(arguments, message):
    """What does not exist or does not fit is refused with what is accepted."""
    with pytest.raises(ConfigError, match=message):
        list(bench(mesh(3, 3), **{"op": "all_reduce", "sizes_bytes": [1024], **arguments}))


def test_all_bad_arguments_at_once():
    """Two mistakes are two problems."""
    with pytest.raises(ConfigError) as error:
        list(bench(ring(4), "all_reduce", algorithm="tree", dtype="fp7"))
    assert len(error.value.problems) == 2


@attrs.frozen
class FaultyChip:
    """A chip whose collectives come back with the last elements off by one."""

    chip: object
    n_bad: int

    def __getattr__(self, name):
        found = getattr(self.chip, name)
        if name not in OPERATIONS:
            return found

        async def faulty(*args, **kwargs):
            y = await found(*args, **kwargs)
            if self.chip.rank == (0 if name in {"reduce", "gather"} else 1):
                y[len(y) - self.n_bad :] += 1
            return y

        return faulty


@attrs.frozen
class FaultyBackend:
    """A backend whose chips are faulty."""

    inner: LocalBackend
    n_bad: int

    def run(self, program, args, emit, on_restart, roles=None):
        """Run the program on faulty chips."""

        async def on_faulty(chip, *more):
            return await program(FaultyChip(chip, self.n_bad), *more)

        return self.inner.run(on_faulty, args, emit, on_restart, roles)

    def close(self):
        """Stop what was started."""
        self.inner.close()


@pytest.mark.parametrize("op", SIZED)
@pytest.mark.parametrize("n_bad", [0, 1, 5])
def test_wrong_counts_wrong_elements(op, n_bad):
    """If one chip ends with k wrong elements, `wrong` is k."""
    good = launch(ring(3))
    faulty = Cluster(good.system, good.topology, "fluid", 3, FaultyBackend(good.backend, n_bad))
    _, wrong = measure(faulty, ((0, 1, 2),), Case(op, 3, 30))
    assert wrong == n_bad


@pytest.mark.parametrize("op", SIZED)
def test_the_inputs_tell_chips_and_places_apart(op):
    """No two chips have the same input, so that a mixed-up chunk is seen; also where few numbers are to be had."""
    for dtype in NUMBER_FORMATS:
        case = Case(op, 16, 480 * 16, dtype)
        inputs = [case.input(rank) for rank in range(16)]
        assert len({x.tobytes() for x in inputs}) == 16
        assert dtype != "fp32" or all(len(np.unique(x)) > 200 for x in inputs)


@pytest.mark.parametrize("dtype", NUMBER_FORMATS)
@pytest.mark.parametrize("op", OPERATIONS)
def test_every_number_format_and_reduction(op, dtype):
    """`wrong` is 0 for every algorithm and format, of each sort with every reduction: no order of additions rounds."""
    for reduction in REDUCTIONS if OPERATIONS[op].reduces and dtype in {"fp32", "bf16", "int8"} else ["sum"]:
        rows = list(bench(torus(3, 3), op, algorithm="all", sizes_bytes=[1152], dtype=dtype, reduction=reduction))
        assert {(row.wrong, row.dtype) for row in rows} == {(0, dtype)}
        assert {row.size_bytes % NUMBER_FORMATS[dtype].itemsize for row in rows} == {0}


@pytest.mark.parametrize("op", OPERATIONS)
def test_auto_is_the_fastest_of_all(op):
    """For every size `auto` has the least time of all algorithms, and `all` marks that one."""
    sizes = [72, 72 * KIB] if op != "barrier" else [0]
    for system in (mesh(3, 4), switch(6), torus(3, 3)):
        every = list(bench(system, op, algorithm="all", sizes_bytes=sizes, numerics="shapes"))
        chosen = list(bench(system, op, sizes_bytes=sizes, numerics="shapes"))
        for i, row in enumerate(chosen):
            assert row.time_s == min(r.time_s for r in every[i :: len(sizes)])
            assert [r.algorithm for r in every[i :: len(sizes)] if r.chosen] == [row.algorithm]


def test_what_is_tried_is_bounded():
    """Large groups try few algorithms, and never none; the library's threshold keeps small groups off the switch."""
    for op in OPERATIONS:
        assert set(tried_for(op, 10**5)) <= set(tried_for(op, 16))
        assert tried_for(op, 10**5)
    machine = Switch(chips=6, link=LinkSpec(1e9, 1000), in_network=True)
    for n, used in ((4, False), (5, True)):
        [row] = bench(make_system(machine, in_network_min_ranks=5), "all_reduce", n_ranks=n, sizes_bytes=[24000])
        assert row.algorithm.startswith("in_network") == used
    with pytest.raises(ConfigError, match="does not fall into equal chunks among 3000 ranks"):
        list(bench(ring(3000), "all_reduce", sizes_bytes=[10**6], numerics="shapes"))


def test_any_chips():
    """Chips by number are ranked in the order given; the others do nothing."""
    [row] = bench(mesh(3, 3), "all_gather", ranks=[8, 0, 4], sizes_bytes=[120])
    assert (row.n_ranks, row.n_groups, row.wrong) == (3, 1, 0)


def test_blocks_along_several_axes():
    """The four chips of a plane, all planes at once; and the name that is no axis."""
    [row] = bench(mesh(3, 2, 2), "all_reduce", axis="y, z", sizes_bytes=[480])
    assert (row.n_ranks, row.n_groups, row.wrong) == (4, 3, 0)
    with pytest.raises(ConfigError, match="--axis: 'w' is not an axis of this system; accepted: x, y, z"):
        list(bench(mesh(3, 2, 2), "all_reduce", axis="y,w", sizes_bytes=[480]))


def test_all_lines_of_an_axis_at_once():
    """Lines that share no link take as long as one of them; the size is that of one group."""
    for numerics in ("real", "shapes"):
        [row] = bench(mesh(4, 3), "all_reduce", axis="x", algorithm="line", sizes_bytes=[480], numerics=numerics)
        [alone] = bench(mesh(4, 3), "all_reduce", ranks=[0, 3, 6, 9], algorithm="line", sizes_bytes=[480])
        assert (row.n_ranks, row.n_groups, row.wrong) == (4, 3, 0 if numerics == "real" else None)
        assert row.time_s == alone.time_s


def test_groups_that_look_alike_share_a_choice():
    """All rows of a mesh are chosen for once; a choice does not depend on what was chosen before."""
    system = mesh(8, 4)
    cluster, asked = launch(system, numerics="shapes"), []

    async def program(chip):
        await chip.all_reduce(array(chip, 100), axis="y")

    chooser = Chooser(system)
    object.__setattr__(cluster.backend, "choose", lambda call: asked.append(call) or chooser(call))
    cluster.run(program)
    names = {call.ranks: chooser(call) for call in asked}
    assert len(names) == 8
    assert {Chooser(system)(call) for call in asked} == set(names.values())
    assert len(chooser.structures) == 8
    assert len(set(chooser.structures.values())) == 1
