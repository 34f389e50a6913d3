"""Programs that cannot be right are refused, with data and without, and the message says where."""

from __future__ import annotations

import numpy as np
import pytest

from cluster import launch
from configs.errors import ConfigError, ProgramError
from tests.cluster.machines import array, mesh, ring
from workloads.chip import Group

NUMERICS = pytest.mark.parametrize("numerics", ["real", "shapes"])


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


async def root_outside_of_a_gather(chip):
    """Gather at a root that is no member."""
    await chip.gather(array(chip, 1), root=7)


async def different_reductions(chip):
    """The sum here, the largest there."""
    await chip.all_reduce(array(chip, 4), reduction="max" if chip.rank else "sum")


async def unknown_reduction(chip):
    """The mean, which is none."""
    await chip.reduce(array(chip, 4), reduction="mean")


async def uneven_scatter(chip):
    """Five rows of two among four chips."""
    await chip.scatter(array(chip, (5, 2)))


async def two_sources(chip):
    """Two chips send to one."""
    await chip.permute(array(chip, 4), [(0, 1), (2, 1)])


async def one_source_twice(chip):
    """One chip sends to two."""
    await chip.permute(array(chip, 4), [(0, 1), (0, 2)])


async def pair_outside(chip):
    """A pair with a chip that is not there."""
    await chip.permute(array(chip, 4), [(0, 4)])


async def pairs_of_words(chip):
    """Pairs that are no numbers."""
    await chip.permute(array(chip, 4), ["up", "down"])


async def pairs_of_fractions(chip):
    """Pairs that are no whole numbers."""
    await chip.permute(array(chip, 4), [(0.7, 1.2)])


async def different_pairs(chip):
    """Every chip names a pair of its own."""
    await chip.permute(array(chip, 4), [(chip.rank, (chip.rank + 1) % 4)])


async def wrong_number_of_rows(chip):
    """Four rows announced, three given."""
    await chip.all_to_all_v(array(chip, (3, 2)), [[1] * 4] * 4)


async def table_too_small(chip):
    """A table for three chips."""
    await chip.all_to_all_v(array(chip, (3, 2)), [[1] * 3] * 3)


async def gather_of_a_number(chip):
    """An array without rows."""
    await chip.gather(array(chip, ()))


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


async def never_awaited(chip):
    """Start and forget."""
    chip.start(chip.all_reduce(array(chip, 4)))
    chip.start(chip.send(array(chip, 4), (chip.rank + 1) % 4, "on"))
    await chip.recv((chip.rank - 1) % 4, "on")


async def awaited_twice(chip):
    """Take a result twice."""
    handle = chip.start(chip.all_reduce(array(chip, 4)))
    await handle
    await handle


async def awaited_for_its_start(chip):
    """Await the operation that was started, not its handle."""
    operation = chip.all_reduce(array(chip, 4))
    await chip.start(operation)
    await operation


async def started_twice(chip):
    """Start the same operation again."""
    operation = chip.barrier()
    await chip.start(operation)
    await chip.start(operation)


async def neither_awaited_nor_started(chip):
    """Ask for an operation, and for another."""
    chip.send(array(chip, 4), (chip.rank + 1) % 4, "on")
    await chip.recv((chip.rank - 1) % 4, "on")


async def forgotten_at_the_end(chip):
    """End with an operation that never began."""
    chip.barrier()


async def starts_a_handle(chip):
    """Start what is under way."""
    handle = chip.start(chip.barrier())
    chip.start(handle)


async def different_orders_of_start(chip):
    """Start an all_reduce first here, an all_gather there."""
    order = (chip.all_reduce, chip.all_gather) if chip.rank else (chip.all_gather, chip.all_reduce)
    for handle in [chip.start(op(array(chip, 4))) for op in order]:
        await handle


async def started_here_alone(chip):
    """One chip starts what the others never do."""
    if chip.rank == 0:
        await chip.start(chip.barrier())


async def waits_for_each_other(chip):
    """Await a started receive before sending, all round."""
    handle = chip.start(chip.recv((chip.rank + 1) % chip.n_chips, "hidden"))
    await handle
    await chip.send(array(chip, 1), (chip.rank - 1) % chip.n_chips, "hidden")


async def receives_from_itself(chip):
    """Receive from oneself."""
    await chip.recv(chip.rank, "me")


MISUSE = {
    never_awaited: r"chip \d started and never awaited: all_reduce of group 'all' \(number 0\); send 'on' to chip \d",
    awaited_twice: "chip 0: all_reduce of group 'all', started as number 0, is awaited a second time",
    awaited_for_its_start: "chip 0: all_reduce of group 'all' is awaited or started a second time",
    started_twice: "chip 0: barrier of group 'all' is awaited or started a second time",
    neither_awaited_nor_started: "chip 0: send 'on' to chip 1 is asked for and neither awaited nor started",
    forgotten_at_the_end: "chip 0: barrier of group 'all' is asked for and neither awaited nor started",
    starts_a_handle: r"chip 0 starts .*; accepted: an operation of this chip, as in chip.start\(chip.all_reduce\(x\)\)",
    different_orders_of_start: "deadlock: chip 0 waits for chip|call 0 of group .*all_gather.*all_reduce",
    started_here_alone: "deadlock: chip 0 waits for chip|make different numbers of calls: chip 0: 1, chip 1: 0",
    waits_for_each_other: r"deadlock: chip 0 waits for chip 1 \(hidden\), chip 1 waits for chip 2 \(hidden\)",
    receives_from_itself: "chip 0 receives 'me' from itself",
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
    root_outside_of_a_gather: "chip 0: gather to root 7 of a group of 4 chips",
    different_reductions: "call 0 of group .*reduction='sum'.*reduction='max'",
    unknown_reduction: "chip 0: reduce with reduction 'mean'; accepted: sum, max, min",
    uneven_scatter: r"chip 0: scatter of 5 rows of \(2,\) among 4 chips is uneven",
    two_sources: "chip 0: permute of .*: destination 1 is there twice",
    one_source_twice: "chip 0: permute of .*: source 0 is there twice",
    pair_outside: "chip 0: permute of .*; accepted: pairs of places in a group of 4 chips",
    pairs_of_words: "chip 0: .*'up'.* is no table of whole numbers",
    pairs_of_fractions: "chip 0: .*0.7.* is no table of whole numbers",
    different_pairs: "deadlock|call 0 of group .*table=",
    wrong_number_of_rows: r"chip 0: all_to_all_v sends \(1, 1, 1, 1\) rows and was given 3",
    table_too_small: "chip 0: all_to_all_v of rows .*; accepted: 4 times 4 numbers of rows",
    gather_of_a_number: "chip 0: gather of a single number; accepted: an array with rows",
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
        ({"n_chips": 2.5}, "2.5 chips asked for; accepted: 1 to 4"),
        ({"collectives": {"all_reduce": None}}, "collectives.all_reduce: None; accepted: the name of an algorithm"),
        ({"collectives": {"all_reduce": "rng"}}, "collectives.all_reduce: 'rng' .*did you mean 'ring'"),
        ({"collectives": {"allreduce": "ring"}}, "collectives: 'allreduce' .*did you mean 'all_reduce'"),
        ({"contention": "nonee"}, "contention: 'nonee' .*accepted: fluid, none"),
        ({"numerics": "float"}, "numerics: 'float' .*accepted: real, shapes"),
        ({"backend": "mpi"}, "backend: 'mpi'; accepted: local, ray"),
        ({"on_failure": "retry"}, "on_failure: 'retry' .*accepted: fail, restart"),
        ({"checkpoint_every": 4}, "checkpoint_every: 4 with on_failure 'fail'; accepted: .* with on_failure 'restart'"),
        ({"on_failure": "restart", "checkpoint_every": 0}, "checkpoint_every: 0 .*accepted: a number of steps ≥ 1"),
    ],
)
def test_launch_refuses_what_it_does_not_know(arguments, message):
    """Words and counts that do not exist are refused before anything runs."""
    with pytest.raises(ConfigError, match=message):
        launch(ring(4), **arguments)


@NUMERICS
@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda chip: chip.pause("rest", -5), "pause 'rest' of -5 ps; accepted: a whole number from 0 to"),
        (lambda chip: chip.pause("rest", 1.5), r"pause 'rest' of 1\.5 ps"),
        (lambda chip: chip.pause("rest", 10**19), "pause 'rest' of 10{19} ps"),
        (lambda chip: chip.place("w", (-1, 4), "bf16"), r"tensor 'w' of shape \(-1, 4\); accepted: whole numbers"),
        (lambda chip: chip.place("w", (4, 4), "bf17"), "tensor 'w' of 'bf17'; accepted: .*bf16"),
        (lambda chip: chip.place("w", (4, 4), "bf16", np.ones((4, 5))), r"\(4, 4\) is given values of shape \(4, 5\)"),
        (lambda chip: chip.all_reduce([1, 2]), r"all_reduce of \[1, 2\]; accepted: a numpy array"),
        (lambda chip: chip.all_gather(np.array(["a"])), "all_gather of an array of <U1; accepted: numbers"),
        (lambda chip: chip.send(np.array([None]), 1), "send '' of an array of object; accepted: numbers"),
    ],
)
def test_a_chip_refuses_what_cannot_be(numerics, ask, message):
    """Times, shapes, formats and arrays that make no sense are refused where they are given."""

    async def program(chip):
        if chip.rank == 0:
            ask(chip)

    with pytest.raises(ProgramError, match=f"^chip 0: .*{message}"), launch(ring(2), numerics=numerics) as cluster:
        cluster.run(program)
