"""The points of a sweep before they run: which ones `where` lets through, their specs, those that cannot be loaded."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from cluster.sweeps.table import AxisValue, Row, axis_value, spec_columns
from cluster.vocabulary import VOCABULARY
from configs.errors import ConfigError
from configs.loader import load_experiment
from configs.plain import fingerprint, to_plain
from configs.spec.experiment import ExperimentSpec
from topology import build_topology
from workloads.conditions import Condition
from workloads.sweeps import SPEC_NAMES, Point, Sweep, names_of, overrides


@frozen
class Planned:
    """A point before it runs; fingerprint None: it could not be loaded, `error` says why."""

    index: int
    values: Point
    fingerprint: str | None
    error: str | None = None
    axes: Mapping[str, AxisValue] = field(factory=dict)
    columns: Row = field(factory=dict)
    packed_spec: bytes = b""

    @property
    def spec_json(self) -> str:
        """The resolved spec."""
        return zlib.decompress(self.packed_spec).decode()


def points_to_run(of: Sweep) -> list[Point]:
    """Return the points that `where` lets through, those that cannot be loaded included."""
    return [planned.values for planned in planned_points(of) if planned is not None]


def planned_points(sweep: Sweep) -> Iterator[Planned | None]:
    """Yield every point: loaded, failed, or None where `where` leaves it out."""
    names = names_of(sweep.keys)
    n_chips: dict[str, int] = {}
    early = [condition for condition in sweep.where if all(_is_given(name, names) for name in condition.names)]
    late = [condition for condition in sweep.where if condition not in early]
    for index, point in enumerate(sweep.points()):
        given = {name: point[key] for name, key in names.items() if key in point}
        try:
            if not _hold(early, given):
                yield None
                continue
            spec = load_experiment(sweep.base, overrides(point), VOCABULARY, sweep.folder)
            if late and not _hold(late, given | _spec_values(spec, late, n_chips)):
                yield None
                continue
        except ConfigError as error:
            yield Planned(index, point, None, str(error))
            continue
        axes = {key: axis_value(spec, key) for key in sweep.keys}
        packed = zlib.compress(json.dumps(to_plain(spec)).encode(), 1)  # a sweep may have many points
        yield Planned(index, point, fingerprint(spec), None, axes, spec_columns(spec), packed)


def _is_given(name: str, names: Mapping[str, str]) -> bool:
    """Tell whether a name's value is that of a key, so that it is known before the spec is."""
    return name in names and (name not in SPEC_NAMES or names[name] in (f"parallel.{name}", f"workload.{name}"))


def _hold(conditions: Sequence[Condition], values: Mapping[str, Any]) -> bool:
    return all(condition.holds(values) for condition in conditions)


def _spec_values(spec: ExperimentSpec, conditions: Sequence[Condition], n_chips: dict[str, int]) -> dict[str, int]:
    """Return the values of `SPEC_NAMES`; systems are built once, and only if a condition asks for their chips."""
    p = spec.parallel
    values = {"tp": p.tp, "pp": p.pp, "dp": p.dp, "ep": p.ep, "cp": p.cp}
    values |= {"batch": spec.workload.batch, "n_ranks": p.n_ranks}
    if any("n_chips" in condition.names for condition in conditions):
        key = fingerprint(spec.system)
        if key not in n_chips:
            n_chips[key] = build_topology(spec.system).n_chips
        values["n_chips"] = n_chips[key]
    return values
