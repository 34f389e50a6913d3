"""Errors on rows that a library's constants were not derived from: sources, systems, nodes, ranks left out in turn.

A profile's own constants (those of its file, not of the one that it is `like`) are found anew from the other rows
(`calibration`), beginning at the constants of another library's profile, and the rows that were left out are predicted
with them by the ordinary engine. A profile with one source only is predicted from that other profile alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from cluster.prediction import predict_ps
from cluster.selection import Chooser
from cluster.validation.calibration import Point, calibrated, errors_at
from cluster.validation.collective_cases import CollectiveWork
from cluster.validation.planes import TIMES, Constant, Plane, PlaneWork, constants_of, with_constants
from cluster.validation.predictions import OnProgress, simulated
from cluster.validation.vocabulary import Case
from configs.catalogue_files import catalogue_entry
from configs.errors import ChipmeshError
from configs.loader import load_communication
from configs.spec.communication import ProtocolSpec

FEWEST = 3
"""Rows that a part must have to be left out, and that must be there to find constants from."""

STAND_INS: Mapping[str, str] = {
    "mpi-slingshot-gpu": "mpi-slingshot-host",
    "mpi-slingshot-host": "mpi-slingshot-gpu",
    "nccl-nvl72": "nccl-nvswitch4",
    "nccl-nvl72-roce": "nccl-nvswitch4-ib",
    "nccl-nvlink4-slingshot": "nccl-nvswitch3-ib",
    "nccl-nvswitch2": "nccl-nvswitch3",
    "nccl-nvswitch2-ib": "nccl-nvswitch3-ib",
    "nccl-nvswitch3": "nccl-nvswitch4",
    "nccl-nvswitch3-efa": "nccl-nvswitch3-ib",
    "nccl-nvswitch3-gib": "nccl-nvswitch3-ib",
    "nccl-nvswitch3-ib": "nccl-nvswitch3-efa",
    "nccl-nvswitch3-tcpxo": "nccl-nvswitch3-efa",
    "nccl-nvswitch4": "nccl-nvswitch3",
    "nccl-nvswitch4-gib": "nccl-nvswitch4-ib",
    "nccl-nvswitch4-xla": "nccl-nvswitch3",
    "nccl-symmetric-nvswitch3": "nccl-symmetric-nvswitch4",
    "nccl-symmetric-nvswitch4": "mscclpp-nvswitch2",
    "rccl-mi300x": "rccl-mi355x",
    "rccl-mi300x-ib": "rccl-mi355x-pollara",
    "rccl-mi355x": "rccl-mi300x",
    "rccl-mi355x-pollara": "rccl-mi300x-ib",
    "tt-fabric-blackhole": "tt-fabric-wormhole",
    "tt-fabric-wormhole": "tt-fabric-blackhole",
}
"""By profile, the one of the library and machine that is most like it among those with rows of their own."""

PARTS: Mapping[str, Callable[[int, Case], Hashable]] = {
    "source": lambda _, case: case.row.source,
    "system": lambda _, case: case.system,
    "nodes": lambda _, case: _work(case).n_domains,
    "ranks": lambda _, case: _work(case).n_ranks,
    "every other row": lambda number, _: ("even", "odd")[number % 2],
}
"""What is left out in turn: all rows that are alike in this."""


@frozen
class HeldOut:
    """Median and p90 of the errors on n_held rows that were left out, and on the n_fitted other ones."""

    profile: str
    by: str
    left_out: str
    n_fitted: int
    fitted: tuple[float, float] | None
    n_held: int
    held: tuple[float, float]
    catalogue: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Return it as it is kept."""
        figures = {"fitted": self.fitted, "held": self.held, "catalogue": self.catalogue}
        pairs = {name: [round(x, 4) for x in pair] for name, pair in figures.items() if pair is not None}
        counts = {"n_fitted": self.n_fitted, "n_held": self.n_held}
        return {"profile": self.profile, "by": self.by, "left_out": self.left_out, **counts, **pairs}


def held_out(
    profile: str, cases: Sequence[Case], n_workers: int | None = None, on_progress: OnProgress = lambda _done, _of: None
) -> Iterator[HeldOut]:
    """Yield what every part of a profile's rows, left out, is predicted with."""
    at = constants_at(profile)
    known, points = points_of(cases, tuple(at), n_workers, on_progress)
    start, now, seen = _start(profile, at), _errors(known, at), set[frozenset[int]]()
    if profile in STAND_INS:
        other = _figures(_errors(known, start))
        yield HeldOut(profile, "everything", STAND_INS[profile], 0, None, len(known), other, _figures(now))
    for by, key in PARTS.items():
        keys = [key(i, case) for i, case in enumerate(known)]
        for part in sorted(set(keys), key=str):
            held = [i for i, k in enumerate(keys) if k == part]
            rest = [i for i, k in enumerate(keys) if k != part]
            if min(len(held), len(rest)) < FEWEST or frozenset(held) in seen:
                continue
            seen.add(frozenset(held))
            told = [points[i] for i in rest]
            values = calibrated(told, start, at)
            errors = _errors([known[i] for i in held], values)
            yield HeldOut(
                profile, by, str(part), len(rest), _figures(errors_at(told, values, at)), len(held), _figures(errors),
                _figures(now[held]),
            )  # fmt: skip


def constants_at(profile: str) -> dict[Constant, float]:
    """Return a profile's own constants with their values."""
    protocols = load_communication(profile).used_protocols
    return {c: _value(protocols, c) for c in own_constants(profile)}


def points_of(
    cases: Sequence[Case], constants: tuple[Constant, ...], n_workers: int | None = None,
    on_progress: OnProgress = lambda _done, _of: None,
) -> tuple[list[Case], list[Point]]:  # fmt: skip
    """Return the cases that can be simulated, and their measured times with the planes of their calls."""
    works = [PlaneWork(_work(case), constants) for case in cases]
    found = simulated(works, n_workers, on_progress)
    pairs = [(case, found[work]) for case, work in zip(cases, works, strict=True)]
    known = [(case, planes) for case, planes in pairs if planes and not isinstance(planes, str)]
    return [case for case, _ in known], [_point(case, planes) for case, planes in known]


def _work(case: Case) -> CollectiveWork:
    assert isinstance(case.work, CollectiveWork)
    return case.work


def own_constants(profile: str) -> tuple[Constant, ...]:
    """Return the constants that a profile's own file has from measurements, not from its vendor."""
    protocols = catalogue_entry("communication", profile)["protocols"]
    found = {
        (name, f"{key}_ps" if f"{key}_ps" in TIMES else key)
        for name, entries in protocols.items()
        for key, entry in (entries or {}).items()
        if isinstance(entry, dict) and entry.get("confidence") == "measured"
    }
    return tuple(c for c in constants_of(load_communication(profile).used_protocols) if c in found)


def _value(protocols: Mapping[str, ProtocolSpec], constant: Constant) -> float:
    return float(getattr(protocols[constant[0]], constant[1]))


def _start(profile: str, at: Mapping[Constant, float]) -> dict[Constant, float]:
    """Return the constants of the profile that stands in; of what it has not, the profile's own."""
    if profile not in STAND_INS:
        return dict(at)
    other = load_communication(STAND_INS[profile]).used_protocols
    return {c: _value(other, c) or value if c[0] in other else value for c, value in at.items()}


def _point(case: Case, planes: Any) -> Point:
    found: tuple[Plane, ...] = tuple(planes.values())
    return Point(case.measured, found, 2 if case.quantity == "round_trip_s" else 1)


def _errors(cases: Sequence[Case], values: Mapping[Constant, float]) -> Any:
    """Return the relative errors with other constants, by the ordinary choice and engine."""
    found = np.empty(len(cases))
    choosers: dict[Hashable, Chooser] = {}
    for i, case in enumerate(cases):
        work = _work(case)
        chooser, call = work.asked()
        if work.place not in choosers:
            system = with_constants(chooser.system, values)
            choosers[work.place] = Chooser(system, topology=chooser.topology)
        chooser = choosers[work.place]
        try:
            time_ps = predict_ps(chooser.system, chooser.topology, call._replace(algorithm=chooser(call)))
        except ChipmeshError:
            found[i] = np.nan
            continue
        found[i] = abs(time_ps * 1e-12 * (2 if case.quantity == "round_trip_s" else 1) / case.measured - 1)
    return found


def _figures(errors: Any) -> tuple[float, float]:
    return float(np.median(errors)), float(np.quantile(errors, 0.9))
