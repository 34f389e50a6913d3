"""The executor on real buffers against plain numpy: every operation, algorithm, dtype and size."""

from __future__ import annotations

from collections import deque

import ml_dtypes
import numpy as np
import pytest
from attrs import evolve, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives import (
    ALGORITHMS,
    OPERATIONS,
    REDUCTIONS,
    begin_output,
    check,
    chunk_sizes,
    cut,
    ends_with_something,
    execute,
    join,
    split,
)
from tests.collectives.rows import ROWS, VIEWS, detail_of, fitting_schedule, schedule_of

DTYPES = {
    "float32": np.dtype(np.float32),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "int32": np.dtype(np.int32),
    "fp16": np.dtype(np.float16),
    "int8": np.dtype(np.int8),
}


class Blocked:
    """What a rank yields while its message is not there yet."""

    def __await__(self):
        yield self


@frozen
class Wires:
    """Queues between all pairs of ranks; the executor's port for one rank is `port(rank)`."""

    queues: dict = field(factory=dict)

    def port(self, rank: int) -> WirePort:
        """Return the rank's connection."""
        return WirePort(self, rank)


@frozen
class WirePort:
    """One rank's end of the wires."""

    wires: Wires
    rank: int

    def post(self, src, dst, chunks):
        """Send without waiting."""
        self.wires.queues.setdefault((src, dst), deque()).append(chunks)

    def ready(self, src, dst, *, last):
        """Return the next message of a rank if it is there."""
        del last
        queue = self.wires.queues.get((src, dst))
        return queue.popleft() if queue else None

    async def take(self, src, dst, *, last):
        """Wait for the next message of a rank."""
        del last
        queue = self.wires.queues.setdefault((src, dst), deque())
        while not queue:
            await Blocked()
        return queue.popleft()


def run(schedule, inputs, root=0, order=None, add=np.add):
    """Run a schedule on the ranks' flat inputs and return their flat outputs; ranks take turns in `order`.

    A rank that ends with nothing has None. Some ranks' outputs grow, some are filled, some joined.
    """
    wires, n = Wires(), schedule.n_ranks
    detail = detail_of(schedule.op, n, root)
    held = [split(schedule, r, detail, x) for r, x in enumerate(inputs)]
    outputs = [begin_output(schedule, r, detail, x) if r % 3 else None for r, x in enumerate(inputs)]
    outputs = [output and evolve(output, grows=r % 3 == 1) for r, output in enumerate(outputs)]
    going = {r: execute(schedule, r, held[r], wires.port(r), add, outputs[r]) for r in range(n)}
    for _ in range(10_000):
        for rank in order or range(n):
            if rank in going:
                try:
                    going[rank].send(None)
                except StopIteration:
                    del going[rank]
        if not going:
            assert not any(wires.queues.values()), "every message is taken"
            return [
                output.values if output is not None
                else join(schedule, r, detail, held[r]) if ends_with_something(schedule, r, detail) else None
                for r, output in enumerate(outputs)
            ]  # fmt: skip
    raise AssertionError("the ranks wait for each other")


def expected(op, inputs, root=0):
    """Return what every rank must end with, by numpy alone."""
    n = len(inputs)
    detail = detail_of(op, n, root)
    ends = np.cumsum(cut(len(inputs[0]), n))[:-1]
    total = np.sum(np.stack(inputs), axis=0, dtype=inputs[0].dtype) if OPERATIONS[op].reduces else None
    if op in {"all_gather", "gather", "barrier"}:
        outputs = [np.concatenate(inputs)] * n
    elif op in {"all_reduce", "reduce"}:
        outputs = [total] * n
    elif op == "reduce_scatter":
        outputs = np.split(total, ends)
    elif op == "scatter":
        outputs = np.split(inputs[root], ends)
    elif op == "permute":
        source = {dst: src for src, dst in detail}
        outputs = [inputs[source[r]] if r in source else None for r in range(n)]
    elif OPERATIONS[op].parts == "pairs":
        parts = [np.split(x, ends_of(op, r, x, ends)) for r, x in enumerate(inputs)]
        outputs = [np.concatenate([parts[src][dst] for src in range(n)]) for dst in range(n)]
    else:
        assert op == "broadcast"
        outputs = [inputs[root]] * n
    return [y if op not in {"gather", "reduce"} or r == root else None for r, y in enumerate(outputs)]


def ends_of(op, rank, x, even):
    """Return where the parts of a rank's input end, all but the last."""
    if op == "all_to_all":
        return even
    rows = np.array(detail_of(op, len(even) + 1)[rank])
    return np.cumsum(rows * (len(x) // max(1, rows.sum())))[:-1]


def inputs_for(op, n_ranks, size, dtype, seed=0):
    """Return inputs of this size, or of so many elements a row (0 to 2) where ranks have different rows."""
    if op != "all_to_all_v":
        return whole_numbers(n_ranks, size, dtype, seed)
    rows = [sum(row) for row in detail_of(op, n_ranks)]
    longest = whole_numbers(n_ranks, max(rows) * (size % 3), dtype, seed)
    return [x[: count * (size % 3)] for x, count in zip(longest, rows, strict=True)]


def assert_same(outputs, wanted):
    """Check that all ranks have what they should, and nothing where they should have nothing."""
    for got, want in zip(outputs, wanted, strict=True):
        assert (got is None) == (want is None)
        if want is not None:
            np.testing.assert_array_equal(got, want)


def whole_numbers(n_ranks, size, dtype, seed=0):
    """Return inputs of small whole numbers, exact in every dtype, as are their sums: up to 256, in int8 up to 127."""
    rng = np.random.default_rng([seed, n_ranks, size])
    most = 127 if dtype == np.int8 else 255
    return [rng.integers(0, 1 + most // n_ranks, size).astype(dtype) for _ in range(n_ranks)]


COUNTS = [("float32", (1, 2, 3, 5, 8, 13, 33)), ("bf16", (2, 3, 8)), ("int32", (2, 3, 8))]
OTHER_COUNTS = [(dtype, (1, 5, 6, 7, 13, 33)) for dtype in DTYPES] + [(dtype, (2, 3, 8)) for dtype in ("fp16", "int8")]


@pytest.mark.parametrize(
    ("dtype", "abouts"), [*COUNTS, *(pytest.param(*row, marks=pytest.mark.heavy) for row in OTHER_COUNTS)]
)
@pytest.mark.parametrize(("op", "name"), ROWS)
def test_values_of_every_size(op, name, dtype, abouts):
    """The outputs are numpy's for whole numbers, at sizes below, at and above the number of ranks, even or not."""
    for about in abouts:
        schedule = fitting_schedule(op, name, about)
        n = schedule.n_ranks
        for size in (0, 1, n - 1, n, n + 1, 3 * n, 7 * n + 2):
            inputs = inputs_for(op, n, size, DTYPES[dtype])
            outputs = run(schedule, inputs)
            assert {y.dtype for y in outputs if y is not None} <= {DTYPES[dtype]}
            assert_same(outputs, expected(op, inputs))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("op", "name"), ROWS)
def test_values_on_every_topology(op, name, view):
    """The order of the ring, or the group's order, changes no value."""
    for n in (2, 4, 6, 12):
        schedule = schedule_of(op, name, VIEWS[view](n))
        if schedule is None:
            continue
        inputs = inputs_for(op, n, 4 * n + 1, np.dtype(np.float32))
        assert_same(run(schedule, inputs), expected(op, inputs))


@pytest.mark.parametrize(("op", "name"), [row for row in ROWS if OPERATIONS[row[0]].detail == "root"])
@pytest.mark.parametrize("n", [2, 3, 6, 11])
def test_every_root(op, name, n):
    """Whoever the root is, it gets, or the others get from it, what they should."""
    for root in range(n):
        inputs = whole_numbers(n, 2 * n + 1, np.dtype(np.int32))
        assert_same(run(fitting_schedule(op, name, n, root), inputs, root), expected(op, inputs, root))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("op", "name"), [row for row in ROWS if OPERATIONS[row[0]].reduces])
def test_every_reduction(op, name, reduction):
    """The same schedules find the largest or the smallest instead of the sum."""
    schedule = fitting_schedule(op, name, 6)
    n, add = schedule.n_ranks, REDUCTIONS[reduction]
    inputs = [x - 9 for x in whole_numbers(n, 2 * n + 1, np.dtype(np.int32))]
    whole = add.reduce(np.stack(inputs))
    wanted = np.split(whole, np.cumsum(cut(len(whole), n))[:-1]) if op == "reduce_scatter" else [whole] * n
    assert_same(run(schedule, inputs, add=add), [y if op != "reduce" or not r else None for r, y in enumerate(wanted)])


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_the_order_of_arrival_changes_no_bit(op, name):
    """Sums of random reals have the same bits whichever rank runs first."""
    schedule = fitting_schedule(op, name, 7)
    n = schedule.n_ranks
    rng = np.random.default_rng(5)
    sizes = [23] * n if op != "all_to_all_v" else [3 * sum(rows) for rows in detail_of(op, n)]
    inputs = [rng.standard_normal(size).astype(np.float32) for size in sizes]
    orders = [None, list(range(n))[::-1], rng.permutation(n).tolist()]
    first, *others = ([x if x is None else x.tobytes() for x in run(schedule, inputs, order=order)] for order in orders)
    assert others == [first, first]


@pytest.mark.parametrize("name", ALGORITHMS["all_reduce"])
@pytest.mark.parametrize("dtype", ["float32", "bf16"])
def test_all_ranks_end_with_the_same_bits(name, dtype):
    """An all-reduce of reals rounds somewhere, but alike on all ranks, and near the exact sum."""
    schedule = fitting_schedule("all_reduce", name, 9)
    n = schedule.n_ranks
    rng = np.random.default_rng(6)
    inputs = [rng.standard_normal(40).astype(DTYPES[dtype]) for _ in range(n)]
    outputs = run(schedule, inputs)
    assert len({x.tobytes() for x in outputs}) == 1
    exact = np.sum(np.stack(inputs).astype(np.float64), axis=0)
    bound = n * float(ml_dtypes.finfo(DTYPES[dtype]).eps) * np.sum(np.abs(np.stack(inputs).astype(np.float64)), axis=0)
    assert np.all(np.abs(outputs[0].astype(np.float64) - exact) <= bound)


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_inputs_stay_as_they_were(op, name):
    """A run does not write into the buffers it was given."""
    schedule = fitting_schedule(op, name, 5)
    inputs = inputs_for(op, schedule.n_ranks, 11, np.dtype(np.float32))
    kept = [x.copy() for x in inputs]
    run(schedule, inputs)
    for x, before in zip(inputs, kept, strict=True):
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_outputs_are_nobody_elses(op, name):
    """Writing into one rank's output changes neither another's nor an input."""
    inputs = inputs_for(op, 4, 8, np.dtype(np.float32))
    outputs = run(fitting_schedule(op, name, 4), inputs)
    want = expected(op, [x.copy() for x in inputs])
    if outputs[0] is not None:
        outputs[0][:] = -1
    assert_same(outputs[1:], want[1:])
    assert all((x >= 0).all() for x in inputs)


@given(st.sampled_from(ROWS), st.integers(2, 17), st.integers(0, 100), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_any_size_and_number_of_ranks(row, n, size, seed):
    """The outputs are numpy's for arbitrary ranks, sizes and values."""
    op, name = row
    schedule = fitting_schedule(op, name, n)
    inputs = inputs_for(op, schedule.n_ranks, size, np.dtype(np.int32), seed)
    check(schedule, detail_of(op, schedule.n_ranks))
    assert_same(run(schedule, inputs), expected(op, inputs))


@given(st.integers(0, 10**6), st.integers(1, 100))
def test_cut_is_even(total, pieces):
    """The pieces sum to the total, differ by one at most, and the larger ones come first."""
    sizes = cut(total, pieces)
    assert (sum(sizes), len(sizes)) == (total, pieces)
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9), st.integers(1, 5))
def test_chunks_stay_inside_their_parts(parts, pieces):
    """Every part is cut by itself."""
    sizes = chunk_sizes(parts, pieces * len(parts))
    assert [sum(sizes[i : i + pieces]) for i in range(0, len(sizes), pieces)] == parts


@pytest.mark.parametrize("op", OPERATIONS)
def test_busbw_factors(op):
    """The factors are those of nccl-tests, doc/PERFORMANCE.md."""
    factors = {"all_reduce": 2 * 7 / 8, "broadcast": 1.0, "reduce": 1.0, "permute": 1.0, "barrier": 1.0}
    assert OPERATIONS[op].busbw_factor(8) == factors.get(op, 7 / 8)
