"""The table of a sweep: one row per point, one column per axis and per result, the unit in every column's name."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import pyarrow as pa
import pyarrow.parquet as pq
from attrs import frozen

from cluster.experiment import ExperimentResult
from cluster.uncertainty import band_of
from configs.errors import ConfigError
from configs.fields import QUANTITIES, fields_of
from configs.problems import dotted
from configs.spec.experiment import ExperimentSpec
from workloads.sweeps import Point, keys_of

Row = Mapping[str, Any]
TABLE = "results.parquet"
SPECS = "specs.parquet"
SPECS_SCHEMA = "chipmesh.specs.v1"

SPEC_COLUMNS: Mapping[str, pa.DataType] = {
    "system": pa.string(), "model": pa.string(), "n_chips": pa.int64(), "n_chips_used": pa.int64(),
    "tp": pa.int64(), "pp": pa.int64(), "dp": pa.int64(), "ep": pa.int64(), "cp": pa.int64(), "batch": pa.int64(),
    "weights_dtype": pa.string(), "kv_dtype": pa.string(), "activations_dtype": pa.string(),
}  # fmt: skip
RESULT_COLUMNS: Mapping[str, pa.DataType] = {
    "ttft_s": pa.float64(), "tpot_s": pa.float64(), "total_s": pa.float64(), "tokens_per_s": pa.float64(),
    "tokens_per_s_per_user": pa.float64(), "tokens_per_s_per_chip": pa.float64(),
    "energy_j_per_token": pa.float64(), "energy_method": pa.string(), "cost_usd_per_million_tokens": pa.float64(),
    "compute_s": pa.float64(), "memory_s": pa.float64(), "communication_s": pa.float64(),
    "exposed_communication_s": pa.float64(), "idle_s": pa.float64(),
    "weights_bytes": pa.int64(), "kv_bytes": pa.int64(), "capacity_bytes": pa.int64(),
    "tpot_rel_p50": pa.float64(), "tpot_rel_p90": pa.float64(), "uncertainty_basis": pa.string(),
    "timeline_sha256": pa.string(),
}  # fmt: skip
END_COLUMNS: Mapping[str, pa.DataType] = {
    "fingerprint": pa.string(), "status": pa.string(), "error_kind": pa.string(), "error": pa.string(),
}  # fmt: skip


@frozen
class AxisValue:
    """What a key is in a loaded spec: its name with its unit, and its value in SI units (None: no single value)."""

    column: str
    value: bool | int | float | str | None


def axis_value(spec: ExperimentSpec, key: str) -> AxisValue:
    """Return a key of an experiment as a column sees it.

    >>> from cluster.vocabulary import VOCABULARY
    >>> from configs.loader import load_experiment
    >>> axis_value(load_experiment("galaxy-smollm2", (), VOCABULARY), "system.topology.link.latency")
    AxisValue(column='system.topology.link.latency_s', value=...)
    """
    node: Any = spec
    names: list[str | int] = []
    unit = ""
    for part in keys_of(key):
        if isinstance(part, int):
            names, node = [*names, part], node[part] if isinstance(node, tuple) and part < len(node) else None
        elif attrs.has(type(node)):
            cls: Any = type(node)
            field = next((f for f in fields_of(cls) if f.key == part), None)
            unit = field.argument.removeprefix(field.key) if field else ""
            names.append(field.argument if field else part)
            node = getattr(node, field.argument, None) if field else None
        else:
            names, node = [*names, part], node.get(part) if isinstance(node, Mapping) else None
    value = node if isinstance(node, bool | int | float | str) else None
    column = dotted(tuple(names))
    if unit == "_ps":
        return AxisValue(column.removesuffix("_ps") + "_s", None if value is None else _seconds(value))
    return AxisValue(column, value)


def _seconds(value_ps: Any) -> float:
    return float(value_ps) / 1e12


def given_value(column: str, given: Any) -> bool | int | float | str | None:
    """Return the value of a key as it is given, for a point whose spec has none: in the column's unit.

    >>> given_value("system.topology.link.latency_s", "1us"), given_value("parallel", {"tp": 2})
    (1e-06, '{"tp": 2}')
    """
    suffix = next((s for s in QUANTITIES if column.endswith(s)), "_ps" if column.endswith("_s") else "")
    if suffix and isinstance(given, str):
        try:
            parsed: float = QUANTITIES[suffix][1](given)
        except ConfigError:
            return None  # the error of the point shows it
        return _seconds(parsed) if suffix == "_ps" else parsed
    return given if isinstance(given, bool | int | float | str) or given is None else json.dumps(given)


def spec_columns(spec: ExperimentSpec) -> Row:
    """Return the columns that a spec decides."""
    p, dtype = spec.parallel, spec.dtype
    return {
        "system": spec.system.name, "model": spec.model.name, "n_chips_used": p.n_ranks,
        "tp": p.tp, "pp": p.pp, "dp": p.dp, "ep": p.ep, "cp": p.cp, "batch": spec.workload.batch,
        "weights_dtype": dtype.weights, "kv_dtype": dtype.kv, "activations_dtype": dtype.activations,
    }  # fmt: skip


def result_columns(result: ExperimentResult) -> Row:
    """Return the columns that a run decides; tokens/s/chip counts the chips in use."""
    times = attrs.asdict(result.times)
    band = band_of(result.spec.system)
    memory = {name: result.memory[name] for name in ("weights_bytes", "kv_bytes", "capacity_bytes")}
    return {
        "n_chips": result.n_chips, **times,
        "tokens_per_s_per_chip": result.times.tokens_per_s / result.spec.parallel.n_ranks,
        "energy_j_per_token": result.energy.energy_j_per_token, "energy_method": result.energy.method,
        "cost_usd_per_million_tokens": result.cost.cost_usd_per_million_tokens,
        **result.timeline.breakdown._asdict(), **memory,
        "tpot_rel_p50": band and band.p50, "tpot_rel_p90": band and band.p90, "uncertainty_basis": band and band.basis,
        "timeline_sha256": result.timeline.sha256(),
    }  # fmt: skip


@frozen
class Columns:
    """The columns of the axes: the name of each key's."""

    axes: Mapping[str, str]

    @classmethod
    def of(cls, keys: Sequence[str], named: Mapping[str, str]) -> Columns:
        """Name the column of every key; `named` has those that a loaded spec knows the unit of.

        A key that a column of every table is named after, such as system, has that column.
        """
        return cls({key: named.get(key, key) for key in keys if key not in SPEC_COLUMNS})

    def row(self, index: int, point: Point, resolved: Mapping[str, AxisValue], rest: Row) -> Row:
        """Return a row, its columns in order."""
        row: dict[str, Any] = {"point": index}
        for key, column in self.axes.items():
            found = resolved.get(key)
            known = found is not None and found.column == column and found.value is not None
            row[column] = found.value if known and found else given_value(column, point.get(key))
        for column in (*SPEC_COLUMNS, *RESULT_COLUMNS, *END_COLUMNS):
            row[column] = rest.get(column)
        for key in SPEC_COLUMNS.keys() & point.keys():
            row[key] = given_value(key, point[key]) if row[key] is None else row[key]
        return row

    def table(self, rows: Iterable[Row]) -> pa.Table:
        """Return rows as a table."""
        rows = list(rows)
        types = {
            "point": pa.int64(),
            **dict.fromkeys(self.axes.values()),
            **SPEC_COLUMNS,
            **RESULT_COLUMNS,
            **END_COLUMNS,
        }
        columns = {name: _column([row[name] for row in rows], kind) for name, kind in types.items()}
        return pa.table(columns)


def specs_table(specs: Mapping[str, str]) -> pa.Table:
    """Return the specs of points, as JSON, by their fingerprints."""
    columns = {"fingerprint": pa.array(specs, pa.string()), "spec": pa.array(specs.values(), pa.string())}
    return pa.table(columns).replace_schema_metadata({"schema": SPECS_SCHEMA})


def parquet(table: pa.Table) -> bytes:
    """Return a table as a Parquet file: equal tables give equal bytes."""
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def _column(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    """Return a column; one of an axis has the type that fits all its values, text if no other does."""
    if kind is None:
        kinds = {type(value) for value in values if value is not None}
        fits = {frozenset({bool}): pa.bool_(), frozenset({int}): pa.int64()}
        numbers = kinds and kinds <= {int, float}
        if int in kinds and any(abs(value) >= 2**63 for value in values if isinstance(value, int)):
            kinds, numbers = {str}, False
        kind = fits.get(frozenset(kinds), pa.float64() if numbers else pa.string())
    if kind == pa.string():
        values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array(values, kind)
