"""How long every operation took, by name and layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cluster.records import Compute, Mark, Record, Trace
from cluster.timeline.build import Operations

NO_LAYER = -1
Bound = Literal["compute", "memory", "pause", "communication", "beside"]
BOUNDS: tuple[Bound, ...] = ("compute", "memory", "pause", "communication", "beside")


@frozen
class OperationTime:
    """All runs of an operation in a layer of the model, over all chips; `layer` is None outside of the layers.

    count: how often it ran, all chips together.  total_s: the time it took, as a mean over the chips in use.
    bound: of a kernel, what bounds it; pause: the chip was stopped; communication, waiting for others included; beside:
    started and not waited for here, on top of the program's time. Without these the totals add up to when the chips'
    programs end, on average.
    """

    name: str
    layer: int | None
    count: int
    total_s: float
    bound: Bound


def layers_of(traces: Sequence[Trace]) -> NDArray[np.int32]:
    """Return the layer of every operation, trace after trace; NO_LAYER for none."""
    parts = [np.zeros(0, np.int32)]
    for trace in traces:
        starts, layers = trace.layers[:, 0], trace.layers[:, 1]
        lengths = np.diff(np.append(starts, len(trace.numbers)))
        before = starts[0] if len(starts) else len(trace.numbers)
        parts += [np.full(before, NO_LAYER, np.int32), np.repeat(layers, lengths)]
    return np.concatenate(parts)


def operation_times(
    ops: Operations, names: Sequence[str], name_of: NDArray[np.int32], layer: NDArray[np.int32],
    spent_ps: NDArray[np.int64], count: NDArray[np.int64], n_chips: int,
) -> tuple[OperationTime, ...]:  # fmt: skip
    """Return the times of all operations, the layers in order, in each the longest first.

    `name_of` is per record; `count` says how many chips each chip stands for.
    """
    timed = np.array([not isinstance(record, Mark) for record in ops.records], np.bool_)
    kept = np.flatnonzero(timed[ops.number]) if len(ops.number) else np.zeros(0, np.int64)
    number = ops.number[kept]
    bound = np.array([_bound(record) for record in ops.records], np.int64)[number] if len(kept) else number
    bound = np.where(ops.started[kept], BOUNDS.index("beside"), bound)
    shape = (int(layer.max(initial=NO_LAYER)) - NO_LAYER + 1, len(names), len(BOUNDS))
    key = np.ravel_multi_index((layer[kept] - NO_LAYER, name_of[number], bound), shape) if len(kept) else kept
    many = count[ops.chip[kept]]
    counts, total = np.zeros((2, int(key.max(initial=-1)) + 1), np.int64)
    np.add.at(counts, key, many)
    np.add.at(total, key, spent_ps[kept] * many)
    found = np.flatnonzero(counts)
    at_layer, name, kind = np.unravel_index(found, shape)
    columns = (at_layer + NO_LAYER, name, kind, counts[found], total[found])
    rows = [
        OperationTime(names[name], None if at == NO_LAYER else at, n, ps / max(n_chips, 1) * 1e-12, BOUNDS[bound_of])
        for at, name, bound_of, n, ps in zip(*(column.tolist() for column in columns), strict=True)
    ]
    return tuple(sorted(rows, key=lambda r: (NO_LAYER if r.layer is None else r.layer, -r.total_s, r.name, r.bound)))


def by_name(operations: Sequence[OperationTime]) -> list[OperationTime]:
    """Return the operations summed over the layers, the longest first; of two bounds that of the longer time."""
    found: dict[tuple[str, bool], list[OperationTime]] = {}
    for row in operations:
        found.setdefault((row.name, row.bound == "beside"), []).append(row)
    sums = [
        OperationTime(
            name,
            None,
            sum(r.count for r in rows),
            sum(r.total_s for r in rows),
            max(rows, key=lambda r: r.total_s).bound,
        )
        for (name, _), rows in found.items()
    ]
    return sorted(sums, key=lambda row: (-row.total_s, row.name))


def _bound(record: Record) -> int:
    return BOUNDS.index(record.bound if isinstance(record, Compute) else "communication")
