"""MSCCL files as algorithms: in the bench, in experiments, over Ray; and the bench's export."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from cluster import launch
from cluster.bench import bench
from cluster.cli import main
from configs.errors import ConfigError
from tests.cluster.machines import mesh, ring, switch
from tests.cluster.test_cli import EXPERIMENT
from tests.collectives.msccl_files import all_pairs, save, two_ranks

TOY = EXPERIMENT["system"]


@pytest.fixture
def toy(tmp_path):
    """The path of a system of eight chips."""
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(TOY))
    return str(path)


def command(capsys, *tokens, code=0):
    """Run a command, require its exit code, and return stdout and stderr."""
    assert main(list(tokens)) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out, err


def test_bench(tmp_path):
    """A file is proven, run on real data and timed, as two_shot, whose messages it has."""
    path = str(save(tmp_path, all_pairs(5)))
    sizes = [400, 40_000]
    rows = list(bench(switch(5), "all_reduce", algorithm=path, sizes_bytes=sizes))
    assert [(r.algorithm, r.n_ranks, r.wrong) for r in rows] == [(path, 5, 0)] * 2
    assert [r.time_s for r in rows] == [
        r.time_s for r in bench(switch(5), "all_reduce", algorithm="two_shot", sizes_bytes=sizes)
    ]


@pytest.mark.parametrize(
    ("op", "n", "message"),
    [
        ("all_reduce", 4, r"a\.xml: is for 3 ranks \(ngpus\), 4 given; accepted: a group of 3"),
        ("all_gather", 3, r"a\.xml: is for all_reduce; accepted here: an algorithm for all_gather"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path, op, n, message):
    """Another number of ranks or another operation is refused before anything runs."""
    path = str(save(tmp_path, all_pairs(3), "a.xml"))
    with pytest.raises(ConfigError, match=message):
        list(bench(ring(n), op, algorithm=path, sizes_bytes=[1200]))


def test_groups_of_different_sizes(tmp_path):
    """A file serves every group of its size; a program that calls it for another one ends with the reason."""

    async def program(chip, axis):
        return await chip.all_reduce(np.arange(6, dtype=np.float32), axis=axis)

    with launch(mesh(2, 3), collectives={"all_reduce": str(save(tmp_path, all_pairs(3)))}) as cluster:
        result = cluster.run(program, cluster.topology.axes[1])
        assert all(np.array_equal(value, 3 * np.arange(6)) for value in result.values)
        with pytest.raises(ConfigError, match="is for 3 ranks"):
            cluster.run(program, cluster.topology.axes[0])


def test_the_root_of_a_file(tmp_path, toy, capsys):
    """A broadcast's file is for one root."""
    path = str(tmp_path / "b.xml")
    command(
        capsys,
        "bench",
        toy,
        "--op",
        "broadcast",
        "--ranks",
        "4",
        "--sizes",
        "1KiB",
        "--algorithm",
        "binomial",
        "--export",
        path,
    )

    async def program(chip, root):
        return await chip.broadcast(np.full(3, chip.rank, np.float32), root=root)

    with launch(ring(4), collectives={"broadcast": path}) as cluster:
        assert cluster.run(program, 0).values[3].tolist() == [0, 0, 0]
        with pytest.raises(ConfigError, match=r"b\.xml: is not for root 1"):
            cluster.run(program, 1)


@pytest.mark.parametrize(
    ("op", "name"), [("all_reduce", "synthesised"), ("all_to_all", "bruck"), ("all_gather", "ring:channels=3")]
)
def test_export(tmp_path, toy, capsys, op, name):
    """What is exported is read again, with the same times."""
    path = str(tmp_path / "out.xml")
    options = ("--op", op, "--sizes", "1KiB,1MiB", "--json")
    first, _ = command(capsys, "bench", toy, *options, "--algorithm", name, "--export", path)
    second, _ = command(capsys, "bench", toy, *options, "--algorithm", path)
    rows, again = (json.loads(text)["rows"] for text in (first, second))
    assert [r["time_s"] for r in again] == [r["time_s"] for r in rows]
    assert [r["wrong"] for r in again] == [0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--algorithm", "no.xml"], "no.xml: no such file"),
        (["--algorithm", "all", "--export", "x.xml"], "--export: one algorithm can be written"),
        (["--export", "x.xml"], "--export: one algorithm can be written; accepted: --algorithm with its name"),
        (["--algorithm", "ring", "--export", "no/folder/x.xml"], "no/folder/x.xml: cannot be written: No such file"),
        (["--algorithm", "ring", "--export", "/"], "/: cannot be written: Is a directory"),
    ],
)
def test_bad_options(toy, capsys, options, message):
    """Exit code 2 and a sentence."""
    out, err = command(capsys, "bench", toy, "--op", "all_reduce", "--sizes", "1KiB", *options, code=2)
    assert (out, message in err) == ("", True)


def test_a_hostile_file(tmp_path, toy, capsys):
    """Entities are refused on the command line too."""
    bomb = '<!DOCTYPE algo [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    path = str(save(tmp_path, two_ranks(lambda text: bomb + text)))
    _, err = command(capsys, "bench", toy, "--op", "all_gather", "--ranks", "2", "--algorithm", path, code=2)
    assert f"{path}:1: a document type" in err


def test_an_experiment(tmp_path, capsys):
    """`collectives: {all_reduce: file}` is found beside the experiment's file; `--set` from the working folder."""
    save(tmp_path, all_pairs(3), "three.xml")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT | {"collectives": {"all_reduce": "three.xml"}}))
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump(EXPERIMENT | {"collectives": {"all_reduce": "two_shot"}}))
    ours, theirs = (json.loads(command(capsys, "run", str(p), "--json")[0]) for p in (path, plain))
    assert ours["spec"]["collectives"] == {"all_reduce": str(tmp_path / "three.xml")}
    assert ours["time"] == theirs["time"]
    assert ours["timeline_sha256"] == theirs["timeline_sha256"]
    _, err = command(capsys, "run", str(path), "--set", "collectives.all_reduce=./missing.xml", code=2)
    assert "missing.xml: no such file" in err
    _, err = command(capsys, "run", str(path), "--set", "parallel.tp=2", code=2)
    assert "three.xml: is for 3 ranks (ngpus), 2 given" in err


@pytest.mark.ray
@pytest.mark.timeout(90)
@pytest.mark.filterwarnings("default")
def test_over_ray(tmp_path):
    """The schedule travels to the actors: they need no file."""
    path = save(tmp_path, all_pairs(4))

    async def program(chip):
        return await chip.all_reduce(np.arange(8, dtype=np.float32) + chip.rank)

    with launch(ring(4), backend="ray", chips_per_actor=2, collectives={"all_reduce": str(path)}) as cluster:
        path.unlink()
        there = cluster.run(program)
    save(tmp_path, all_pairs(4))
    with launch(ring(4), collectives={"all_reduce": str(path)}) as cluster:
        here = cluster.run(program)
    assert [v.tobytes() for v in there.values] == [v.tobytes() for v in here.values]
    assert there.timeline.sha256() == here.timeline.sha256()
