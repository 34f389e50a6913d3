"""Collectives on chips: values against numpy, groups, axes, aliasing and misuse, with data and without."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from cluster import launch
from collectives import OPERATIONS, cut
from tests.cluster.machines import BURN, array, fitting_system, mesh, ring, switch
from tests.collectives.rows import ROWS, detail_of, fitting
from workloads.array import ShapeArray

NUMERICS = pytest.mark.parametrize("numerics", ["real", "shapes"])
BF16 = np.dtype(ml_dtypes.bfloat16)
COUNTS = [(np.float32, (2, 3, 6)), (BF16, (3,)), (np.int32, (3,))]
OTHER_COUNTS = [(np.float32, (1, 5, 7, 13, 33))]
OTHER_COUNTS += [(dtype, (1, 2, 3, 5, 6, 7, 13, 33)) for dtype in (BF16, np.int32, np.float16, np.int8)]


def values(chip, shape, dtype):
    """Return whole numbers that differ by chip and place; their sums over all chips are exact in every dtype."""
    if not chip.real:
        return ShapeArray(shape, np.dtype(dtype))
    rng = np.random.default_rng([7, chip.rank])
    return rng.integers(0, min(16, 1 + 127 // chip.n_chips), shape).astype(dtype)


def expected(op, inputs, root=0):
    """Return every member's result by numpy alone; None where a member gets none."""
    n, detail = len(inputs), detail_of(op, len(inputs))
    if op in {"all_gather", "gather"}:
        outputs = [np.concatenate(inputs)] * n
    elif op == "all_to_all":
        outputs = [np.concatenate([np.split(x, n)[i] for x in inputs]) for i in range(n)]
    elif op == "all_to_all_v":
        parts = [np.split(x, np.cumsum(detail[r])[:-1]) for r, x in enumerate(inputs)]
        outputs = [np.concatenate([part[i] for part in parts]) for i in range(n)]
    elif op == "scatter":
        outputs = np.split(inputs[root], np.cumsum(cut(len(inputs[root]), n))[:-1])
    elif op == "permute":
        source = {dst: src for src, dst in detail}
        outputs = [inputs[source[r]] if r in source else np.zeros_like(inputs[r]) for r in range(n)]
    elif op == "broadcast":
        outputs = [inputs[root]] * n
    elif op == "barrier":
        outputs = [None] * n
    else:
        total = sum(x.astype(np.int64) for x in inputs)
        outputs = np.split(total, np.cumsum(cut(len(total), n))[:-1]) if op == "reduce_scatter" else [total] * n
    return [y if op not in {"reduce", "gather"} or r == root else None for r, y in enumerate(outputs)]


async def call(chip, op, x):
    """Call the operation among all chips, with what it takes besides `x`."""
    if op == "barrier":
        return await chip.barrier()
    more = (detail_of(op, chip.n_chips),) if OPERATIONS[op].detail in {"pairs", "rows"} else ()
    return await getattr(chip, op)(x, *more)


def input_shape(op, chip, shape):
    """Return the shape of the chip's input: as many rows as it sends, where it may send any number."""
    if op != "all_to_all_v":
        return shape
    return sum(detail_of(op, chip.n_chips)[chip.rank]), *shape[1:]


def shapes_for(op, n):
    """Input shapes that the operation takes among n chips."""
    even = [(2 * n, 3), (n,), (n, 2, 2)]
    more = {"all_gather": [(1,), (3, 2)], "broadcast": [(1,), (3, 2)], "all_reduce": [(1,), (3, 2), ()]}
    return even + more.get(op, [(n + 1,), (1,)] if op == "reduce_scatter" else [])


@pytest.mark.parametrize(
    ("dtype", "abouts"), [*COUNTS, *(pytest.param(*row, marks=pytest.mark.heavy) for row in OTHER_COUNTS)]
)
@pytest.mark.parametrize(("op", "name"), ROWS)
def test_values_and_shapes(op, name, dtype, abouts):
    """Results are numpy's, keep the dtype, and have in shapes mode the same shape and the same timeline."""
    for about in abouts:
        machine = fitting_system(op, name, about)
        n = fitting(op, name, about)[1]
        for shape in shapes_for(op, n):

            async def program(chip, shape=shape):
                x = values(chip, input_shape(op, chip, shape), dtype)
                return x, await call(chip, op, x)

            real, shaped = (
                launch(machine, numerics=numerics, collectives={op: name}).run(program)
                for numerics in ("real", "shapes")
            )
            inputs = [x for x, _ in real.values]
            for (_, got), (_, like), want in zip(real.values, shaped.values, expected(op, inputs), strict=True):
                assert (got is None) == (like is None) == (want is None)
                if want is None:
                    continue
                assert (got.shape, got.dtype) == (like.shape, like.dtype) == (want.shape, dtype)
                np.testing.assert_array_equal(got.astype(np.int64), want)
            assert real.timeline.sha256() == shaped.timeline.sha256()


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_overwriting_input_and_output_changes_nobody(op, name):
    """A program may write into its input right after the call, and into its result."""

    async def program(chip):
        x = values(chip, input_shape(op, chip, (4, 2)), np.float32)
        kept = x.copy()
        y = await call(chip, op, x)
        x[:] = -1000
        got = None if y is None else y.copy()
        if y is not None:
            y[:] = -2000
        again = await call(chip, op, kept)
        return kept, got, again

    result = launch(fitting_system(op, name, 4), collectives={op: name}).run(program)
    wanted = expected(op, [x for x, _, _ in result.values])
    for (_, got, again), want in zip(result.values, wanted, strict=True):
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(again, want)


@NUMERICS
@pytest.mark.parametrize("reduction", ["sum", "max", "min"])
def test_reductions(reduction, numerics):
    """The largest and the smallest are found as the sum is, in the same time."""

    async def program(chip):
        x = array(chip, 8, chip.rank)
        whole = await chip.all_reduce(x, reduction=reduction)
        part = await chip.reduce_scatter(x, reduction=reduction)
        at_root = await chip.reduce(x, root=2, reduction=reduction)
        if not chip.real:
            return None
        return float(whole[0]), part.tolist(), None if at_root is None else float(at_root[7])

    result = launch(ring(4), numerics=numerics).run(program)
    assert result.timeline.total_ps == launch(ring(4), numerics=numerics).run(program).timeline.total_ps
    if numerics == "real":
        want = {"sum": 6.0, "max": 3.0, "min": 0.0}[reduction]
        assert result.values == [(want, [want] * 2, want if rank == 2 else None) for rank in range(4)]


@NUMERICS
def test_a_barrier_waits_for_the_slowest(numerics):
    """Nobody passes before all are there, and it takes ⌈log2 n⌉ α."""

    async def program(chip):
        if chip.rank == 3:
            chip.apply(BURN, array(chip, 1), flops=5_000_000)
        await chip.barrier()
        chip.emit("passed")

    timeline = launch(switch(5, latency_ps=100), numerics=numerics).run(program).timeline
    assert {e.end_ps for e in timeline.events() if e.operation == "barrier"} == {5_000_000 + 3 * 200}


def test_overwriting_a_sent_or_emitted_array_changes_nothing():
    """A message and an emitted value are what they were at the call."""
    seen = []

    async def program(chip):
        x = np.full(3, chip.rank, np.float32)
        chip.emit("x", x)
        await chip.send(x, (chip.rank + 1) % 2)
        x[:] = -1
        got = await chip.recv((chip.rank + 1) % 2)
        got[:] += 10
        return got.tolist()

    result = launch(ring(2)).run(program, on_emit=lambda rank, _name, value, _index: seen.append((rank, value)))
    assert result.values == [[11.0] * 3, [10.0] * 3]
    assert [(rank, value.tolist()) for rank, value in seen] == [(0, [0.0] * 3), (1, [1.0] * 3)]


def test_groups_on_axes():
    """A collective along an axis joins the chips of its line, in the order of the coordinate."""

    async def program(chip):
        x = np.array([chip.rank])
        return [(await chip.all_gather(x, axis=a)).tolist() for a in ("x", "y")]

    values_ = launch(mesh(3, 2)).run(program).values
    assert values_[0] == [[0, 2, 4], [0, 1]]
    assert values_[5] == [[1, 3, 5], [4, 5]]


@NUMERICS
def test_several_groups_at_once(numerics):
    """Groups that share no chip run at the same time; those on the same links share them."""

    async def program(chip, n_groups):
        k = chip.rank % 2
        if k < n_groups:
            group = chip.group("halves", tuple(range(k, 4, 2)))
            y = await chip.all_gather(array(chip, 250, chip.rank), group=group)
            return None if not chip.real else sorted(set(y.tolist()))
        return None

    line = mesh(4, 1, bandwidth=1e9, latency_ps=0)
    one = launch(line, numerics=numerics).run(program, 1)
    two = launch(line, numerics=numerics).run(program, 2)
    assert one.timeline.total_ps == 1_000_000
    assert two.timeline.total_ps == 2_000_000  # 0↔2 and 1↔3 share the edge between 1 and 2
    if numerics == "real":
        assert two.values == [[0.0, 2.0], [1.0, 3.0], [0.0, 2.0], [1.0, 3.0]]


@NUMERICS
def test_unequal_groups_and_repeated_calls(numerics):
    """Groups of 1, 2 and 4 chips call different numbers of times, in an order of their own."""

    async def program(chip):
        ranks = {0: (0,), 1: (1, 2), 2: (1, 2)}.get(chip.rank, (6, 5, 4, 3))
        group = chip.group("mine", ranks)
        total = 0.0
        for size in range(1, len(ranks) + 2):
            y = await chip.all_reduce(array(chip, size, chip.rank), group=group)
            total += float(y.sum()) if chip.real else 0
        everyone = await chip.all_reduce(array(chip, 1, chip.rank))
        return total, float(everyone[0]) if chip.real else 0

    result = launch(switch(7), numerics=numerics).run(program)
    if numerics == "real":
        assert result.values == [(0.0, 21.0), *[(18.0, 21.0)] * 2, *[(270.0, 21.0)] * 4]


def test_the_order_of_a_group_is_the_order_of_the_result():
    """all_gather and all_to_all follow the group's order, and roots are indices in it."""

    async def program(chip):
        group = chip.group("back", (2, 1, 0))
        x = np.array([chip.rank * 10 + i for i in range(3)])
        root = await chip.broadcast(x, root=0, group=group)
        return (
            (await chip.all_gather(x[:1], group=group)).tolist(),
            (await chip.all_to_all(x, group=group)).tolist(),
            int(root[0]),
        )

    gathered, exchanged, root = launch(ring(3)).run(program).values[1]
    assert (gathered, exchanged, root) == ([20, 10, 0], [21, 11, 1], 20)


@NUMERICS
def test_a_group_of_one_takes_no_time(numerics):
    """A collective with oneself returns a copy at once."""

    async def program(chip):
        x = array(chip, (2, 2), 3)
        y = await chip.all_reduce(x, group=chip.group(f"only {chip.rank}", (chip.rank,)))
        return x is not y and y.shape == (2, 2)

    result = launch(ring(3), numerics=numerics).run(program)
    assert result.values == [True] * 3
    assert result.timeline.total_ps == 0


@NUMERICS
def test_messages_keep_their_order_and_tags(numerics):
    """Messages under one tag arrive in order; a tag may be taken before an earlier one of another tag."""

    async def program(chip):
        if chip.rank == 0:
            for i, tag in enumerate(["a", "b", "a"]):
                await chip.send(array(chip, i + 1), 1, tag)
            return None
        return [(await chip.recv(0, tag)).shape[0] for tag in ["b", "a", "a"]]

    assert launch(ring(2), numerics=numerics).run(program).values[1] == [2, 1, 3]


@NUMERICS
def test_part_of_a_system(numerics):
    """With n_chips the first chips run, and `all` means those."""

    async def program(chip):
        return (await chip.all_gather(array(chip, 1, chip.rank))).shape

    assert launch(ring(5), n_chips=3, numerics=numerics).run(program).values == [(3,)] * 3
