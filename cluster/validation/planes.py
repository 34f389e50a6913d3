"""How a call's time depends on a library's constants: near the catalogue's, in planes, one per algorithm and protocol.

A call takes the longest of sums along its dependencies, so under one algorithm it grows with every time constant and
with 1 / payload, piece by piece linearly. A plane is the piece that holds at the catalogue's constants, found from
predictions with one constant changed at a time; the least plane stands for what `auto` chooses.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from attrs import evolve, frozen

from cluster.prediction import predict_quickly_ps
from cluster.records import Collective
from cluster.selection import Candidate, Chooser
from cluster.validation.collective_cases import CollectiveWork
from configs.algorithm_names import PROTOCOL, split_name
from configs.spec.communication import ProtocolSpec
from configs.spec.system import SystemSpec

TIMES = ("base_ps", "step_ps", "network_step_ps", "message_ps")
FRACTIONS = ("payload", "network_payload")
STEP = 0.05
"""By how much of it a constant is changed to find its slope."""
CONSIDERED = 4.0
"""Algorithms that take more than so many times as long as the best one are left out."""

Constant = tuple[str, str]
"""A protocol's name and a field of it."""


@frozen
class Plane:
    """The time of a call under one algorithm and protocol, in ps; slopes: by ps of a time, by 1 / fraction."""

    time_ps: float
    slopes: Mapping[Constant, float]


@frozen
class PlaneWork:
    """Find the planes of a call, in these constants of its library."""

    work: CollectiveWork
    constants: tuple[Constant, ...]

    @property
    def place(self) -> Hashable:
        """Works on one system share its topology."""
        return self.work.place

    def run(self) -> Mapping[str, Plane]:
        """Return the planes, by algorithm."""
        chooser, call = self.work.asked()
        timed = [c for c in chooser.candidates(call) if c.time_ps]
        least = min((c.time_ps or 0 for c in timed), default=0)
        return {c.algorithm: self._plane(chooser, call, c) for c in timed if (c.time_ps or 0) < CONSIDERED * least}

    def _plane(self, chooser: Chooser, call: Collective, candidate: Candidate) -> Plane:
        named = str(split_name(candidate.algorithm)[1].get(PROTOCOL, ""))
        time_ps, call = float(candidate.time_ps or 0), call._replace(algorithm=candidate.algorithm)
        slopes = {}
        for name, field in self.constants:
            if name == named:
                system, change = _changed(chooser.system, name, field)
                later_ps = predict_quickly_ps(system, chooser.topology, call)
                slopes[name, field] = ((later_ps or time_ps) - time_ps) / change
        return Plane(time_ps, slopes)


def coordinate(field: str, value: float) -> float:
    """Return what a call's time is linear in: the time itself, or 1 / fraction."""
    return 1 / value if field in FRACTIONS else value


def constants_of(protocols: Mapping[str, ProtocolSpec]) -> Iterator[Constant]:
    """Yield all constants above 0; of fractions those below 1, too."""
    for name, protocol in protocols.items():
        yield from ((name, field) for field in TIMES if getattr(protocol, field) > 0)
        yield from ((name, field) for field in FRACTIONS if getattr(protocol, field) < 1)


def with_constants(system: SystemSpec, values: Mapping[Constant, float]) -> SystemSpec:
    """Return a system whose library has other constants."""
    communication = system.communication
    protocols = dict(communication.protocols)
    for (name, field), value in values.items():
        kept = protocols.get(name)
        if kept is not None:
            change: dict[str, Any] = {field: value if field in FRACTIONS else round(value)}
            protocols[name] = evolve(kept, **change)
    return evolve(system, communication=evolve(communication, protocols=protocols))


def _changed(system: SystemSpec, name: str, field: str) -> tuple[SystemSpec, float]:
    """Return a system with one constant changed, and by how much its coordinate is."""
    old = getattr(system.communication.used_protocols[name], field)
    new = old / (1 + STEP) if field in FRACTIONS else round(old * (1 + STEP)) + 1
    return with_constants(system, {(name, field): new}), coordinate(field, new) - coordinate(field, old)
