"""Read the folders that `run --out` and `sweep --out` have written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from attrs import frozen

from cluster.experiment import LINKS_SCHEMA
from cluster.experiment import SCHEMA as RUN_SCHEMA
from cluster.run_store import PICTURE_SCHEMA, RUN_TABLES
from cluster.sweeps.store import POINTS
from cluster.sweeps.table import SPECS, SPECS_SCHEMA, TABLE
from configs.errors import ConfigError
from configs.input_files import decode_utf8, read_bytes
from configs.problems import shown

WRITTEN = "what `run --out` or `sweep --out` has written"
MOST_BYTES = 2**31
AGAIN = "a folder of `chipmesh run --out` of this version; run it again"
SWEEP_AGAIN = "a folder of `chipmesh sweep --out`; run the sweep again: what is finished is not computed anew"


@frozen(eq=False)
class StoredRun:
    """A run's folder: its documents and tables (cluster/run_store.py)."""

    name: str
    result: Mapping[str, Any]
    picture: Mapping[str, Any]
    operations: pa.Table
    kernels: pa.Table
    memory: pa.Table
    loads: pa.Table
    utilisation: Mapping[str, float]
    """Of every used link, over the whole run."""

    @property
    def spec(self) -> Mapping[str, Any]:
        """The resolved spec."""
        spec: Mapping[str, Any] = self.result["spec"]
        return spec

    @property
    def total_ps(self) -> int:
        """When the last operation or transfer ended."""
        total_s: float = self.result["time"]["total_s"]
        return round(total_s * 1e12)


@frozen(eq=False)
class StoredSweep:
    """A sweep's folder: its table, and the spec of every point by fingerprint, as JSON."""

    name: str
    table: pa.Table
    specs: Mapping[str, str]


def read_stored(folder: Path) -> StoredRun | StoredSweep:
    """Return what a folder holds; raise ConfigError if that is neither a run nor a sweep."""
    if not folder.is_dir():
        why = "is no folder" if folder.exists() else "no such folder"
        raise ConfigError((f"{folder}: {why}; accepted: {WRITTEN}",))
    name = folder.resolve().name
    if (folder / "result.json").exists():
        return _read_run(folder, name)
    if (folder / POINTS).exists() or (folder / TABLE).exists():
        table, specs = _table(folder / TABLE, None, SWEEP_AGAIN), _table(folder / SPECS, SPECS_SCHEMA, SWEEP_AGAIN)
        known = dict(zip(specs["fingerprint"].to_pylist(), specs["spec"].to_pylist(), strict=True))
        return StoredSweep(name, table, known)
    raise ConfigError((f"{folder}: has neither result.json nor {TABLE}; accepted: {WRITTEN}",))


def _read_run(folder: Path, name: str) -> StoredRun:
    result = _document(folder / "result.json", RUN_SCHEMA)
    picture = _document(folder / "picture.json", PICTURE_SCHEMA)
    tables = {key: _table(folder / f"{key}.parquet", schema, AGAIN) for key, schema in RUN_TABLES.items()}
    links = _document(folder / "links.json", LINKS_SCHEMA)["links"]
    return StoredRun(name, result, picture, **tables, utilisation={link["name"]: link["utilisation"] for link in links})


def _document(path: Path, schema: str) -> dict[str, Any]:
    try:
        document = json.loads(decode_utf8(read_bytes(path, "a JSON document", MOST_BYTES)))
    except ConfigError as error:
        raise ConfigError((f"{path}: {error}; accepted: {AGAIN}",)) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError((f"{path}: is not JSON: {error}; accepted: {AGAIN}",)) from None
    found = document.get("schema") if isinstance(document, dict) else None
    if found != schema:
        raise ConfigError((f"{path}: schema: {shown(found)}; accepted: {schema}, from {AGAIN}",))
    known: dict[str, Any] = document
    return known


def _table(path: Path, schema: str | None, accepted: str) -> pa.Table:
    if not path.is_file():
        raise ConfigError((f"{path}: no such file; accepted: {accepted}",))
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError((f"{path}: is not a Parquet file: {error}; accepted: {accepted}",)) from None
    found = (table.schema.metadata or {}).get(b"schema", b"").decode(errors="replace")
    if schema is not None and found != schema:
        raise ConfigError((f"{path}: schema: {shown(found)}; accepted: {schema}, from {accepted}",))
    return table
