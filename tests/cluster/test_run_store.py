"""What `run --out` keeps: tables that say the same as the timeline, pictures that say the same as the topology."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster import run_store
from cluster.experiment import run_experiment
from cluster.fitting import held_by_chips
from cluster.run_store import RUN_TABLES, picture, save_run
from cluster.timeline.build import build
from cluster.timeline.loads import bins_ps, n_tasks
from cluster.vocabulary import VOCABULARY
from configs.loader import load_experiment, load_system
from topology import build_topology, chips_of
from topology.svg import draw


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run with operations beside the programs, and its folder."""
    spec = load_experiment("galaxy-smollm2", ["numerics=shapes", "workload.new_tokens=3", "micro_batches=2",
                                              "workload.batch=2", "dtype.kv=fp32"], VOCABULARY)  # fmt: skip
    result, folder = run_experiment(spec), tmp_path_factory.mktemp("run")
    save_run(result, folder)
    return result, folder


def read(folder, name):
    table = pq.read_table(folder / f"{name}.parquet")
    assert table.schema.metadata == {b"schema": RUN_TABLES[name].encode()}
    return table.to_pandas()


def test_operations(stored):
    """Every operation of the timeline is a row: the same times, names and layers."""
    result, folder = stored
    table, timeline = read(folder, "operations"), result.timeline
    rows = sorted(zip(table.chip, table.start_ps, table.end_ps, table.operation, table.engine, strict=True))
    assert rows == sorted((e.chip, e.start_ps, e.end_ps, e.operation, e.engine) for e in timeline.events())
    assert set(table.engine) == {"program", "communication"}
    assert table.layer.isna().sum() == (timeline.layer == -1).sum()
    spent = table.assign(time=table.end_ps - table.start_ps).groupby("kind", observed=True).time.sum()
    assert spent["memory"] / table.chip.nunique() * 1e-12 == pytest.approx(timeline.breakdown.memory_s)


def test_kernels(stored):
    """Kernels have the work and the number of the records that ran."""
    result, folder = stored
    table, operations = read(folder, "kernels"), read(folder, "operations")
    kernels = operations[operations.kind.isin(["memory", "compute"])]
    assert table["count"].sum() == len(kernels)
    assert (table["count"] * table.duration_ps).sum() == (kernels.end_ps - kernels.start_ps).sum()
    chip = result.spec.system.chip
    head = table[table.name == "head_matmul"].iloc[0]
    assert head.moved_bytes[1] >= 2 * 49152 * 576 / 4  # bf16, a fourth of the vocabulary
    assert head.duration_ps >= head.moved_bytes[1] / chip.memory[1].bandwidth_bytes_per_s * 1e12 - 1


def test_memory(stored):
    """The fullest chip holds what the result says, and every chip is there."""
    result, folder = stored
    table = read(folder, "memory")
    chip = table[table.chip == result.memory["chip"]]
    assert chip[chip.role == "weights"].size_bytes.sum() == result.memory["weights_bytes"]
    assert chip[chip.role == "kv"].size_bytes.sum() == result.memory["kv_bytes"]
    assert sorted(table.chip.unique()) == sorted(result.chips)
    inputs = result.timeline.inputs
    held = held_by_chips(chips_of(inputs.system, inputs.topology), result.job)
    assert sum(row.size_bytes for row in held) == table.size_bytes.sum()


def test_loads(stored):
    """The mean of a link's windows, weighted by their lengths, is its utilisation over the run."""
    result, folder = stored
    table, timeline = read(folder, "loads"), result.timeline
    table["part"] = table.utilisation * (table.end_ps - table.start_ps) / timeline.total_ps
    means = table.groupby("link", observed=True).part.sum()
    assert dict(means) == pytest.approx({link.name: link.utilisation for link in timeline.links}, rel=1e-4)
    assert set(table.end_ps) <= set(bins_ps(timeline.total_ps, 240).tolist())


def test_windows_that_cost_too_much_are_left_out(stored, monkeypatch):
    """The table says so; the count is that of the tasks of the whole graph."""
    timeline = stored[0].timeline
    inputs = timeline.inputs
    whole = build(inputs.system, inputs.topology, inputs.records, inputs.traces, inputs.files)
    assert n_tasks(timeline) == len(whole.graph.delay_ps)
    monkeypatch.setattr(run_store, "MOST_TASKS", n_tasks(timeline) - 1)
    table = run_store.loads_table(timeline)
    assert table.num_rows == 0
    assert table.schema.metadata[b"left_out"].startswith(f"{n_tasks(timeline):,} tasks".encode())


@pytest.mark.parametrize("name", ["wormhole-galaxy-torus", "dgx-h100", "tpu-v4-4x4x4"])
def test_picture(name):
    """The picture has every node and edge of the topology, between the places of the edge's ends."""
    system = load_system(name, (), VOCABULARY)
    topology = build_topology(system)
    document = json.loads(json.dumps(picture(topology)))
    places = np.array(document["nodes"]["place"])
    assert len(places) == topology.n_nodes
    assert len(document["edges"]["link"]) == document["n_edges"] == len(topology.link_src) // 2
    for e, pieces in enumerate(document["edges"]["pieces"]):
        ends = [pieces[0][0], pieces[1][0] if len(pieces) > 1 else pieces[0][-1]]
        assert ends == places[[topology.link_src[2 * e], topology.link_dst[2 * e]]].tolist()
    assert draw(topology, name).count("<path") >= document["n_edges"]


def test_the_same_run_gives_the_same_files(stored, tmp_path):
    """Only wall times differ."""
    result, folder = stored
    save_run(run_experiment(result.spec), tmp_path)
    for path in folder.iterdir():
        if path.name != "result.json":
            assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
