"""MSCCL XML: files become schedules that are right, schedules are written so that nothing is lost, errors are told."""

from __future__ import annotations

import numpy as np
import pytest

from collectives import OPERATIONS, Schedule, Transfer, check, msccl
from collectives.schedule import Local
from configs.errors import ConfigError
from tests.collectives.msccl_files import algo, all_pairs, block, save, step, two_ranks
from tests.collectives.rows import ROWS, fitting_schedule, ring_of, schedule_of
from tests.collectives.test_executor import expected, run, whole_numbers

WRITABLE = [(op, name) for op, name in ROWS if name != "in_network"]
BASIC = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast")


def messages(schedule):
    """Return what decides the times: who sends how many chunks to whom in which step."""
    return sorted((t.step, t.src, t.dst, len(t.chunks)) for t in schedule.transfers)


def assert_right(schedule, root=0):
    """Prove the schedule and run it on real data."""
    check(schedule, root)
    for size in (5 * schedule.n_ranks, 64 * schedule.n_ranks):
        inputs = whole_numbers(schedule.n_ranks, size, np.dtype(np.float32))
        for got, want in zip(run(schedule, inputs, root), expected(schedule.op, inputs, root), strict=True):
            np.testing.assert_array_equal(got, want)


def read(folder, text):
    """Read a file with this text."""
    return msccl.read(save(folder, text))


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_all_pairs(tmp_path, n, in_place):
    """Partial sums that wait in scratch, sums, nops and dependencies: two steps, everyone with everyone."""
    schedule = read(tmp_path, all_pairs(n, in_place=in_place))
    assert (schedule.op, schedule.n_ranks, schedule.n_chunks) == ("all_reduce", n, n)
    assert messages(schedule) == sorted((s, a, b, 1) for s in (0, 1) for a in range(n) for b in range(n) if a != b)
    assert_right(schedule)


def test_all_to_all(tmp_path):
    """Chunk j of GPU i goes to place i of GPU j, the own one by a copy."""
    gpus = []
    for g in range(3):
        text = block(0, [("cpy", f"i{g}", f"o{g}")])
        for k, p in enumerate(p for p in range(3) if p != g):
            text += block(2 * k + 1, [("s", f"i{p}", "o0")], send=p)
            text += block(2 * k + 2, [("r", "i0", f"o{p}")], recv=p)
        gpus.append(text)
    schedule = read(tmp_path, algo("alltoall", gpus, chunks=3, sizes=(3, 3, 0)))
    assert (schedule.n_chunks, schedule.n_steps) == (9, 1)
    assert_right(schedule)


def ring(n, rows, coll, *, chunks, **changes):
    """Return a file in which every GPU has one thread block, from the GPU before it to the next one."""
    gpus = [block(0, rows(g, lambda k, g=g: (g - k) % n), send=(g + 1) % n, recv=(g - 1) % n) for g in range(n)]
    return algo(coll, gpus, chunks=chunks, **changes)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_a_ring_of_all_kinds_of_steps(tmp_path, n):
    """In place: s, then rrc and s, rrcs, rcs and r. The same steps as the algorithm of the table."""

    def rows(_g, back):
        adds = [row for k in range(1, n - 1) for row in (("rrc", f"i{back(k)}", f"i{back(k)}"), ("s", f"i{back(k)}"))]
        turn = [("rrcs", f"i{back(n - 1)}", f"i{back(n - 1)}")]
        copies = [("rcs", "i0", f"i{back(k)}") for k in range(n - 2)]
        return [("s", f"i{back(0)}"), *adds, *turn, *copies, ("r", "i0", f"i{back(n - 2)}")]

    schedule = read(tmp_path, ring(n, rows, "allreduce", chunks=n, inplace=1, outofplace=0))
    assert messages(schedule) == messages(schedule_of("all_reduce", "ring", ring_of(n)))
    assert_right(schedule)


def test_reduce_scatter_in_place(tmp_path):
    """The output lies in the input at the rank's part; rrs sends on what it does not keep."""

    def rows(_g, back):
        return [("s", f"i{back(1)}"), ("rrs", f"i{back(2)}"), ("rrs", f"i{back(3)}"), ("rrc", "o0", "o0")]

    schedule = read(tmp_path, ring(4, rows, "reducescatter", chunks=4, inplace=1, outofplace=0))
    assert messages(schedule) == messages(schedule_of("reduce_scatter", "ring", ring_of(4)))
    assert_right(schedule)


def test_all_gather_in_place(tmp_path):
    """The input lies in the output at the rank's part."""

    def rows(_g, back):
        return [("s", "i0"), ("rcs", "i0", f"o{back(1)}"), ("rcs", "i0", f"o{back(2)}"), ("r", "i0", f"o{back(3)}")]

    assert_right(read(tmp_path, ring(4, rows, "allgather", chunks=4, inplace=1, outofplace=0)))


def test_a_chunk_may_have_several_versions_on_a_rank(tmp_path):
    """Raw parts go round a ring from scratch to scratch while every rank adds them up in its output."""
    n = 4

    def rows(_g, _back):
        hand_on = [row for k in range(n - 2) for row in (("rcs", "i0", f"s{k}"), ("re", f"s{k}", "o0"))]
        return [("cpy", "i0", "o0"), ("s", "i0"), *hand_on, ("r", "i0", f"s{n - 2}"), ("re", f"s{n - 2}", "o0")]

    schedule = read(tmp_path, ring(n, rows, "allreduce", chunks=1))
    assert schedule.n_slots > 1
    assert schedule.n_steps == n - 1
    assert_right(schedule)


def test_scratch_is_used_again_only_when_its_readers_are_done(tmp_path):
    """One chunk of scratch for all messages: an early message waits until the one before it has been added."""
    parts = [block(0, [("s", "i0")], send=0) for _ in range(3)]
    back = [block(1, [("r", "i0", "o0")], recv=0)] * 3
    blocks = block(0, [("cpy", "i0", "o0"), *(("re", "s0", "o0", 1, (p, 0)) for p in (1, 2, 3))])
    for p in (1, 2, 3):
        wait = (0, p - 1) if p > 1 else (-1, -1)
        blocks += block(p, [("r", "i0", "s0", 1, wait), ("s", "o0", "o0", 1, (0, 3))], send=p, recv=p)
    schedule = read(tmp_path, algo("allreduce", [blocks, *map(str.__add__, parts, back)], chunks=1, sizes=(1, 1, 1)))
    assert messages(schedule)[:3] == [(0, p, 0, 1) for p in (1, 2, 3)], "the senders need not wait"
    assert_right(schedule)


def test_messages_of_several_chunks_and_channels(tmp_path):
    """A message of two chunks is one transfer; two channels to the same GPU are used at once."""
    gpus = []
    for g in range(2):
        p = 1 - g
        gpus.append(
            block(0, [("cpy", "i0", f"o{3 * g}", 3)])
            + block(1, [("s", "i0", f"o{3 * g}", 2)], send=p)
            + block(2, [("s", "i2", f"o{3 * g}")], send=p, chan=1)
            + block(3, [("r", "i0", f"o{3 * p}", 2)], recv=p)
            + block(4, [("r", "i0", f"o{3 * p + 2}")], recv=p, chan=1)
        )
    schedule = read(tmp_path, algo("allgather", gpus, chunks=6))
    assert messages(schedule) == [(0, 0, 1, 1), (0, 0, 1, 2), (0, 1, 0, 1), (0, 1, 0, 2)]
    assert_right(schedule)


@pytest.mark.parametrize(("op", "name"), [row for row in WRITABLE if row[0] in msccl.COLLECTIVES.values()])
@pytest.mark.parametrize("n", [2, 5, 8, 14])
def test_written_and_read_again(op, name, n, tmp_path):
    """Every algorithm of the table comes back with the same messages in the same steps, and is right."""
    schedule = fitting_schedule(op, name, n)
    msccl.write(schedule, tmp_path / "x.xml")
    again = msccl.read(tmp_path / "x.xml", name)
    assert (again.op, again.algorithm, again.n_ranks, again.n_chunks) == (op, name, schedule.n_ranks, schedule.n_chunks)
    assert messages(again) == messages(schedule)
    check(again)
    if op in BASIC:
        assert_right(again)


@pytest.mark.parametrize(("op", "name"), [row for row in WRITABLE if row[0] in BASIC])
def test_idle_steps_are_kept(op, name, tmp_path):
    """A schedule with gaps between its steps, and before the first, has the same gaps again."""
    tight = fitting_schedule(op, name, 6)
    gaps = [t._replace(step=2 + 3 * t.step + t.step % 2) for t in tight.transfers]
    schedule = Schedule(op, name, tight.n_ranks, tight.n_chunks, gaps)
    msccl.write(schedule, tmp_path / "x.xml")
    again = msccl.read(tmp_path / "x.xml", name)
    assert messages(again) == messages(schedule)
    assert_right(again)


def test_switches_that_add_have_no_form(tmp_path):
    """The format knows GPUs alone."""
    with pytest.raises(ConfigError, match="in_network: switches that add have no form in MSCCL XML"):
        msccl.write(fitting_schedule("all_reduce", "in_network", 4), tmp_path / "x.xml")


def test_what_was_read_is_written_too(tmp_path):
    """Slots and local operations come back as well."""
    schedule = read(tmp_path, all_pairs(4, in_place=False))
    msccl.write(schedule, tmp_path / "again.xml")
    again = msccl.read(tmp_path / "again.xml")
    assert messages(again) == messages(schedule)
    assert_right(again)


def test_another_root(tmp_path):
    """A broadcast's root is kept."""
    schedule = schedule_of("broadcast", "binomial", ring_of(5), root=3)
    msccl.write(schedule, tmp_path / "b.xml", root=3)
    assert_right(msccl.read(tmp_path / "b.xml"), root=3)


def test_writing_where_one_cannot(tmp_path):
    """A folder that does not exist is an error with the path."""
    with pytest.raises(ConfigError, match=r"no/x\.xml: cannot be written: No such file"):
        msccl.write(schedule_of("all_gather", "ring", ring_of(2)), tmp_path / "no" / "x.xml")


def replaced(old, new, count=1):
    """Return a change of a file's text."""

    def change(text):
        assert old in text
        return text.replace(old, new, count)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: "", r":1: is not XML: no element found"),
        (lambda _: "no XML", r":1: is not XML"),
        (lambda _: "<algo", r"is not XML"),
        (replaced("</algo>", "\x00</algo>"), r"is not XML"),
        (lambda text: text[: len(text) // 2], r"is not XML"),
        (lambda text: '<!DOCTYPE a [<!ENTITY x "y">]>' + text, r":1: a document type; accepted: plain elements"),
        (lambda text: "<!DOCTYPE algo SYSTEM 'file:///etc/passwd'>" + text, r"a document type"),
        (lambda _: "<x>" * 100_000, r":1: <x> stands here; accepted: <algo>"),
        (lambda _: "<algo>" * 1000, r"algo>: outofplace|is missing|stands here"),
        (lambda text: text.replace("/>", "><step/></step>", 1), r":4: <step> stands here; accepted: nothing inside"),
        (replaced("<tb", "<block"), r":3: <block> stands here; accepted: <tb>"),
        (replaced(' coll="allgather"', ""), r":1: <algo>: coll is missing"),
        (replaced('coll="allgather"', 'coll="gossip"'), r"coll: 'gossip'; accepted: allgather, reducescatter"),
        (replaced('coll="allgather"', 'coll="allreduce"'), r"does not do an allreduce|ends with|buffer"),
        (replaced('ngpus="2"', 'ngpus="3"'), r"gpu 2 is missing; ngpus is 3"),
        (replaced('ngpus="2"', 'ngpus="900000000"'), r"gpu 2 is missing; ngpus is 900000000"),
        (replaced('ngpus="2"', 'ngpus="1"'), r"<tb>: send: '1'; accepted: -1 to 0"),
        (replaced('ngpus="2"', 'ngpus="1e9"'), r":1: <algo>: ngpus: '1e9'; accepted: a whole number ≥ 1"),
        (replaced('nchunksperloop="2"', 'nchunksperloop="3"'), r"nchunksperloop: 3; accepted: a multiple of 2"),
        (replaced('nchunksperloop="2"', 'nchunksperloop="999999998"'), r"at most 8388608 chunks"),
        (replaced('<gpu id="1"', '<gpu id="0"'), r"<gpu>: id: 0 is taken by the one in line 2"),
        (replaced('<gpu id="1"', '<gpu id="2"'), r"<gpu>: id: '2'; accepted: 0 to 1"),
        (replaced(' s_chunks="0"', ""), r":2: <gpu>: s_chunks is missing"),
        (replaced('<tb id="1"', '<tb id="0"'), r":6: <tb>: has the id of the one in line 3"),
        (replaced('send="1"', 'send="0"'), r":6: <tb>: a thread block of gpu 0 exchanges with its own gpu"),
        (replaced('send="1"', 'send="9"'), r":6: <tb>: send: '9'; accepted: -1 to 1"),
        (replaced('send="1"', 'send="-1"'), r":7: <step>: type: 's' in a tb whose send is -1"),
        (replaced('type="s"', 'type="send"'), r":7: <step>: type: 'send'; accepted: s, r, rrc"),
        (replaced('srcbuf="i"', 'srcbuf="x"'), r":4: <step>: srcbuf: 'x'; accepted: i, o, s"),
        (replaced('cnt="1"', 'cnt="2"'), r":4: <step>: chunks 0 to 1 of buffer 'i' of gpu 0; it has 1"),
        (replaced('cnt="1"', 'cnt="0"'), r":4: <step>: cnt: '0'; accepted: a whole number ≥ 1"),
        (replaced('cnt="1"', 'cnt="900000000"'), r"its steps move 900000005 chunks; accepted: at most"),
        (replaced('srcoff="0"', 'srcoff="-1"'), r":4: <step>: chunks -1 to -1 of buffer 'i' of gpu 0"),
        (replaced('srcoff="0"', 'srcoff="99999999999"'), r"srcoff: '99999999999'; accepted: a whole number"),
        (replaced('srcoff="0"', 'srcoff="٣"'), r"srcoff: '٣'; accepted: a whole number"),
        (replaced(' s="0"', ' s="1"'), r":4: <step>: s: 1; accepted: 0, the next of its tb"),
        (replaced('hasdep="0"', 'hasdep="2"'), r":4: <step>: hasdep: '2'; accepted: 0 to 1"),
        (replaced('depid="-1" deps="-1"', 'depid="7" deps="0"'), r":4: <step>: waits for step 0 of tb 7"),
        (replaced('depid="-1" deps="-1"', 'depid="1" deps="5"'), r":4: <step>: waits for step 5 of tb 1"),
        (replaced('depid="-1" deps="-1"', 'depid="0" deps="0"'), r":4: .*waits for ever for step 0 of tb 0"),
        (replaced('type="s"', 'type="nop"'), r"waits for ever for a message of gpu 0 on channel 0 \(deadlock"),
        (replaced('type="r"', 'type="nop"'), r"from gpu 1 to gpu 0 on channel 0 that is never received"),
        (replaced('dstoff="1" cnt', 'dstoff="0" cnt'), r"gpu 0 ends with chunk 1 in chunk 0 of its output"),
        (replaced('type="cpy"', 'type="nop"'), r":2: gpu 0 ends with nothing in chunk 0 of its output"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(tmp_path, change, message):
    """Malformed and hostile files, and algorithms that cannot end or do something else, name file and line."""
    with pytest.raises(ConfigError, match=message) as error:
        read(tmp_path, two_ranks(change))
    assert str(tmp_path / "algorithm.xml") in str(error.value)


def test_the_example_is_right_before_it_is_changed(tmp_path):
    """The file that the errors are made from."""
    assert_right(read(tmp_path, two_ranks()))


def test_sums_of_different_chunks_are_refused(tmp_path):
    """Adding chunk 1 to chunk 0 is no sum."""
    gpus = [block(0, [("s", "i1")], send=1), block(0, [("rrc", "i0", "i0")], recv=0)]
    with pytest.raises(ConfigError, match="adds chunk 1 to chunk 0"):
        read(tmp_path, algo("allreduce", gpus, chunks=2))


def test_a_sum_that_counts_twice_is_refused(tmp_path):
    """What the checker refuses is told with the file."""
    gpus = [block(0, [("s", "i0"), ("s", "i0")], send=1), block(0, [("rrc", "i0", "i0"), ("rrc", "i0", "i0")], recv=0)]
    with pytest.raises(ConfigError, match=r"does not do an allreduce: .* would hold a rank's data twice"):
        read(tmp_path, algo("allreduce", gpus, chunks=1, inplace=1, outofplace=0))


def test_messages_of_another_length_are_refused(tmp_path):
    """Two chunks are sent, one is received."""
    gpus = [block(0, [("s", "i0", "o0", 2)], send=1), block(0, [("r", "i0", "o0")], recv=0)]
    with pytest.raises(ConfigError, match=":9: <step>: cnt: 1; the message sent in line 4 has 2"):
        read(tmp_path, algo("allreduce", gpus, chunks=2))


@pytest.mark.parametrize("path", ["", ".", "no-such-file.xml", "a\0b"])
def test_files_that_cannot_be_read(path):
    """What is no file is an error, not a traceback."""
    with pytest.raises(ConfigError, match=r"is a directory|no such file|cannot be read"):
        msccl.read(path)


def test_reading_a_step_before_it_is_written(tmp_path):
    """Scratch that nothing has filled cannot be sent."""
    gpus = [block(0, [step(0, "s", "s0")], send=1), block(0, [("r", "i0", "o0")], recv=0)]
    with pytest.raises(ConfigError, match=":4: <step>: type 's' reads chunk 0 of buffer 's' of gpu 0"):
        read(tmp_path, algo("allreduce", gpus, chunks=1))


def test_every_operation_has_a_name_in_msccl():
    """The names of MSCCL's collectives are ours without underscores."""
    assert set(msccl.COLLECTIVES.values()) == {name for name, op in OPERATIONS.items() if op.detail != "pairs"}


def two_slots(local):
    """Return an all-reduce of two ranks by way of a second slot, with these local operations."""
    there = (Transfer(0, 0, 1, (1,)), Transfer(0, 1, 0, (1,)))
    return Schedule("all_reduce", "slots", 2, 1, there, n_slots=2, local=tuple(Local(*row) for row in local))


COPY = [(-1, 0, 0, 1), (-1, 1, 0, 1)]
ADD = [(0, 0, 1, 0, True), (0, 1, 1, 0, True)]


def test_local_operations():
    """A rank copies to another slot before it sends, and adds what arrives there."""
    assert_right(two_slots([*COPY, *ADD]))
    assert list(two_slots([*COPY, *ADD]).sizes([40])) == [40, 40]


@pytest.mark.parametrize(
    ("local", "message"),
    [
        (ADD, "rank 0 does not hold chunk 1"),
        (COPY, r"rank 0 ends with chunk 0 holding the data of \[0\], not of \[0, 1\]"),
        ([*COPY, *ADD, (0, 0, 1, 0, True)], "would hold a rank's data twice"),
        ([(-1, 0, 1, 0)], "rank 0 does not hold chunk 1"),
        ([(-1, 0, 0, 1, True)], "rank 0 has no chunk 1 to add to"),
        ([*ADD, *COPY], "not in the order of their steps"),
        ([(-2, 0, 0, 1)], "not in the order of their steps"),
        ([(0, 0, 0, 2)], "does not join two slots"),
        ([(0, 2, 0, 1)], "does not join two slots"),
        ([(0, 0, 1, 1)], "does not join two slots"),
    ],
)
def test_wrong_local_operations_are_refused(local, message):
    """By the schedule where they name what does not exist, by the checker where they do the wrong thing."""
    with pytest.raises(ValueError, match=message):
        check(two_slots(local))
