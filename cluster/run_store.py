"""What `chipmesh run --out` keeps in its folder: the result, and the tables and the picture that a report is made of.

    result.json links.json                                            for people and scripts
    operations.parquet kernels.parquet memory.parquet loads.parquet   tables; the unit is in the column's name
    picture.json                                                      where chips and links are drawn

Every file names its schema: JSON in `schema`, Parquet in the metadata of the same name. The same run gives the same
bytes but for the wall times in result.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.experiment import ExperimentResult
from cluster.fitting import held_by_chips
from cluster.records import Await, Collective, Compute, Receive, Record, Send
from cluster.timeline import Timeline
from cluster.timeline.accounts import NO_LAYER
from cluster.timeline.loads import bins_ps, n_tasks, utilisation
from topology import Topology, chips_of
from topology.curves import canvas_of, edge_pieces
from topology.layout import lay_out

MOST_BINS = 240
"""Time windows of the links."""
MOST_LOADS = 2_000_000
"""Of links times windows."""
MOST_TASKS = 10_000_000
"""That are played once more for the links' windows: some gigabytes, some seconds."""
MOST_DRAWN = 60_000
"""Edges of the picture."""
RUN_TABLES: Mapping[str, str] = {
    "operations": "chipmesh.operations.v1",
    "kernels": "chipmesh.kernels.v1",
    "memory": "chipmesh.memory.v1",
    "loads": "chipmesh.loads.v1",
}
PICTURE_SCHEMA = "chipmesh.picture.v1"


def save_run(result: ExperimentResult, folder: Path) -> None:
    """Write all files of a run into a folder that exists. Raises OSError."""
    timeline = result.timeline
    documents = {
        "result": result.to_json(),
        "links": result.links_json(),
        "picture": picture(timeline.inputs.topology),
    }
    tables = {
        "operations": operations_table(timeline),
        "kernels": kernels_table(timeline),
        "memory": memory_table(result),
        "loads": loads_table(timeline),
    }
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document, indent=1 if name != "picture" else None) + "\n")
    for name, table in tables.items():
        marked = table.replace_schema_metadata({"schema": RUN_TABLES[name], **(table.schema.metadata or {})})
        pq.write_table(marked, folder / f"{name}.parquet", compression="zstd")


def operations_table(timeline: Timeline) -> pa.Table:
    """Return all operations, chip after chip, each chip's in the order of their starts."""
    order = np.lexsort((np.arange(len(timeline.chip)), timeline.start_ps, timeline.chip))
    record, layer = timeline.record[order], timeline.layer[order]
    kinds = [_kind(r) for r in timeline.records]
    return pa.table(
        {
            "chip": timeline.chip[order],
            "operation": _words(timeline.name[order], timeline.names),
            "kind": _words(record, kinds),
            "layer": pa.array(layer, mask=layer == NO_LAYER),
            "engine": _words(timeline.started[order].astype(np.int32), ("program", "communication")),
            "start_ps": timeline.start_ps[order],
            "end_ps": timeline.end_ps[order],
        }
    )


def _kind(record: Record) -> str:
    match record:
        case Compute(bound=bound):
            return bound
        case Collective():
            return "collective"
        case Send():
            return "send"
        case Receive():
            return "receive"
        case Await():
            return "wait"
    return "none"  # takes no time


def _words(numbers: NDArray[Any], words: Sequence[str]) -> pa.DictionaryArray:
    """Return a column of words, given by their numbers; each word that occurs is kept once."""
    place = {word: i for i, word in enumerate(dict.fromkeys(words[i] for i in np.unique(numbers)))}
    places = np.array([place.get(word, 0) for word in words], np.int32)
    return pa.DictionaryArray.from_arrays(places[numbers], pa.array(place, pa.string()))


def kernels_table(timeline: Timeline) -> pa.Table:
    """Return every kernel that differs from the others in its work, with how often it ran on chips of one sort.

    `moved_bytes` are those of the chip's memory tiers, the nearest first.
    """
    inputs = timeline.inputs
    names = [chip.name for chip in chips_of(inputs.system, inputs.topology)]
    sorts = list(dict.fromkeys(names))
    sort_of = np.array([sorts.index(name) for name in names], np.int64)
    n = max(len(timeline.records), 1)
    keys, counts = np.unique(sort_of[timeline.chip] * n + timeline.record, return_counts=True)
    rows = []
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        record = timeline.records[key % n]
        if isinstance(record, Compute) and record.bound != "pause":
            rows.append({"chip_name": sorts[key // n], "count": count, **record._asdict()})
    types = {
        "chip_name": pa.string(), "name": pa.string(), "dtype": pa.string(), "bound": pa.string(),
        "duration_ps": pa.int64(), "flops": pa.int64(), "moved_bytes": pa.list_(pa.int64()), "count": pa.int64(),
    }  # fmt: skip
    return pa.Table.from_pylist(rows, schema=pa.schema(types))


def memory_table(result: ExperimentResult) -> pa.Table:
    """Return what every chip in use holds, by memory tier and sort of tensor."""
    inputs = result.timeline.inputs
    rows = held_by_chips(chips_of(inputs.system, inputs.topology), result.job)
    types = {
        "chip": pa.int32(), "tier": pa.string(), "capacity_bytes": pa.int64(), "role": pa.string(),
        "tensor": pa.string(), "size_bytes": pa.int64(),
    }  # fmt: skip
    return pa.Table.from_pylist([row._asdict() for row in rows], schema=pa.schema(types))


def loads_table(timeline: Timeline) -> pa.Table:
    """Return how busy every used link was in windows of equal length; windows in which it was idle are left out.

    Empty where that takes more than `MOST_TASKS` tasks to find; the metadata `left_out` says so.
    """
    n_bins = max(min(MOST_BINS, MOST_LOADS // max(len(timeline.links), 1)), 1)
    n_played = n_tasks(timeline)
    names = [link.name for link in timeline.links] if n_played <= MOST_TASKS else []
    use, edges = utilisation(timeline, names, n_bins), bins_ps(timeline.total_ps, n_bins)
    link, window = np.nonzero(use)
    return pa.table(
        {
            "link": _words(link.astype(np.int32), names),
            "start_ps": edges[window],
            "end_ps": edges[window + 1],
            "utilisation": use[link, window].astype(np.float32),
        },
        metadata={} if n_played <= MOST_TASKS else {"left_out": f"{n_played:,} tasks would have to be played"},
    )


def picture(topology: Topology) -> dict[str, Any]:
    """Return where nodes stand and what edges are drawn of, in pixels, y downwards; links are named as in the loads.

    Beyond `MOST_DRAWN` edges there are none; `n_edges` says how many there are.
    """
    layout = lay_out(topology)
    canvas = canvas_of(topology, layout)
    n_edges = len(topology.link_src) // 2
    drawn = n_edges if n_edges <= MOST_DRAWN else 0
    pieces = edge_pieces(topology, layout, canvas) if drawn else []
    names = [topology.node_name(node) for node in range(topology.n_nodes)]
    return {
        "schema": PICTURE_SCHEMA,
        "kind": topology.kind,
        "axes": dict(zip(topology.axes, map(int, topology.dims), strict=True)),
        "n_chips": topology.n_chips,
        "n_edges": n_edges,
        "chip_size": canvas.chip,
        "nodes": {"name": names, "place": np.round(canvas.pixels(layout.places), 1).tolist()},
        "edges": {
            "link": [topology.link_name(2 * e) for e in range(drawn)],
            "back": [topology.link_name(2 * e + 1) for e in range(drawn)],
            "count": topology.link_count[::2][:drawn].tolist(),
            "bandwidth_bytes_per_s": topology.link_bandwidth_bytes_per_s[::2][:drawn].tolist(),
            "pieces": [[[[round(x, 1), round(y, 1)] for x, y in piece] for piece in edge] for edge in pieces],
        },
    }
