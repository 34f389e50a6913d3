"""The timeline engine against the slow reference, and the laws of the fluid model."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.timeline.engine import play
from configs.errors import ProgramError
from tests.cluster.fluid_reference import Task, fair_rates, graph_of, simulate
from tests.strategies import topologies

GB = 1e9


def routed(topology, src, dst):
    """Return the links and weights of a route, as a task has them."""
    route = topology.route(src, dst)
    return tuple(zip(route.links.tolist(), route.weights.tolist(), strict=True))


@st.composite
def traffic(draw, max_tasks=14):
    """A topology's capacities, some links faster, and tasks over its routes: kernels, transfers, with dependencies."""
    topology = draw(topologies())
    n_links = len(topology.link_src)
    faster = draw(st.just([1] * n_links) | st.lists(st.sampled_from([1, 2, 3]), min_size=n_links, max_size=n_links))
    tasks = []
    for i in range(draw(st.integers(1, max_tasks))):
        src, dst = draw(
            st.lists(st.integers(0, topology.n_chips - 1), min_size=2, max_size=2, unique=True),
        )
        delay = draw(st.one_of(st.just(0), st.integers(0, 3_000_000), st.sampled_from([10**6, 2 * 10**6])))
        size = draw(st.one_of(st.integers(0, 3), st.integers(0, 20_000), st.sampled_from([1000, 10**6])))
        links = () if draw(st.integers(0, 5)) == 0 else routed(topology, src, dst)
        after = draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else ()
        tasks.append(Task(delay, size, links, tuple(after)))
    return topology.link_bandwidth_bytes_per_s * faster, shuffled(tasks, draw(st.permutations(range(len(tasks)))))


def shuffled(tasks, order):
    """Return the tasks in another numbering."""
    place = {old: new for new, old in enumerate(order)}
    return [Task(t.delay_ps, t.size, t.links, tuple(place[j] for j in t.after)) for t in (tasks[old] for old in order)]


def compare(tasks, capacity, *, share=True):
    """Require equal starts and ends, within 2 ps or 1e-9."""
    played = play(graph_of(tasks), np.asarray(capacity), share=share)
    wanted = np.array(simulate(tasks, capacity, share=share), np.int64)
    for got, want in ((played.start_ps, wanted[:, 0]), (played.end_ps, wanted[:, 1])):
        assert np.all(np.abs(got - want) <= np.maximum(2, 1e-9 * want)), (got.tolist(), want.tolist())
    return played


@given(traffic())
@settings(max_examples=150, deadline=None)
def test_the_engine_is_the_reference(case):
    """Starts and ends on random topologies, routes, sizes, delays and dependencies are those of the reference."""
    capacity, tasks = case
    compare(tasks, capacity)


@pytest.mark.heavy
@given(traffic(max_tasks=30))
@settings(max_examples=2000, deadline=None)
def test_the_engine_is_the_reference_on_more(case):
    """The same on larger and many more cases."""
    capacity, tasks = case
    compare(tasks, capacity)


@given(traffic(max_tasks=10))
@settings(max_examples=50, deadline=None)
def test_without_contention(case):
    """With `contention: none` every transfer has its own links for itself, as in the reference."""
    capacity, tasks = case
    compare(tasks, capacity, share=False)


@given(traffic())
@settings(max_examples=80, deadline=None)
def test_no_link_carries_more_than_it_can(case):
    """In any window of time, what begins and ends in it on a link is at most capacity times window."""
    capacity, tasks = case
    played = play(graph_of(tasks), capacity)
    for link, room in enumerate(capacity):
        users = [
            (int(played.start_ps[i]) + t.delay_ps, int(played.end_ps[i]), t.size * dict(t.links)[link])
            for i, t in enumerate(tasks)
            if t.size and link in dict(t.links)
        ]
        for begin, _, _ in users:
            for _, end, _ in users:
                carried = sum(size for b, e, size in users if b >= begin and e <= end)
                assert carried <= room * (max(end - begin, 0) + len(users) + 1) * 1e-12 * (1 + 1e-9)


@given(traffic())
@settings(max_examples=60, deadline=None)
def test_bytes_are_kept(case):
    """Every link carries the weights times the sizes of the transfers over it, whatever the order."""
    capacity, tasks = case
    for share in (True, False):
        carried = np.zeros(len(capacity))
        for t in tasks:
            for link, weight in t.links:
                carried[link] += weight * t.size
        np.testing.assert_allclose(play(graph_of(tasks), capacity, share=share).link_bytes, carried, rtol=1e-12)


@given(traffic())
@settings(max_examples=60, deadline=None)
def test_order_and_least_times(case):
    """Nothing begins before what it waits for has ended, and nothing is faster than alone on its route."""
    capacity, tasks = case
    graph = graph_of(tasks)
    shared, alone = (play(graph, capacity, share=share) for share in (True, False))
    for i, t in enumerate(tasks):
        assert shared.start_ps[i] == max((int(shared.end_ps[j]) for j in t.after), default=0)
        least = alone.end_ps[i] - alone.start_ps[i]
        assert shared.end_ps[i] - shared.start_ps[i] >= least - 1


@given(traffic(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_numbering_of_tasks_does_not_matter(case, random):
    """Another numbering of the same tasks gives the same times, but for the last bit of the arithmetic."""
    capacity, tasks = case
    order = list(range(len(tasks)))
    random.shuffle(order)
    first, second = (play(graph_of(t), capacity) for t in (tasks, shuffled(tasks, order)))
    assert np.all(np.abs(second.end_ps - first.end_ps[order]) <= 2)


@given(traffic())
@settings(max_examples=20, deadline=None)
def test_ten_runs_one_digest(case):
    """The same graph gives the same bits, ten times."""
    capacity, tasks = case
    graph = graph_of(tasks)
    runs = [play(graph, capacity) for _ in range(10)]
    assert len({hashlib.sha256(p.start_ps.tobytes() + p.end_ps.tobytes()).hexdigest() for p in runs}) == 1


def test_two_share_a_link():
    """Two transfers of 1000 and 3000 bytes on 1 GB/s: half each, then the second alone: 2 us and 4 us."""
    tasks = [Task(0, 1000, ((0, 1.0),)), Task(0, 3000, ((0, 1.0),))]
    assert compare(tasks, [GB]).end_ps.tolist() == [2_000_000, 4_000_000]


def test_a_bottleneck_elsewhere_leaves_room():
    """A transfer that is held up on a slow link leaves the rest of the fast one to the others."""
    tasks = [Task(0, 1000, ((0, 1.0), (1, 1.0))), Task(0, 3000, ((0, 1.0),))]
    assert compare(tasks, [4 * GB, GB]).end_ps.tolist() == [1_000_000, 1_000_000]


def test_split_routes_take_their_part():
    """A transfer with 5/9 and 4/9 on two planes is bound by the plane that is relatively smaller."""
    tasks = [Task(0, 9000, ((0, 5 / 9), (1, 4 / 9)))]
    assert compare(tasks, [5 * GB, 4 * GB]).end_ps.tolist() == [1_000_000]
    assert compare(tasks, [5 * GB, 2 * GB]).end_ps.tolist() == [2_000_000]


def test_a_late_comer_halves_the_rate():
    """After 1 us alone a second transfer comes: the first has 1000 of 2000 bytes left and ends at 3 us."""
    tasks = [Task(0, 2000, ((0, 1.0),)), Task(1_000_000, 2000, ((0, 1.0),))]
    assert compare(tasks, [GB]).end_ps.tolist() == [3_000_000, 4_000_000]


def test_nothing_takes_no_time():
    """A chain of empty tasks ends when it begins, and a transfer of nothing takes its latency alone."""
    tasks = [Task(), Task(after=(0,)), Task(5, 0, ((0, 1.0),), (1,)), Task(0, 0, ((0, 1.0),), (2,))]
    played = compare(tasks, [GB])
    assert (played.start_ps.tolist(), played.end_ps.tolist()) == ([0, 0, 0, 5], [0, 0, 5, 5])


def test_no_task_at_all():
    """An empty graph is played."""
    assert len(play(graph_of([]), np.array([GB])).end_ps) == 0


def test_ends_are_rounded_once_to_even():
    """1 byte at 400 GB/s is 2.5 ps and takes 2; 3 bytes are 7.5 ps and take 8."""
    for size, end in ((1, 2), (3, 8)):
        assert compare([Task(0, size, ((0, 1.0),))], [400 * GB]).end_ps.tolist() == [end]


def test_many_on_one_link():
    """More transfers at once than the engine first has room for share a link evenly: 3000 x 1000 bytes in 3 ms."""
    tasks = [Task(0, 1000, ((0, 1.0), (1 + i % 7, 1.0))) for i in range(3000)]
    played = play(graph_of(tasks), np.full(8, GB))
    assert played.end_ps.min() == played.end_ps.max() == 3_000_000_000


CYCLES = [([(0, 0)], 1), ([(0, 1), (1, 0)], 2), ([(0, 1), (1, 2), (2, 1)], 2), ([(0, 1), (1, 2), (2, 0)], 3)]


@pytest.mark.parametrize(("edges", "stuck"), CYCLES)
def test_a_cycle_is_refused(edges, stuck):
    """Tasks that wait for each other are an error, not a hang, and the message counts them."""
    tasks = [Task(3, after=tuple(a for a, b in edges if b == i)) for i in range(3)]
    with pytest.raises(ProgramError, match=f"{stuck} of 3 operations wait for each other for ever"):
        play(graph_of(tasks), np.array([GB]))


def test_the_reference_is_fair_by_hand():
    """Textbook case: a long transfer over two links and one on each: 1/2, 1/2 and what is left."""
    long, first, second = Task(0, 1, ((0, 1.0), (1, 1.0))), Task(0, 1, ((0, 1.0),)), Task(0, 1, ((1, 1.0),))
    assert fair_rates({0: long, 1: first, 2: second}, [2, 6]) == {0: 1, 1: 1, 2: 5}
