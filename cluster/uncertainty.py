"""How sure a run's times are: the errors that validation has found for the same system, as they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from attrs import frozen

from configs.catalogue_files import errors_path
from configs.spec import CommunicationSpec, SystemSpec
from configs.yaml_source import parse_yaml, read_file


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


def band_of(system: SystemSpec) -> Band | None:
    """Return how far the decode times of a system were off; where none was measured, those of all systems.

    None where libraries are ideal: nothing measured is like that.
    """
    decode = stored_figures().get("decode")
    if decode is None or system.communication == CommunicationSpec():
        return None
    own = decode["systems"].get(system.name)
    figures, of = (own, system.name) if own is not None else (decode["all"], "all systems; none is of this one")
    return Band(figures["median"], figures["p90"], f"{figures['n']} measured rows of {of}")
