"""Run the points of a sweep, and keep what is finished.

    sweep file ─► points ─► where ─► specs, fingerprints ─► those not yet stored ─► workers ─► store ─► table

A point is known by the fingerprint of its resolved spec and the version of the program: the same sweep goes on where it
stopped, a changed one computes what is new.
"""

from cluster.sweeps.results import SweepPoint, SweepResults, sweep

__all__ = ["SweepPoint", "SweepResults", "sweep"]
