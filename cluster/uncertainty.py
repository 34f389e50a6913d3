"""How sure a run's times are: the errors that validation has found, as they are kept.

They are those of the same system's rows, or, if larger, those on what constants of its chip were not fitted on: models
that were left out; where the constants of kernels or software rest on one source, whole sources that were left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from attrs import frozen

from configs.catalogue_files import errors_path, held_out_decode_path
from configs.spec.communication import CommunicationSpec
from configs.spec.software import SoftwareSpec
from configs.spec.system import SystemSpec
from configs.yaml_source import parse_yaml, read_file

IDEAL_SOFTWARE = SoftwareSpec()


@frozen
class Band:
    """How far predictions of measured neighbours were off: half of them by no more than p50, nine tenths by p90."""

    p50: float
    p90: float
    basis: str

    def to_json(self) -> dict[str, Any]:
        """Return the band of a run's TPOT, as fractions."""
        return {"tpot_rel": [self.p50, self.p90], "basis": self.basis}


@cache
def stored_figures() -> Mapping[str, Any]:
    """Return what is kept: by kind all rows, size classes and systems."""
    path = errors_path()
    found = parse_yaml(read_file(path), str(path))
    assert isinstance(found, dict)
    return found


@cache
def stored_held_out() -> Mapping[str, Any]:
    """Return the errors on what was left out of fits, and how many sources every profile rests on."""
    path = held_out_decode_path()
    found = parse_yaml(read_file(path), str(path))
    assert isinstance(found, dict)
    return found


def band_of(system: SystemSpec, software: SoftwareSpec = IDEAL_SOFTWARE) -> Band | None:
    """Return how far the decode times of a system were off; where none was measured, those of all systems.

    None where libraries are ideal: nothing measured is like that.
    """
    decode = stored_figures().get("decode")
    if decode is None or system.communication == CommunicationSpec():
        return None
    own = decode["systems"].get(system.name)
    figures, of = (own, system.name) if own is not None else (decode["all"], "all systems; none is of this one")
    held, why = _held_out(system.chip.kernels.name, software.name, system.communication.name)
    basis = f"{figures['n']} measured rows of {of}{why}"
    return Band(max(figures["median"], held["median"]), max(figures["p90"], held["p90"]), basis)


def _held_out(kernels: str, software: str, communication: str) -> tuple[Mapping[str, float], str]:
    """Return the errors on what was left out that say most about these profiles, and what that is."""
    found = stored_held_out()
    single = [name for name in (kernels, software) if found["profiles"].get(name, {}).get("sources") == 1]
    calls = stored_figures().get("collective", {}).get("profiles", {})
    if calls.get(communication, {}).get("sources") == 1:
        single.append(communication)
    if single:
        rest = f"{' and '.join(single)} rest{'s' * (len(single) == 1)} on one source"
        return found["all"], f"; {rest}, so the errors on sources left out count"
    family = next((one for one in found["families"].values() if kernels in one["kernels"]), None)
    if family is None:
        return {"median": 0.0, "p90": 0.0}, ""
    figures: Mapping[str, float] = family["model"]["held_out"]
    return figures, "; the errors on models left out count"
