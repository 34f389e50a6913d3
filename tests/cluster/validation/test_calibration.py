"""Constants are found from measured times alone, and what is left out is predicted with them."""

from __future__ import annotations

import pytest
from attrs import evolve

from cluster.validation.calibration import calibrated, errors_at
from cluster.validation.collective_cases import CollectiveWork, case_with
from cluster.validation.held_out import STAND_INS, constants_at, held_out, own_constants, points_of
from cluster.validation.planes import PlaneWork, with_constants
from configs.catalogue_files import catalogue_names
from configs.loader import load_communication
from tests.cluster.validation.test_validate import row

PROFILE = "nccl-nvswitch3"
SETTINGS = (f"communication={PROFILE}", "communication.mode=device")


def cases(factor=1.0, sizes=range(10, 31, 2)):
    """Return rows of a node of H100 as if they had been measured: the catalogue's own times, times a factor."""
    works = [CollectiveWork("dgx-h100", SETTINGS, "all_reduce", n, 1 << size, "fp32") for n in (4, 8) for size in sizes]
    found = []
    for work in works:
        measured = row(id=str(work.size_bytes), time_us=work.run()["time_s"] * 1e6 * factor, n_chips=work.n_ranks)
        found.append(case_with(measured, work, measured.time_us))
    return found


def test_a_plane_is_the_time_near_the_constants():
    """With a constant changed, the plane of the chosen algorithm says what the engine says."""
    work = CollectiveWork("dgx-h100", SETTINGS, "all_reduce", 8, 1 << 20, "fp32")
    chooser, call = work.asked()
    algorithm = chooser(call)
    plane = PlaneWork(work, own_constants(PROFILE)).run()[algorithm]
    assert plane.time_ps == pytest.approx(work.run()["time_s"] * 1e12)
    assert all(slope >= 0 for slope in plane.slopes.values())
    name = max(plane.slopes, key=lambda c: plane.slopes[c] if c[1] == "step_ps" else 0.0)
    step_ps = getattr(chooser.system.communication.used_protocols[name[0]], name[1])
    changed = evolve(chooser, system=with_constants(chooser.system, {name: step_ps * 1.2}))
    found = {c.algorithm: c.time_ps for c in changed.candidates(call)}
    assert found[algorithm] == pytest.approx(plane.time_ps + plane.slopes[name] * step_ps * 0.2, rel=1e-3)


def test_constants_are_found_again():
    """From times that follow from known constants, begun elsewhere, the errors go to a few percent."""
    at = constants_at(PROFILE)
    known, points = points_of(cases(), tuple(at), n_workers=1)
    assert len(known) == len(points) == 22
    wrong = {c: value * (1.5 if c[1].endswith("_ps") else 0.8) for c, value in at.items()}
    found = calibrated(points, wrong, at)
    assert errors_at(points, wrong, at).mean() > 0.15
    assert errors_at(points, found, at).mean() < 0.03


def test_what_no_row_tells_stays():
    """All-reduces say nothing of what sends and receives cost."""
    at = constants_at(PROFILE)
    _, points = points_of(cases(factor=1.3), tuple(at), n_workers=1)
    found = calibrated(points, at, at)
    assert {c: found[c] for c in at if c[0] == "P2P"} == {c: at[c] for c in at if c[0] == "P2P"}
    assert found != at


def test_parts_are_left_out_in_turn():
    """A part's errors are those of constants that do not know it; no part is left out twice."""
    parts = list(held_out(PROFILE, cases(), n_workers=1))
    assert [part.by for part in parts] == ["everything", "ranks", "ranks", "every other row", "every other row"]
    assert {(part.n_fitted, part.n_held) for part in parts[1:]} == {(11, 11)}
    assert parts[0].held[0] > parts[-1].held[0] < 0.1
    assert all(part.catalogue[0] < 1e-6 for part in parts)


@pytest.mark.parametrize("name", STAND_INS)
def test_who_stands_in_is_another_library_of_the_catalogue(name):
    """And both have constants from measurements."""
    assert {name, STAND_INS[name]} <= set(catalogue_names("communication"))
    assert name != STAND_INS[name]
    assert own_constants(name)


@pytest.mark.parametrize("name", catalogue_names("communication"))
def test_constants_are_possible(name):
    """No link carries more than its rate."""
    for protocol in load_communication(name).used_protocols.values():
        assert 0 < protocol.payload <= 1
        assert 0 < protocol.network_payload <= 1
