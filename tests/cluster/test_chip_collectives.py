"""Collectives on chips: values against numpy, groups, axes, aliasing and misuse, with data and without."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from cluster import launch
from collectives import cut
from configs.errors import ConfigError, ProgramError
from tests.cluster.machines import array, fitting_system, mesh, ring, switch
from tests.collectives.rows import ROWS, fitting
from workloads.array import ShapeArray
from workloads.chip import Group

NUMERICS = pytest.mark.parametrize("numerics", ["real", "shapes"])
BF16 = np.dtype(ml_dtypes.bfloat16)


def values(chip, shape, dtype):
    """Return whole numbers that differ by chip and place."""
    if not chip.real:
        return ShapeArray(shape, np.dtype(dtype))
    rng = np.random.default_rng([7, chip.rank])
    return rng.integers(0, 16, shape).astype(dtype)


def expected(op, inputs, root=0):
    """Return every member's result by numpy alone."""
    n = len(inputs)
    if op == "broadcast":
        return [inputs[root]] * n
    if op == "all_gather":
        return [np.concatenate(inputs)] * n
    if op == "all_to_all":
        return [np.concatenate([np.split(x, n)[i] for x in inputs]) for i in range(n)]
    total = sum(x.astype(np.int64) for x in inputs)
    return [total] * n if op == "all_reduce" else np.split(total, np.cumsum(cut(len(total), n))[:-1])


def shapes_for(op, n):
    """Input shapes that the operation takes among n chips."""
    even = [(2 * n, 3), (n,), (n, 2, 2)]
    more = {"all_gather": [(1,), (3, 2)], "broadcast": [(1,), (3, 2)], "all_reduce": [(1,), (3, 2), ()]}
    return even + more.get(op, [(n + 1,), (1,)] if op == "reduce_scatter" else [])


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BF16, np.dtype(np.int32)], ids=str)
@pytest.mark.parametrize(("op", "name"), ROWS)
def test_values_and_shapes(op, name, dtype):
    """Results are numpy's, keep the dtype, and have in shapes mode the same shape and the same timeline."""
    for about in (2, 3, 6):
        machine = fitting_system(op, name, about)
        n = fitting(op, name, about)[1]
        for shape in shapes_for(op, n):

            async def program(chip, shape=shape):
                x = values(chip, shape, dtype)
                return x, await getattr(chip, op)(x)

            real, shaped = (
                launch(machine, numerics=numerics, collectives={op: name}).run(program)
                for numerics in ("real", "shapes")
            )
            inputs = [x for x, _ in real.values]
            for (_, got), (_, like), want in zip(real.values, shaped.values, expected(op, inputs), strict=True):
                assert (got.shape, got.dtype) == (like.shape, like.dtype) == (want.shape, dtype)
                np.testing.assert_array_equal(got.astype(np.int64), want)
            assert real.timeline.sha256() == shaped.timeline.sha256()


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_overwriting_input_and_output_changes_nobody(op, name):
    """A program may write into its input right after the call, and into its result."""

    async def program(chip):
        x = values(chip, (4, 2), np.float32)
        kept = x.copy()
        y = await getattr(chip, op)(x)
        x[:] = -1000
        got = y.copy()
        y[:] = -2000
        again = await getattr(chip, op)(kept)
        return kept, got, again

    result = launch(fitting_system(op, name, 4), collectives={op: name}).run(program)
    wanted = expected(op, [x for x, _, _ in result.values])
    for (_, got, again), want in zip(result.values, wanted, strict=True):
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(again, want)


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


# --- misuse ---------------------------------------------------------------------------------------------------------


async def raises(chip):
    """Fail on one chip."""
    if chip.rank == 2:
        raise ValueError("no good")


async def different_operations(chip):
    """Call all_reduce here and all_gather there."""
    await (chip.all_reduce if chip.rank else chip.all_gather)(array(chip, 4))


async def different_sizes(chip):
    """Call with other sizes."""
    await chip.all_reduce(array(chip, 4 + 4 * (chip.rank == 1)))


async def different_shapes(chip):
    """Call with as many elements in another shape."""
    await chip.all_gather(array(chip, (2, 3) if chip.rank else (3, 2)))


async def different_dtypes(chip):
    """Call with as many bytes of another dtype."""
    await chip.all_reduce(array(chip, 4, dtype=np.int32 if chip.rank else np.float32))


async def different_roots(chip):
    """Broadcast from different roots."""
    await chip.broadcast(array(chip, 4), root=chip.rank // 2)


async def different_counts(chip):
    """One chip calls once more."""
    for _ in range(2 if chip.rank == 0 else 1):
        await chip.broadcast(array(chip, 4))


async def different_orders(chip):
    """Two groups in opposite orders on two chips."""
    ranks = ((0, 1, 2, 3), (3, 2, 1, 0))
    for k in (0, 1) if chip.rank % 2 else (1, 0):
        await chip.all_reduce(array(chip, 8), group=chip.group(f"g{k}", ranks[k]))


async def different_names(chip):
    """The same chips under two names."""
    await chip.all_reduce(array(chip, 8), group=chip.group(f"g{chip.rank % 2}", (0, 1, 2, 3)))


async def unmatched_send(chip):
    """Send what nobody takes."""
    if chip.rank == 0:
        await chip.send(array(chip, 4), 1, "lost")


async def unmatched_receive(chip):
    """Wait for what nobody sends."""
    if chip.rank == 0:
        await chip.recv(1, "never")


async def everybody_waits(chip):
    """Receive before sending, all round."""
    await chip.recv((chip.rank + 1) % chip.n_chips, "hidden")
    await chip.send(array(chip, 1), (chip.rank - 1) % chip.n_chips, "hidden")


async def sends_to_itself(chip):
    """Send to oneself."""
    await chip.send(array(chip, 1), chip.rank, "me")


async def sends_to_nobody(chip):
    """Send to a chip that is not there."""
    await chip.send(array(chip, 1), 9)


async def root_outside(chip):
    """Broadcast from a root that is no member."""
    await chip.broadcast(array(chip, 1), root=4)


async def negative_root(chip):
    """Broadcast from the last member, as Python would count."""
    await chip.broadcast(array(chip, 1), root=-1)


async def group_without_me(chip):
    """Name a group of others."""
    chip.group("others", ((chip.rank + 1) % 4,))


async def foreign_group(chip):
    """Use a group made elsewhere that this chip is not in."""
    await chip.all_reduce(array(chip, 1), group=Group("pair", (0, 1)))


async def twice_in_a_group(chip):
    """Name a chip twice."""
    chip.group("double", (0, 1, 2, 3, 0))


async def renamed_group(chip):
    """Use one name for two groups."""
    chip.group("g", (0, 1, 2, 3))
    chip.group("g", (3, 2, 1, 0))


async def uneven_all_to_all(chip):
    """Five rows among four chips."""
    await chip.all_to_all(array(chip, (5, 2)))


async def uneven_reduce_scatter(chip):
    """Five rows of two among four chips."""
    await chip.reduce_scatter(array(chip, (5, 2)))


async def group_beyond_the_run(chip):
    """A group with a chip that does not take part."""
    await chip.all_reduce(array(chip, 8), group=chip.group(f"far {chip.rank}", (chip.rank, 8)))


MISUSE = {
    raises: "chip 2: the program raised ValueError: no good",
    different_operations: r"deadlock: chip 0 waits for|call 0 of group .* calls Collective\(op='all_gather'",
    different_sizes: r"call 0 of group .*|the program raised ValueError|deadlock",
    different_shapes: r"call 0 of group .*shape=\(3, 2\).*shape=\(2, 3\)",
    different_dtypes: r"call 0 of group .*float32.*int32",
    different_roots: r"deadlock|call 0 of group .*root=0.*root=1",
    different_counts: "make different numbers of calls: chip 0: 2, chip 1: 1",
    different_orders: "deadlock: chip 0 waits for chip|operations wait for each other for ever",
    different_names: "deadlock|call 0 of group .*group='g0'.*group='g1'",
    unmatched_send: "chip 0 sends 1 messages 'lost' to chip 1, which receives 0",
    unmatched_receive: r"deadlock: chip 0 waits for chip 1 \(never\)$",
    everybody_waits: r"deadlock: chip 0 waits for chip 1 \(hidden\), chip 1 waits for chip 2 \(hidden\)",
    sends_to_itself: "chip 0 sends 'me' to itself",
    sends_to_nobody: "chip 0 sends to chip 9, which does not take part",
    root_outside: "chip 0: broadcast from root 4 of a group of 4 chips",
    negative_root: "chip 0: broadcast from root -1 of a group of 4 chips",
    group_without_me: r"chip 0: group 'others' is \(1,\); it must name this chip",
    foreign_group: r"chip 2 is not in group 'pair' \(0, 1\)",
    twice_in_a_group: "it must name this chip, and each chip once",
    renamed_group: r"group 'g' was \(0, 1, 2, 3\) and is now \(3, 2, 1, 0\)",
    uneven_all_to_all: "chip 0: all_to_all of 5 rows among 4 chips is uneven",
    uneven_reduce_scatter: r"chip 0: reduce_scatter of 5 rows of \(2,\) among 4 chips is uneven",
    group_beyond_the_run: "chip 8, which does not take part|make different numbers of calls: chip 0: 1, chip 8: 0",
}


@NUMERICS
@pytest.mark.parametrize("program", MISUSE, ids=lambda program: program.__name__)
def test_misuse_is_refused(program, numerics):
    """A program that cannot be right is refused in both numerics, and the message says where."""
    with pytest.raises(ProgramError, match=MISUSE[program]):
        launch(ring(4), numerics=numerics).run(program)


def test_the_cause_is_kept():
    """The program's own exception is the cause of the error."""
    with pytest.raises(ProgramError) as error:
        launch(ring(4)).run(raises)
    assert isinstance(error.value.__cause__, ValueError)


def test_an_unknown_axis_is_refused():
    """The error lists the axes."""

    async def program(chip):
        await chip.all_reduce(array(chip, 1), axis="z")

    with pytest.raises(ConfigError, match="no axis 'z'; the axes are x, y"):
        launch(mesh(2, 2)).run(program)


@NUMERICS
def test_an_algorithm_that_does_not_fit_is_refused(numerics):
    """Nine chips of a mesh have no ring of neighbours."""

    async def program(chip):
        await chip.all_reduce(array(chip, 9))

    with pytest.raises(
        ConfigError, match="ring_neighbours: no ring of neighbours is known for these 9 chips of a mesh"
    ):
        launch(mesh(3, 3), numerics=numerics, collectives={"all_reduce": "ring_neighbours"}).run(program)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_chips": 0}, "0 chips asked for; accepted: 1 to 4"),
        ({"n_chips": 5}, "5 chips asked for; accepted: 1 to 4"),
        ({"collectives": {"all_reduce": "rng"}}, "collectives.all_reduce: 'rng' .*did you mean 'ring'"),
        ({"collectives": {"allreduce": "ring"}}, "collectives: 'allreduce' .*did you mean 'all_reduce'"),
        ({"contention": "nonee"}, "contention: 'nonee' .*accepted: fluid, none"),
        ({"numerics": "float"}, "numerics: 'float' .*accepted: real, shapes"),
        ({"backend": "mpi"}, "backend: 'mpi'; accepted: local, ray"),
    ],
)
def test_launch_refuses_what_it_does_not_know(arguments, message):
    """Words and counts that do not exist are refused before anything runs."""
    with pytest.raises(ConfigError, match=message):
        launch(ring(4), **arguments)


@NUMERICS
def test_part_of_a_system(numerics):
    """With n_chips the first chips run, and `all` means those."""

    async def program(chip):
        return (await chip.all_gather(array(chip, 1, chip.rank))).shape

    assert launch(ring(5), n_chips=3, numerics=numerics).run(program).values == [(3,)] * 3
