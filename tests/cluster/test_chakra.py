"""Chakra traces: a run that is replayed takes the same time, those of others do what they say, bad ones are refused."""

from __future__ import annotations

import json
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import launch
from cluster.chakra import read_chakra, replay, write_chakra
from cluster.chakra.schema import GlobalMetadata, Node, NodeType, attribute, attributes, read_messages, write_messages
from cluster.cli import main
from cluster.experiment import run_experiment
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError, ProgramError
from configs.loader import load_experiment
from tests.cluster.machines import BURN, US, array, mesh, ring
from tests.cluster.test_cli import EXPERIMENT
from tests.cluster.test_planner import MOE

BLOCKING = ["{tp: 3, pp: 2}", "{tp: 2, dp: 2, cp: 2}", "{tp: 4, sequence: true}", "{}"]
UNKNOWN = "system.chip.memory=[{name: sram, capacity: 1MiB}, {name: dram, capacity: 1GiB, bandwidth: 100GB/s}]"
"""Kernels that only touch the first take no time at all."""
BESIDE = [("{tp: 2, pp: 3}", "micro_batches=2"), ("{tp: 4}", "overlap=true"), ("{pp: 2, tp: 2}", "contention=none")]


def run(*overrides, **changes):
    """Return the timeline of the small experiment with some more prompt rows."""
    return run_experiment(load_experiment({**EXPERIMENT, **changes}, overrides, VOCABULARY)).timeline


def again(timeline, folder, **options):
    """Return the timeline of its traces, replayed on the same system."""
    write_chakra(timeline, folder)
    return replay(
        read_chakra(folder), timeline.inputs.system, contention=timeline.inputs.contention, **options
    ).timeline


@pytest.mark.parametrize("layout", BLOCKING)
@pytest.mark.parametrize("also", [(), (UNKNOWN,)])
def test_a_run_takes_the_same_time_again(layout, also, tmp_path):
    """Every event of a run that waits for what it starts is as it was, to the picosecond."""
    timeline = run(f"parallel={layout}", "workload.batch=4", *also)
    found = again(timeline, tmp_path)
    assert found.sha256() == timeline.sha256()
    assert (found.total_ps, found.breakdown, found.links) == (timeline.total_ps, timeline.breakdown, timeline.links)
    assert found.operations == timeline.operations


@pytest.mark.parametrize(("layout", "also"), BESIDE)
def test_what_goes_on_beside(layout, also, tmp_path):
    """Started operations are in the traces as what nothing waits for until it is needed."""
    timeline = run(f"parallel={layout}", also, "workload.batch=4")
    found = again(timeline, tmp_path)
    assert (found.total_ps, found.links) == (timeline.total_ps, timeline.links)
    assert found.breakdown == pytest.approx(timeline.breakdown)


def test_experts(tmp_path):
    """The uneven exchange is put together from what every member sends."""
    timeline = run("parallel={ep: 4}", "workload.batch=8", "experts.skew=1.5", model=MOE)
    found = again(timeline, tmp_path)
    assert any(getattr(record, "op", "") == "all_to_all_v" for record in timeline.records)
    assert (found.total_ps, found.sha256()) == (timeline.total_ps, timeline.sha256())


@pytest.mark.parametrize("communication", [{}, {"launch_ps": 3 * US, "step_ps": US // 2}])
def test_a_program_with_everything(communication, tmp_path):
    """Kernels, pauses, started and blocking collectives of two groups, messages with tags."""

    async def program(chip):
        x = array(chip, 4096)
        pair = chip.group(f"pair {chip.rank // 2}", tuple(range(chip.rank // 2 * 2, chip.rank // 2 * 2 + 2)))
        first = chip.start(chip.all_reduce(x))
        chip.apply(BURN, x, flops=5 * 10**6)
        second = chip.start(chip.all_gather(x, pair))
        chip.pause("pause", 7 * US)
        await chip.reduce_scatter(x, pair)
        if chip.rank == 0:
            await chip.send(x, 3, "late")
            await chip.send(array(chip, 8), 3, "early")
        if chip.rank == 3:
            early = chip.start(chip.recv(0, "early"))
            await chip.recv(0, "late")
            await early
        await first
        await second
        await chip.broadcast(x, root=2)
        await chip.barrier()

    with launch(mesh(2, 2, **communication), numerics="shapes") as cluster:
        timeline = cluster.run(program).timeline
    found = again(timeline, tmp_path)
    assert (found.total_ps, found.links) == (timeline.total_ps, timeline.links)


def test_the_same_bytes_and_no_others(tmp_path):
    """The same run gives the same files; a folder with files of another run is refused."""
    timeline = run("parallel={tp: 2}")
    write_chakra(timeline, tmp_path / "a", {"system": "toy"})
    write_chakra(run("parallel={tp: 2}"), tmp_path / "b", {"system": "toy"})
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["chip.0.et", "chip.1.et", "comm_groups.json"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    assert read_chakra(tmp_path / "a").about == {"version": "0.0.4", "system": "toy"}
    with pytest.raises(ConfigError, match=r"has chip.1.et of another run"):
        write_chakra(run("parallel={}"), tmp_path / "a")


def test_what_others_read(tmp_path):
    """Names and types of attributes are those that ASTRA-sim's reader asks for; microseconds add up."""
    timeline = run("parallel={tp: 2, pp: 2}")
    write_chakra(timeline, tmp_path)
    groups = json.loads((tmp_path / "comm_groups.json").read_text())
    metadata, *nodes = read_messages((tmp_path / "chip.1.et").read_bytes(), "chip.1.et")
    assert metadata.version == "0.0.4"
    kinds = {
        "is_cpu_op": "bool_val", "num_ops": "int64_val", "tensor_size": "uint64_val", "comm_type": "int64_val",
        "comm_size": "int64_val", "comm_src": "int32_val", "comm_dst": "int32_val", "comm_tag": "int32_val",
        "pg_name": "string_val",
    }  # fmt: skip
    for node in nodes:
        assert all(one.WhichOneof("value") == kinds[one.name] for one in node.attr if one.name in kinds)
        assert all(needed < node.id for needed in node.data_deps)
    collective = next(node for node in nodes if node.type == NodeType.COMM_COLL)
    found = attributes(collective)
    assert (found["comm_type"], groups[found["pg_name"]], found["comm_size"]) == (0, [0, 1], 2 * 5 * 64 * 2)
    kernels = [node for node in nodes if node.type == NodeType.COMP]
    exact_us = sum(attributes(node)["duration_ps"] for node in kernels) / 1e6
    assert sum(node.duration_micros for node in kernels) == pytest.approx(exact_us, abs=0.5)
    send = next(node for node in nodes if node.type == NodeType.COMM_SEND)
    assert attributes(send)["comm_dst"] == 3


def test_framing_by_hand():
    """Lengths as varints, fields by their numbers: bytes written by hand are read, and are what is written."""
    metadata = bytes([7, 0x0A, 5]) + b"0.0.4"
    flag = bytes([0x0A, 9]) + b"is_cpu_op" + bytes([0xD8, 0x01, 0])  # field 27, a varint
    size = bytes([0x0A, 9]) + b"comm_size" + bytes([0x48, 0x80, 0x01])  # field 9: 128
    inside = b"".join(bytes([0x52, len(one)]) + one for one in (flag, size))
    node = bytes([0x08, 3, 0x12, 1]) + b"x" + bytes([0x18, 7, 0x2A, 1, 2]) + inside
    data = metadata + bytes([len(node)]) + node
    found = list(read_messages(data, "file"))
    assert (found[1].id, found[1].name, found[1].type, list(found[1].data_deps)) == (3, "x", NodeType.COMM_COLL, [2])
    assert attributes(found[1]) == {"is_cpu_op": False, "comm_size": 128}
    written = BytesIO()
    write_messages(written, found)
    assert written.getvalue() == data


# --- traces of others -------------------------------------------------------------------------------------------------


def node(number, kind, needs=(), micros=0, **given):
    """Return a node with attributes of the types that Chakra's tools write."""
    made = Node(id=number, name=f"n{number}", type=kind, duration_micros=micros)
    made.data_deps.extend(needs)
    types = {"is_cpu_op": "bool", "tensor_size": "uint64", "comm_src": "int32", "comm_dst": "int32",
             "comm_tag": "int32", "pg_name": "string", "involved_dim": "bool"}  # fmt: skip
    for name, value in given.items():
        attribute(made, name, types.get(name, "int64"), value)
    return made


@pytest.fixture
def traces(tmp_path):
    """Return a function that writes nodes, rank by rank, and reads them back."""

    def make(*ranks, groups=None):
        for rank, nodes in enumerate(ranks):
            with (tmp_path / f"t.{rank}.et").open("wb") as file:
                write_messages(file, [GlobalMetadata(version="0.0.4"), *nodes])
        if groups is not None:
            (tmp_path / "comm_groups.json").write_text(json.dumps(groups))
        return read_chakra(tmp_path)

    return make


COMP, COLL, SEND, RECV = NodeType.COMP, NodeType.COMM_COLL, NodeType.COMM_SEND, NodeType.COMM_RECV


def total_us(execution, system, **options):
    """Return how long a replay takes, in us."""
    return replay(execution, system, **options).timeline.total_ps / US


def test_kernels_beside_communication(traces):
    """A message of 1000 B at 1 GB/s is 1 us and its latency; a kernel that does not need it goes on beside."""
    ranks = (
        [node(0, SEND, comm_dst=1, comm_size=1000, comm_tag=5), node(1, COMP, micros=10), node(2, COMP, (0, 1), 3)],
        [node(0, RECV, comm_src=0, comm_size=1000, comm_tag=5), node(1, COMP, (0,), micros=4)],
    )
    found = replay(traces(*ranks), ring(2)).timeline
    ends = {(int(c), found.names[n]): int(e) / US for c, n, e in zip(found.chip, found.name, found.end_ps, strict=True)}
    assert ends[0, "n1"] == 10
    assert ends[0, "n2"] == 13
    assert ends[1, "n1"] == 2 + 4


def test_collectives_of_groups(traces):
    """Groups by number, from the file beside; without one, all ranks; sizes are bytes of a rank's input."""
    call = {"comm_type": 0, "comm_size": 4000}
    pairs = traces(
        *([node(0, COLL, pg_name=str(1 + r // 2), **call)] for r in range(4)), groups={"1": [0, 1], "2": [2, 3]}
    )
    whole = traces(*([node(0, COLL, involved_dim=[True], **call)] for r in range(4)))
    system = ring(4)

    async def program(chip, size):
        x = array(chip, 4000, dtype=np.uint8)
        await chip.all_reduce(
            x, chip.group("g", tuple(range(chip.rank // size * size, chip.rank // size * size + size)))
        )

    for execution, size in ((pairs, 2), (whole, 4)):
        with launch(system, numerics="shapes") as cluster:
            assert total_us(execution, system) == cluster.run(program, size).timeline.total_ps / US


def test_the_roofline_of_work(traces):
    """Without a recorded time, or if asked: 10^6 B at 50 GB/s are 20 us, 10^8 flops at 4 TFLOPS 25."""
    execution = traces(
        [node(0, COMP, num_ops=10**8, tensor_size=10**6), node(1, COMP, (0,), 7, num_ops=1, tensor_size=10**6),
         node(2, NodeType.MEM_LOAD, (1,), tensor_size=10**6)]
    )  # fmt: skip
    assert total_us(execution, ring(2)) == 25 + 7 + 20
    assert total_us(execution, ring(2), kernels="roofline") == 25 + 20 + 20
    assert total_us(execution, ring(2), kernels="roofline", dtype="fp32") == 100 + 20 + 20


def test_what_takes_no_time(traces):
    """Metadata, invalid nodes and the host's are stations that others wait through, in data and control alike."""
    last = node(4, COMP, (), 5)
    last.ctrl_deps.append(3)
    execution = traces(
        [node(7, COLL, comm_type=0, comm_size=1000), node(1, NodeType.METADATA, (7,)),
         node(2, COMP, (1,), 100, is_cpu_op=True), node(3, NodeType.INVALID, (2,)), last],
        [node(0, COLL, comm_type=0, comm_size=1000)],
    )  # fmt: skip
    alone = traces([node(0, COLL, comm_type=0, comm_size=1000)], [node(0, COLL, comm_type=0, comm_size=1000)])
    assert total_us(execution, ring(2)) == total_us(alone, ring(2)) + 5
    assert replay(execution, ring(2)).notes == ("1 nodes of the host (is_cpu_op) take no time",)


def call(**given):
    """Return one rank with one collective, changed."""
    return [node(0, COLL, **{"comm_type": 0, "comm_size": 8, **given})]


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ([[node(0, COMP), node(0, COMP)]], r"node 0 \(n0\): there are two of this id"),
        ([[node(0, COMP, (9,))]], r"needs node 9; accepted: nodes of the same file"),
        ([[node(0, COMP, (1,)), node(1, COMP, (0,))]], r"waits for itself, through others"),
        ([[node(0, 12)]], r"type 12; accepted: 0 to 7"),
        ([call(comm_type=77)], r"comm_type: 77; accepted: 0 to 9"),
        ([call(comm_size=-1)], r"comm_size: -1; accepted: a number of bytes"),
        ([call(pg_name="3")], r"pg_name: '3' is not in the file of the groups"),
        ([call(involved_dim=[True, False])], r"involved_dim"),
        ([[node(0, COLL, comm_type=0)]], r"comm_size: missing; accepted: an attribute of type int"),
        ([[node(0, SEND, comm_dst=4, comm_size=1)]], r"comm_dst: 4; accepted: another rank, from 0 to 0"),
        ([[node(0, SEND, comm_dst=0, comm_size=1)]], r"comm_dst: 0; accepted: another rank"),
        ([[node(0, COMP, num_ops=-1)]], r"negative work or time"),
        ([[node(0, COMP, micros=1)]] * 3, r"3 ranks on toy-system; accepted: at most 2"),
    ],
)  # fmt: skip
def test_bad_nodes(traces, ranks, said):
    """What is wrong is named with its file and node."""
    with pytest.raises(ConfigError, match=said):
        replay(traces(*ranks), ring(2))


def test_ranks_that_do_not_fit_together(traces):
    """A message that nobody receives, a collective that a member does not call."""
    with pytest.raises(ProgramError, match="sends 1 messages"):
        replay(traces([node(0, SEND, comm_dst=1, comm_size=1)], []), ring(2))
    with pytest.raises(ProgramError, match="different numbers of calls"):
        replay(traces(call(), []), ring(2))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes(junk, at):
    """Bytes that are no trace are refused, or are one: nothing else happens."""
    whole = BytesIO()
    write_messages(whole, [GlobalMetadata(version="0.0.4"), node(0, COMP, micros=3, num_ops=5)])
    for data in (junk, whole.getvalue()[:at] + junk):
        with suppress(ConfigError):
            assert all(message is not None for message in read_messages(data, "file"))


def test_the_commands(tmp_path, capsys):
    """`run --chakra` writes what `replay` plays in the same time; bad folders are refused with 2."""
    path, folder = tmp_path / "run.yaml", tmp_path / "et"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    (tmp_path / "system.yaml").write_text(yaml.safe_dump(EXPERIMENT["system"]))
    assert main(["run", str(path), "--chakra", str(folder), "--json"]) == 0
    ran = json.loads(capsys.readouterr().out)
    assert main(["replay", str(folder), str(tmp_path / "system.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["time"]["total_s"] == ran["time"]["total_s"]
    assert found["timeline_sha256"] == ran["timeline_sha256"] == found["about"]["timeline_sha256"]
    assert found["breakdown"] == ran["breakdown"]
    trace = tmp_path / "trace.json"
    options = ["--kernels", "roofline", "--algorithms", "auto", "--trace", str(trace)]
    assert main(["replay", str(folder), "wormhole-galaxy", *options]) == 0
    assert "6 ranks on wormhole-galaxy" in capsys.readouterr().out
    assert json.loads(trace.read_text())["traceEvents"]
    (tmp_path / "empty").mkdir()
    (folder / "chip.2.et").rename(tmp_path / "chip.2.et")
    for name, said in (
        ("nowhere", "No such file"),
        ("empty", "no file NAME.RANK.et"),
        ("et", "rank 2 is missing of 5"),
    ):
        assert main(["replay", str(tmp_path / name), "wormhole-galaxy"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
    (folder / "chip.2.et").write_bytes(b"")
    assert main(["replay", str(folder), "wormhole-galaxy"]) == 2
    assert "chip.2.et: is empty; accepted: a Chakra execution trace" in capsys.readouterr().err
    (folder / "chip.2.et").unlink()
    (folder / "other.2.et").write_bytes(b"")
    assert main(["replay", str(folder), "wormhole-galaxy"]) == 2
    assert "files of several traces, chip, other" in capsys.readouterr().err
    assert main(["run", str(path), "--chakra", str(path)]) == 2
    assert "is a file; accepted: a folder" in capsys.readouterr().err
