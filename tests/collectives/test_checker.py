"""The checker refuses every schedule that is a little wrong."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives import ALGORITHMS, OPERATIONS, Schedule, ScheduleError, Transfer, check
from tests.collectives.rows import ROWS, detail_of, fitting_schedule, ring_of, switch_of


def with_transfers(schedule: Schedule, transfers) -> Schedule:
    """Return the schedule with other transfers."""
    return evolve(schedule, transfers=tuple(transfers))


def drop(schedule: Schedule, i: int) -> Schedule:
    """Leave a transfer out."""
    return with_transfers(schedule, schedule.transfers[:i] + schedule.transfers[i + 1 :])


def duplicate(schedule: Schedule, i: int) -> Schedule:
    """Send a transfer twice in its step."""
    return with_transfers(schedule, schedule.transfers[: i + 1] + schedule.transfers[i:])


def swap_chunk(schedule: Schedule, i: int) -> Schedule:
    """Send the next chunk instead."""
    t = schedule.transfers[i]
    chunks = tuple((c + 1) % schedule.n_chunks for c in t.chunks)
    return with_transfers(schedule, (*schedule.transfers[:i], t._replace(chunks=chunks), *schedule.transfers[i + 1 :]))


def turn_reduce(schedule: Schedule, i: int) -> Schedule:
    """Make a copy of a sum, or a sum of a copy."""
    t = schedule.transfers[i]
    return with_transfers(
        schedule, (*schedule.transfers[:i], t._replace(reduce=not t.reduce), *schedule.transfers[i + 1 :])
    )


def redirect(schedule: Schedule, i: int) -> Schedule:
    """Send to another rank."""
    t = schedule.transfers[i]
    dst = next(r for k in range(1, 4) if (r := (t.dst + k) % schedule.n_ranks) != t.src)
    return with_transfers(schedule, (*schedule.transfers[:i], t._replace(dst=dst), *schedule.transfers[i + 1 :]))


MUTATIONS = [drop, duplicate, swap_chunk, turn_reduce, redirect]


@pytest.mark.parametrize("mutate", MUTATIONS)
@pytest.mark.parametrize(("op", "name"), ROWS)
@pytest.mark.parametrize("n", [3, 4, pytest.param(7, marks=pytest.mark.heavy)])
def test_every_mutation_of_every_transfer_is_refused(op, name, n, mutate):
    """Whichever transfer is changed, the schedule is refused: none of ours has a transfer that is not needed.

    A partial sum that takes a short cut still arrives, so sums are not redirected; and a switch that holds nothing may
    add or keep.
    """
    schedule = fitting_schedule(op, name, n)
    detail = detail_of(op, schedule.n_ranks)
    check(schedule, detail)
    for i, t in enumerate(schedule.transfers):
        if (mutate is swap_chunk and len(t.chunks) == schedule.n_chunks) or (mutate is redirect and t.reduce):
            continue
        if mutate is turn_reduce and t.dst >= schedule.n_ranks and not t.reduce:
            continue
        with pytest.raises(ScheduleError, match=name):
            check(mutate(schedule, i), detail)


@pytest.mark.parametrize(("op", "name"), ROWS)
def test_the_last_step_is_needed(op, name):
    """Without its last step a schedule ends too early, and the message says which rank lacks what."""
    schedule = fitting_schedule(op, name, 6)
    last = schedule.n_steps - 1
    shorter = with_transfers(schedule, [t for t in schedule.transfers if t.step < last])
    with pytest.raises(ScheduleError, match=r"rank \d ends with chunk \d+ holding the data of \[.*\], not of \["):
        check(shorter, detail_of(op, schedule.n_ranks))


@pytest.mark.parametrize("root", [1, 3])
def test_the_wrong_root_is_refused(root):
    """A tree from another root sends what the root's rank does not hold."""
    with pytest.raises(ScheduleError, match=f"rank {root} does not hold chunk 0"):
        check(ALGORITHMS["broadcast"]["binomial"](switch_of(5), root), 0)


def test_reading_in_the_step_of_writing_is_refused():
    """All sends of a step read what was held before the step."""
    hop = (Transfer(0, 0, 1, (0,)), Transfer(0, 1, 2, (0,)))
    with pytest.raises(ScheduleError, match="rank 1 does not hold chunk 0"):
        check(Schedule("broadcast", "chain", 3, 1, hop))
    check(Schedule("broadcast", "chain", 3, 1, (hop[0], hop[1]._replace(step=1))))


def test_two_sums_in_one_step_are_fine_and_two_copies_are_not():
    """Sums of different ranks into one chunk may meet in a step; a copy beside them may not."""
    sums = tuple(Transfer(0, i, j, (j,), reduce=True) for i in range(3) for j in range(3) if i != j)
    check(Schedule("reduce_scatter", "direct", 3, 3, sums))
    mixed = (sums[0], *(t for t in sums[1:] if t.dst != sums[0].dst), sums[0]._replace(src=2, reduce=False))
    with pytest.raises(ScheduleError, match="is written twice in a step"):
        check(Schedule("reduce_scatter", "direct", 3, 3, mixed))


def test_adding_to_nothing_is_refused():
    """A sum needs a value of its own to add to."""
    with pytest.raises(ScheduleError, match="rank 1 has no chunk 0 to add to"):
        check(Schedule("all_gather", "odd", 2, 2, (Transfer(0, 0, 1, (0,), reduce=True), Transfer(0, 1, 0, (1,)))))


def test_a_sum_that_counts_a_rank_twice_is_refused():
    """Two rounds of adding whole buffers would count every rank twice."""
    once = (Transfer(0, 0, 1, (0,), reduce=True), Transfer(0, 1, 0, (0,), reduce=True))
    check(Schedule("all_reduce", "exchange", 2, 1, once))
    with pytest.raises(ScheduleError, match="would hold a rank's data twice"):
        check(Schedule("all_reduce", "exchange", 2, 1, (*once, *(t._replace(step=1) for t in once))))


def test_chunks_must_fall_into_parts():
    """Seven chunks cannot be the parts of three ranks."""
    with pytest.raises(ScheduleError, match="7 chunks are not a multiple of 3"):
        check(Schedule("all_gather", "odd", 3, 7, ()))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_random_schedules_agree_with_a_run_on_sets(data):
    """On arbitrary transfers the checker accepts exactly what a run on sets of (rank, chunk) accepts."""
    n = data.draw(st.integers(2, 3))
    op = data.draw(st.sampled_from(["all_gather", "all_reduce", "reduce_scatter", "broadcast"]))
    k = 1 if op in {"all_reduce", "broadcast"} else n
    transfer = st.tuples(st.integers(0, 2), st.integers(0, n - 1), st.integers(0, n - 1), st.integers(0, k - 1))
    drawn = data.draw(st.lists(st.tuples(transfer, st.booleans()), max_size=7))
    transfers = sorted((Transfer(s, a, b, (c,), red) for (s, a, b, c), red in drawn if a != b), key=lambda t: t.step)
    schedule = Schedule(op, "random", n, k, tuple(transfers))
    if accepted_on_sets(schedule):
        check(schedule)
    else:
        with pytest.raises(ScheduleError):
            check(schedule)


def accepted_on_sets(schedule: Schedule) -> bool:
    """Return whether the schedule is right, by running it on frozen sets of ranks."""
    operation, n, k = OPERATIONS[schedule.op], schedule.n_ranks, schedule.n_chunks
    held = [{c: [r] for c in range(k) if operation.starts(n, k, 0, r, c)} for r in range(n)]
    for step in sorted({t.step for t in schedule.transfers}):
        before = [dict(h) for h in held]
        now = [t for t in schedule.transfers if t.step == step]
        if any(t.chunks[0] not in before[t.src] for t in now):
            return False
        for dst in range(n):
            for c in range(k):
                writes = [t for t in now if (t.dst, t.chunks[0]) == (dst, c)]
                if len(writes) > 1 and not all(t.reduce for t in writes):
                    return False
                for t in writes:
                    if t.reduce and c not in held[dst]:
                        return False
                    held[dst][c] = (held[dst][c] if t.reduce else []) + before[t.src][c]
                    if len(set(held[dst][c])) != len(held[dst][c]):
                        return False
    ring = range(n)
    wanted = {c: [r for r in ring if operation.starts(n, k, 0, r, c)] for c in range(k)}
    return all(sorted(held[r].get(c, [])) == wanted[c] for r in ring for c in range(k) if operation.ends(n, k, 0, r, c))


def test_the_check_of_a_large_ring_is_complete():
    """One wrong chunk among 64 ranks is found."""
    schedule = ALGORITHMS["all_gather"]["ring"](ring_of(64), 0)
    with pytest.raises(ScheduleError):
        check(swap_chunk(schedule, 2000))


def test_helpers_begin_with_nothing_and_add():
    """A switch keeps what is added to nothing; it holds nothing that was not sent to it, and no rank's data twice."""
    up = [Transfer(0, r, 2, (0,), reduce=True) for r in range(2)]
    down = [Transfer(1, 2, r, (0,)) for r in range(2)]
    check(Schedule("all_reduce", "mine", 2, 1, [*up, *down], helpers=(7,)))
    with pytest.raises(ScheduleError, match="rank 2 does not hold chunk 0"):
        check(Schedule("all_reduce", "mine", 2, 1, down, helpers=(7,)))
    with pytest.raises(ScheduleError, match="twice"):
        check(Schedule("all_reduce", "mine", 2, 1, [*up, up[0]._replace(step=1)], helpers=(7,)))
    with pytest.raises(ValueError, match="does not join two of 2 ranks"):
        Schedule("all_reduce", "mine", 2, 1, up)
