"""The bench: rows mean what nccl-tests mean, `wrong` counts what is wrong, bad arguments are refused."""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from cluster import Cluster
from cluster.backends.local import LocalBackend
from cluster.bench import CASES, DEFAULT_SIZES_BYTES, bench, measure
from cluster.session import launch
from collectives import ALGORITHMS, OPERATIONS
from configs.errors import ConfigError
from tests.cluster.machines import fitting_system, mesh, ring, switch
from tests.collectives.rows import ROWS, ring_of, schedule_of

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
    """`all` gives a row per size and algorithm that fits; `auto` is the first of the table."""
    names = [r.algorithm for r in bench(ring(4), "all_gather", algorithm="all", sizes_bytes=[16, 32])]
    fit = [name for name in ALGORITHMS["all_gather"] if schedule_of("all_gather", name, ring_of(4))]
    assert names == [name for name in fit for _ in range(2)]
    fitting = {r.algorithm for r in bench(mesh(3, 3), "all_gather", algorithm="all", sizes_bytes=[36])}
    assert fitting == set(ALGORITHMS["all_gather"]) - {"ring_neighbours"}
    assert [r.algorithm for r in bench(ring(4), "all_reduce", sizes_bytes=[16])] == ["ring"]
    assert len(DEFAULT_SIZES_BYTES) > 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"op": "allreduce"}, "--op: 'allreduce' is not an operation; .*did you mean 'all_reduce'"),
        ({"algorithm": "tree"}, "--algorithm: 'tree' is not an algorithm of all_reduce; accepted: ring"),
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
        list(bench(ring(4), "all_reduce", algorithm="tree", n_ranks=7))
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

    def run(self, program, args, emit):
        """Run the program on faulty chips."""

        async def on_faulty(chip, *more):
            return await program(FaultyChip(chip, self.n_bad), *more)

        return self.inner.run(on_faulty, args, emit)

    def close(self):
        """Stop what was started."""
        self.inner.close()


@pytest.mark.parametrize("op", SIZED)
@pytest.mark.parametrize("n_bad", [0, 1, 5])
def test_wrong_counts_wrong_elements(op, n_bad):
    """If one chip ends with k wrong elements, `wrong` is k."""
    good = launch(ring(3))
    faulty = Cluster(good.system, good.topology, "fluid", 3, FaultyBackend(good.backend, n_bad))
    assert measure(faulty, op, next(iter(ALGORITHMS[op])), 120).wrong == n_bad


@pytest.mark.parametrize("op", OPERATIONS)
def test_the_inputs_tell_chips_and_places_apart(op):
    """No two chips have the same input, so that a mixed-up chunk is seen."""
    make, _ = CASES[op]
    inputs = [make(rank, 16, 480) for rank in range(16)]
    assert len({x.tobytes() for x in inputs}) == 16
    assert all(len(np.unique(x)) > 200 for x in inputs)
