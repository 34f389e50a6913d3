"""Running sweeps: what is kept, what is computed again, the same table whatever happens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from cluster import sweep
from cluster.backends.processes import Lost, run_in_processes
from cluster.cli import main
from cluster.experiment import run_experiment
from cluster.sweeps.points import points_to_run
from cluster.sweeps.store import Store
from cluster.sweeps.table import result_columns
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError
from configs.loader import load_experiment
from tests.cluster.test_cli import EXPERIMENT
from workloads.sweeps import read_sweep

SWEEP = {
    "base": EXPERIMENT,
    "grid": {"parallel.tp": [1, 2, 3], "workload.batch": [1, 2]},
    "zip": {"system.topology.link.latency": ["1us", "2us"], "seed": [0, 1]},
    "where": ["n_ranks <= n_chips", "tp != 2 or batch == 1"],
}


def points_of(folder):
    """Return the lines of a folder's store."""
    return [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a sweep file, changed by these sections."""

    def write(**sections):
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump(SWEEP | sections, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The table of the sweep, and its bytes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    table = sweep(SWEEP, out=folder, n_workers=1).table()
    return table, (folder / "results.parquet").read_bytes()


def test_the_table(undisturbed):
    """A row per point, in the points' order, axes in SI units, figures as those of a run."""
    rows = undisturbed[0].to_pylist()
    assert [(row["tp"], row["batch"], row["seed"]) for row in rows] == [
        (tp, batch, seed) for tp, batch in [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2)] for seed in (0, 1)
    ]
    assert [row["point"] for row in rows] == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11]
    assert {row["system.topology.link.latency_s"] for row in rows} == {1e-6, 2e-6}
    assert all(row["status"] == "done" and row["error"] is None and row["n_chips"] == 8 for row in rows)
    assert all(row["tokens_per_s_per_chip"] == row["tokens_per_s"] / row["n_chips_used"] for row in rows)
    assert all(row["ttft_s"] < row["total_s"] for row in rows)
    assert len({row["timeline_sha256"] for row in rows}) > 5


def test_a_row_is_the_run(undisturbed, tmp_path, capsys):
    """A point gives what `chipmesh run` with the same keys gives."""
    path = tmp_path / "toy-run.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    sets = ["parallel.tp=1", "workload.batch=2", "system.topology.link.latency=2us", "seed=1"]
    assert main(["run", str(path), *[word for text in sets for word in ("--set", text)], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    row = undisturbed[0].to_pylist()[3]
    assert row["timeline_sha256"] == found["timeline_sha256"]
    assert {name: row[name] for name in found["time"]} == found["time"]
    assert {name: row[name] for name in found["breakdown"]} == found["breakdown"]
    assert found["uncertainty"] is row["tpot_rel_p50"] is row["uncertainty_basis"] is None


def test_a_row_says_how_sure_it_is():
    """On a machine with measured neighbours, a row has the error band of the run."""
    spec = load_experiment("t3000-llama-3.1-70b", ["workload.new_tokens=1"], VOCABULARY)
    result = run_experiment(spec)
    row, band = result_columns(result), result.to_json()["uncertainty"]
    assert [row["tpot_rel_p50"], row["tpot_rel_p90"]] == band["tpot_rel"]
    assert row["uncertainty_basis"] == band["basis"]


def test_the_command(undisturbed, file, tmp_path, capsys):
    """The file on disk is the same in every bit with any number of workers; nothing is computed twice."""
    out = tmp_path / "out"
    for n_stored in (0, 10):
        assert main(["sweep", str(file()), "--out", str(out), "--workers", "2", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["schema"] == "chipmesh.sweep.v1"
        assert document["counts"] == {
            "points": 10, "done": 10, "failed": 0, "left_out": 2, "stored_before": n_stored, "stale": 0,
        }  # fmt: skip
        assert len(points_of(out)) == 10
    assert (out / "results.parquet").read_bytes() == undisturbed[1]
    assert document["rows"] == pq.read_table(out / "results.parquet").to_pylist()
    assert main(["sweep", str(file()), "--out", str(out)]) == 0
    assert "10 points: 10 done, 0 failed" in capsys.readouterr().out


@pytest.mark.heavy
def test_killed_thrice(file, tmp_path):
    """SIGKILL at any moment loses at most what was in flight: the table becomes the same in every byte."""
    path, out, calm = str(file()), tmp_path / "out", tmp_path / "calm"
    command = [sys.executable, "-m", "cluster.cli", "sweep", path, "--workers", "2", "--out"]
    subprocess.run([*command, str(calm)], check=True, capture_output=True)
    for n_before_the_kill in (2, 5, 8):
        process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 100
        while not (out / "points.jsonl").exists() or len(points_of_torn(out)) < n_before_the_kill:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
        process.kill()
        process.communicate()
    n_kept = len(points_of_torn(out))
    with (out / "points.jsonl").open("ab") as torn:
        torn.write(b'{"fingerprint": "cut o')
    done = subprocess.run([*command, str(out), "--json"], check=True, capture_output=True)
    assert json.loads(done.stdout)["counts"]["stored_before"] == n_kept
    assert (out / "results.parquet").read_bytes() == (calm / "results.parquet").read_bytes()
    assert len({line["fingerprint"] for line in points_of(out)}) == len(points_of(out)) == 10


def points_of_torn(folder):
    """Return the whole lines of a store that is being written."""
    return [line for line in (folder / "points.jsonl").read_bytes().split(b"\n")[:-1] if line]


def test_a_changed_sweep(tmp_path, capsys):
    """What is the same is kept, what is new is computed, what is gone is named and left out of the table."""
    out = tmp_path / "out"
    small = SWEEP | {"where": []}
    assert len(list(sweep(small | {"grid": {"parallel.tp": [1, 2]}}, out=out, n_workers=1))) == 4
    changed = sweep(small | {"grid": {"parallel.tp": [2, 3]}}, out=out, n_workers=1)
    assert changed.table()["tp"].to_pylist() == [2, 2, 3, 3]
    assert changed.to_json()["counts"] == {
        "points": 4, "done": 4, "failed": 0, "left_out": 0, "stored_before": 2, "stale": 2,
    }  # fmt: skip
    assert len(points_of(out)) == 6
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(small | {"grid": {"parallel.tp": [3]}}))
    assert main(["sweep", str(tmp_path / "t.yaml"), "--out", str(out)]) == 0
    assert "4 stored points are no longer of this sweep" in capsys.readouterr().out


def test_failed_points_are_kept(tmp_path):
    """Some cannot be loaded, some cannot run, the others do; nothing failed runs again."""
    points = SWEEP | {
        "grid": {},
        "zip": {},
        "where": ["n_ranks < 99"],
        "list": [
            {"parallel.tp": "four"},
            {"parallel": {"tp": 3, "pp": 3}},
            {"system.chip.memory[0].capacity": "1KiB"},
            {"system.topology.link.bandwidth": "1parsec"},
            {"system.topology.link.bandwidth": "2GB/s"},
        ],
    }
    out = tmp_path / "out"
    for _ in range(2):
        results = sweep(points, out=out, n_workers=1)
        rows = results.table().to_pylist()
        assert [row["status"] for row in rows] == ["failed"] * 4 + ["done"]
        assert [row["error_kind"] for row in rows] == ["config"] * 4 + [None]
        words = ["'four' is not a whole number", "accepted: at most 8", "dram holds 1 KiB", "'1parsec'"]
        assert all(word in row["error"] for word, row in zip(words, rows, strict=False))
        assert rows[0]["parallel.tp"] == "four"
        assert [row["system.topology.link.bandwidth_bytes_per_s"] for row in rows[1:]] == [1e9, 1e9, None, 2e9]
        assert rows[1]["parallel"] == '{"tp": 3, "pp": 3}'
        assert len(points_of(out)) == 3


def test_no_point_succeeds(file, tmp_path, capsys):
    """Exit code 1, after the document."""
    path = file(grid={"parallel.tp": [97]}, where=[])
    assert main(["sweep", str(path), "--out", str(tmp_path / "out"), "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["counts"]["failed"] == 2
    assert "no point has succeeded; the first: " in err
    assert "Traceback" not in err


def test_a_misspelt_key_of_all_points(file, tmp_path, capsys):
    """Exit code 2 before anything runs, with the key, what is accepted and what was meant."""
    path = file(grid={"parallel.tpp": [1, 2]}, where=[])
    assert main(["sweep", str(path), "--out", str(tmp_path / "out"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "points can be loaded; the first: " in err
    assert "parallel.tpp: unknown key; accepted: tp, pp" in err
    assert "did you mean 'tp'?" in err
    assert not (tmp_path / "out" / "results.parquet").exists()


@pytest.mark.heavy
def test_stopped_and_gone_on(undisturbed, tmp_path):
    """Leaving the loop keeps what is finished, and the table of it."""
    out = tmp_path / "out"
    for n, point in enumerate(sweep(SWEEP, out=out, n_workers=1), start=1):
        assert point.error is None
        assert point.row["tp"] == point.values["parallel.tp"]
        if n == 3:
            break
    assert len(pq.read_table(out / "results.parquet")) == 3
    table = sweep(SWEEP, out=out, n_workers=1).table()
    assert table.equals(undisturbed[0])
    assert (out / "results.parquet").read_bytes() == undisturbed[1]


@pytest.mark.heavy
@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(file, tmp_path, signal_):
    """Exit code 1, one line after the progress, no worker left, a table of what is finished."""
    out = tmp_path / "out"
    path = file(grid={"seed": list(range(2000))}, zip={}, where=[])
    command = [sys.executable, "-m", "cluster.cli", "sweep", str(path), "--workers", "2", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not (out / "points.jsonl").exists() or len(points_of_torn(out)) < 2:
        assert time.monotonic() < deadline
    workers = {json.loads(line)["process"] for line in points_of_torn(out)}
    process.send_signal(signal_)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert [line for line in err.splitlines() if "points" not in line] == ["chipmesh: interrupted"]
    assert len(points_of(out)) == len(pq.read_table(out / "results.parquet"))
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.ray
@pytest.mark.heavy
def test_ray_gives_the_same(undisturbed, tmp_path):
    """Tasks of Ray, the same table in every byte."""
    out = tmp_path / "out"
    assert sweep(SWEEP, out=out, backend="ray", n_workers=2).table().equals(undisturbed[0])
    assert (out / "results.parquet").read_bytes() == undisturbed[1]


def test_one_sweep_at_a_time(tmp_path):
    """A folder is one sweep's while it runs."""
    with Store(tmp_path), pytest.raises(ConfigError, match="another sweep is at work there"), Store(tmp_path):
        pass


LINE = {"fingerprint": "a", "version": "1", "status": "done", "kind": None, "error": None}


def test_a_torn_line_is_dropped(tmp_path):
    """The last line alone may be cut, at any byte; what stands before it is kept."""
    with Store(tmp_path) as store:
        store.add(LINE)
        whole = (tmp_path / "points.jsonl").read_bytes()
        store.add(LINE | {"fingerprint": "b"})
    both = (tmp_path / "points.jsonl").read_bytes()
    for n in range(len(whole), len(both)):
        (tmp_path / "points.jsonl").write_bytes(both[:n])
        with Store(tmp_path) as store:
            assert list(store.points) == ["a"]
            store.add(LINE | {"fingerprint": "b"})
        assert (tmp_path / "points.jsonl").read_bytes() == both


def test_a_spoilt_store_is_refused(tmp_path):
    """A line in the middle that no sweep wrote is not passed over."""
    (tmp_path / "points.jsonl").write_text('{"fingerprint": 3}\n' + json.dumps(LINE) + "\n")
    with pytest.raises(ConfigError, match=r"points\.jsonl:1: is not a finished point"), Store(tmp_path):
        pass


def die_of_odd(task):
    """Die if the task is odd."""
    if task % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return task * 10


@pytest.mark.heavy
def test_a_worker_that_dies():
    """Its task alone is lost."""
    found = dict(run_in_processes(die_of_odd, range(5), 2))
    assert {task: result for task, result in found.items() if not task % 2} == {0: 0, 2: 20, 4: 40}
    lost = Lost("its process was ended by SIGKILL, 2 times")
    assert found[1] == found[3] == lost


def die_once(task):
    """Die in the middle of a task when it is tried the first time."""
    folder, number = task
    tried = Path(folder) / str(number)
    if number % 2 and not tried.exists():
        tried.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 10


@pytest.mark.ray
@pytest.mark.heavy
def test_tasks_of_ray_whose_workers_die(tmp_path):
    """They are tried once more; those whose worker dies again are lost, with the reason, and no others."""
    from cluster.backends.on_ray.tasks import run_in_ray  # noqa: PLC0415  ray takes half a second to import

    tasks = [(str(tmp_path), number) for number in range(5)]
    assert dict(run_in_ray(die_once, tasks, 2)) == {task: task[1] * 10 for task in tasks}
    lost = Lost("its process died: WorkerCrashedError, 2 times")
    assert dict(run_in_ray(die_of_odd, range(5), 2)) == {0: 0, 1: lost, 2: 20, 3: lost, 4: 40}


def take_memory(task):
    """Take so much memory, a little at a time, that Ray ends the process, and note the attempt."""
    folder, n_bytes = task
    with Path(folder, "tries").open("a") as tries:
        tries.write("x")
    kept = []
    while len(kept) << 26 < n_bytes:
        kept.append(np.ones(1 << 26, np.uint8))
    threading.Event().wait(5)


@pytest.mark.ray
@pytest.mark.heavy
@pytest.mark.timeout(100)
def test_a_task_of_ray_that_takes_too_much_memory(tmp_path, monkeypatch):
    """It is tried once more, and not for ever."""
    from cluster.backends.on_ray.tasks import run_in_ray  # noqa: PLC0415  ray takes half a second to import

    found = re.findall(r"^(\w+): +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    memory = {name: int(kib) for name, kib in found}
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{1.08 - memory['MemAvailable'] / memory['MemTotal']:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    ((_, lost),) = run_in_ray(take_memory, [(str(tmp_path), memory["MemTotal"] * 1024 * 0.15)], 1)
    assert lost == Lost("its process died: OutOfMemoryError, 2 times")
    assert (tmp_path / "tries").read_text() == "xx"


@pytest.mark.ray
@pytest.mark.heavy
def test_a_sweep_on_ray_whose_workers_are_killed(undisturbed, tmp_path):
    """A point that was under way is run again by another one: the same table in every byte."""
    out = tmp_path / "out"
    for n_before, _ in enumerate(sweep(SWEEP, out=out, backend="ray", n_workers=2)):
        if n_before in (0, 5):  # the worker is idle now, or at work on another point
            os.kill(points_of(out)[-1]["process"], signal.SIGKILL)
    assert (out / "results.parquet").read_bytes() == undisturbed[1]


def test_the_table_is_read_by_other_libraries(undisturbed, tmp_path):
    """Pandas, polars and DuckDB read the file with the values that it was written with."""
    path = tmp_path / "results.parquet"
    path.write_bytes(undisturbed[1])
    rows = pq.read_table(path).to_pylist()
    tpot_s = [row["tpot_s"] for row in rows]
    pandas, polars, duckdb = map(pytest.importorskip, ("pandas", "polars", "duckdb"))
    assert pandas.read_parquet(path)["tpot_s"].tolist() == tpot_s
    assert polars.read_parquet(path)["tpot_s"].to_list() == tpot_s
    assert [value for (value,) in duckdb.sql(f"select tpot_s from '{path}' order by point").fetchall()] == tpot_s


def test_the_page():
    """The sweep file of docs/sweeps.md has the points that it says."""
    page = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
    document = yaml.safe_load(page.split("```yaml\n# layouts.yaml\n")[1].split("```")[0])
    assert read_sweep(document).n_points == 2 * 3 * 7 * 2 * 2
    assert len(points_to_run(read_sweep(document))) == 3 * 7 * 2 * (2 + 1)


def test_bad_arguments(tmp_path):
    """As errors of the input."""
    with pytest.raises(ConfigError, match="accepted: process, ray"):
        sweep(SWEEP, out=tmp_path, backend="dask")
    with pytest.raises(ConfigError, match="--workers: 0; accepted: an integer ≥ 1"):
        sweep(SWEEP, out=tmp_path, n_workers=0)
    with pytest.raises(ConfigError, match="where leaves no point of 12"):
        sweep(SWEEP | {"where": ["tp > 9"]}, out=tmp_path).table()
