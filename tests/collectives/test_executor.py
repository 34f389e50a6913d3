"""The executor on real buffers against plain numpy: every operation, algorithm, dtype and size."""

from __future__ import annotations

from collections import deque

import ml_dtypes
import numpy as np
import pytest
from attrs import field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives import ALGORITHMS, OPERATIONS, check, chunk_sizes, cut, execute, join, split
from tests.collectives.rows import ROWS, VIEWS, fitting_schedule, schedule_of, switch_of

DTYPES = {"float32": np.dtype(np.float32), "bf16": np.dtype(ml_dtypes.bfloat16), "int32": np.dtype(np.int32)}


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

    def post(self, dst, chunks):
        """Send without waiting."""
        self.wires.queues.setdefault((self.rank, dst), deque()).append(chunks)

    async def take(self, src, *, last):
        """Wait for the next message of a rank."""
        del last
        queue = self.wires.queues.setdefault((src, self.rank), deque())
        while not queue:
            await Blocked()
        return queue.popleft()


def run(schedule, inputs, root=0, order=None):
    """Run a schedule on the ranks' flat inputs and return their flat outputs; ranks take turns in `order`."""
    wires, n = Wires(), schedule.n_ranks
    held = [split(schedule, r, root, x) for r, x in enumerate(inputs)]
    going = {r: execute(schedule, r, held[r], wires.port(r)) for r in range(n)}
    for _ in range(10_000):
        for rank in order or range(n):
            if rank in going:
                try:
                    going[rank].send(None)
                except StopIteration:
                    del going[rank]
        if not going:
            assert not any(wires.queues.values()), "every message is taken"
            return [join(schedule, r, root, held[r]) for r in range(n)]
    raise AssertionError("the ranks wait for each other")


def expected(op, inputs, root=0):
    """Return what every rank must end with, by numpy alone."""
    n = len(inputs)
    ends = np.cumsum(cut(len(inputs[0]), n))[:-1]
    if op == "all_gather":
        return [np.concatenate(inputs)] * n
    if op == "all_reduce":
        return [np.sum(np.stack(inputs), axis=0, dtype=inputs[0].dtype)] * n
    if op == "reduce_scatter":
        return np.split(np.sum(np.stack(inputs), axis=0, dtype=inputs[0].dtype), ends)
    if op == "all_to_all":
        parts = [np.split(x, ends) for x in inputs]
        return [np.concatenate([parts[src][dst] for src in range(n)]) for dst in range(n)]
    assert op == "broadcast"
    return [inputs[root]] * n


def whole_numbers(n_ranks, size, dtype, seed=0):
    """Return inputs of small whole numbers, exact in every dtype and sum up to 256."""
    rng = np.random.default_rng([seed, n_ranks, size])
    return [rng.integers(0, 1 + 255 // n_ranks, size).astype(dtype) for _ in range(n_ranks)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "name"), ROWS)
def test_values_of_every_size(op, name, dtype):
    """The outputs are numpy's for whole numbers, at sizes below, at and above the number of ranks, even or not."""
    for n in (1, 2, 3, 5, 8, 13, 33):
        schedule = fitting_schedule(op, name, n)
        n = schedule.n_ranks
        for size in (0, 1, n - 1, n, n + 1, 3 * n, 7 * n + 2):
            inputs = whole_numbers(n, size, DTYPES[dtype])
            outputs = run(schedule, inputs)
            for got, want in zip(outputs, expected(op, inputs), strict=True):
                assert got.dtype == DTYPES[dtype]
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("op", "name"), ROWS)
def test_values_on_every_topology(op, name, view):
    """The order of the ring, or the group's order, changes no value."""
    for n in (2, 4, 6, 12):
        schedule = schedule_of(op, name, VIEWS[view](n))
        if schedule is None:
            continue
        inputs = whole_numbers(n, 4 * n + 1, np.dtype(np.float32))
        for got, want in zip(run(schedule, inputs), expected(op, inputs), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("n", [2, 3, 6, 11])
def test_every_root(n):
    """A broadcast hands out the root's values, whoever the root is."""
    for root in range(n):
        inputs = whole_numbers(n, 2 * n + 1, np.dtype(np.int32))
        schedule = ALGORITHMS["broadcast"]["binomial"](switch_of(n), root)
        for got in run(schedule, inputs, root):
            np.testing.assert_array_equal(got, inputs[root])


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_the_order_of_arrival_changes_no_bit(op, name):
    """Sums of random reals have the same bits whichever rank runs first."""
    schedule = fitting_schedule(op, name, 7)
    n = schedule.n_ranks
    rng = np.random.default_rng(5)
    inputs = [rng.standard_normal(23).astype(np.float32) for _ in range(n)]
    orders = [None, list(range(n))[::-1], rng.permutation(n).tolist()]
    first, *others = ([x.tobytes() for x in run(schedule, inputs, order=order)] for order in orders)
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
    inputs = whole_numbers(schedule.n_ranks, 11, np.dtype(np.float32))
    kept = [x.copy() for x in inputs]
    run(schedule, inputs)
    for x, before in zip(inputs, kept, strict=True):
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_outputs_are_nobody_elses(op, name):
    """Writing into one rank's output changes neither another's nor an input."""
    inputs = whole_numbers(4, 8, np.dtype(np.float32))
    outputs = run(fitting_schedule(op, name, 4), inputs)
    want = expected(op, [x.copy() for x in inputs])
    outputs[0][:] = -1
    for got, value in zip(outputs[1:], want[1:], strict=True):
        np.testing.assert_array_equal(got, value)
    assert all((x >= 0).all() for x in inputs)


@given(st.sampled_from(ROWS), st.integers(2, 17), st.integers(0, 100), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_any_size_and_number_of_ranks(row, n, size, seed):
    """The outputs are numpy's for arbitrary ranks, sizes and values."""
    op, name = row
    schedule = fitting_schedule(op, name, n)
    inputs = whole_numbers(schedule.n_ranks, size, np.dtype(np.int32), seed)
    check(schedule)
    for got, want in zip(run(schedule, inputs), expected(op, inputs), strict=True):
        np.testing.assert_array_equal(got, want)


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
    factor = {"all_reduce": 2 * 7 / 8, "broadcast": 1.0}.get(op, 7 / 8)
    assert OPERATIONS[op].busbw_factor(8) == factor
