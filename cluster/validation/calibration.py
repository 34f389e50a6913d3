"""Find a library's constants from measured rows: those for which the least plane of every row is nearest to its time.

The errors are log(predicted / measured), so that twice too slow counts as much as twice too fast; their sum grows
linearly (outliers do not rule). A constant that moves away from its start by a factor of e costs as much as an error
of 40 % of one row: so one that rows hardly tell stays near its start, and one that no row tells stays there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from cluster.validation.planes import FRACTIONS, Constant, Plane, coordinate

Values = Mapping[Constant, float]
HELD_BACK = 0.4
MOST_PAYLOAD = 0.97
"""Headers are part of every message."""
ROUNDED = 0.01
"""Errors below this count by their square: so the sum has a slope everywhere."""
STARTS = (1.0, 3.0, 1 / 3)
"""The search begins with the times of the start and with multiples of them: it ends at the nearest hollow."""
FACTORS = (2.0, 1.4, 1.15, 1.05, 1.02)


@frozen
class Point:
    """A measured time with the planes of its call; often: how many calls the time is of (there and back: two)."""

    measured_s: float
    planes: tuple[Plane, ...]
    often: int = 1


def calibrated(points: Sequence[Point], start: Values, at: Values) -> dict[Constant, float]:
    """Return the constants that fit, sought from `start`; the planes hold at the constants `at`."""
    planes = _Planes(points, tuple(start), at)
    begin = np.array([start[name] for name in planes.names])
    tries = [planes.nearest(np.where(planes.is_fraction, begin, begin * by), begin) for by in STARTS]
    found = min(tries, key=lambda values: planes.loss(values, begin))
    return dict(zip(planes.names, found.tolist(), strict=True))


def errors_at(points: Sequence[Point], values: Values, at: Values) -> NDArray[np.float64]:
    """Return the relative errors of the least planes with these constants."""
    planes = _Planes(points, tuple(values), at)
    errors: NDArray[np.float64] = np.abs(planes.times_ps(np.array(list(values.values()))) / planes.measured_ps - 1)
    return errors


class _Planes:
    """The planes of all points as arrays: [point, plane], and slopes [point, plane, constant]."""

    def __init__(self, points: Sequence[Point], names: tuple[Constant, ...], at: Values) -> None:
        most = max(len(point.planes) for point in points)
        self.names, self.at = names, np.array([coordinate(name[1], at[name]) for name in names])
        self.is_fraction = np.array([field in FRACTIONS for _, field in names])
        self.base = np.full((len(points), most), np.inf)
        self.slopes = np.zeros((len(points), most, len(names)))
        self.measured_ps = np.array([point.measured_s * 1e12 / point.often for point in points])
        for i, point in enumerate(points):
            for j, plane in enumerate(point.planes):
                self.base[i, j] = plane.time_ps
                self.slopes[i, j] = [plane.slopes.get(name, 0.0) for name in names]
        self.told = np.flatnonzero(self.slopes.any(axis=(0, 1)))

    def times_ps(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the least plane of every point."""
        change = np.where(self.is_fraction, 1 / values, values) - self.at
        times: NDArray[np.float64] = np.maximum(self.base + self.slopes @ change, 0.01 * self.base).min(axis=1)
        return times

    def loss(self, values: NDArray[np.float64], start: NDArray[np.float64]) -> float:
        """Return the sum of the errors, and of the distances from the start."""
        errors = np.log(self.times_ps(values) / self.measured_ps)
        moved = np.log(values / start)
        return float(np.hypot(errors, ROUNDED).sum() + HELD_BACK * np.square(moved).sum())

    def nearest(self, found: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values from which no constant alone, changed by one of FACTORS, makes the loss less."""
        least = self.loss(found, start)
        for factor in FACTORS:
            before = np.inf
            while least < before - 1e-4:
                before = least
                for p in self.told:
                    for by in (factor, 1 / factor):
                        tried = found.copy()
                        tried[p] = min(found[p] * by, MOST_PAYLOAD) if self.is_fraction[p] else found[p] * by
                        loss = self.loss(tried, start)
                        if loss < least:
                            found, least = tried, loss
        return found
