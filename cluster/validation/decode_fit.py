"""Find the constants of kernels and serving software that measured rows of decoding ask for.

Every constant starts from what is usual (`USUAL`) and is moved away from there as far as rows say: least squares of the
logarithms of predicted by measured, in which far-off rows count less, with a penalty on the way from the usual:

    Σ_rows f(log(predicted / measured) / SPREAD) + Σ_constants (log(value / usual) / FREEDOM)²,  f(r) = log(1 + r²)

The same serves to hold rows out: constants without some rows, and the errors on these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from cluster.validation.decode_makeup import Makeup
from cluster.validation.decode_work import software_named

SPREAD, FREEDOM, WIDE, N_STEPS = 0.15, 0.7, 2.0, 40
MOST = 0.95
"""Of a peak or a bandwidth."""
VARIED = ("step", "row", "kernel", "dispatch", "matmul.start", "attention.start")
"""Constants that differ most from one chip's software to the next: they may move `WIDE`."""

Constant = tuple[str, str]
"""(profile of kernels or software, which one of its constants): ("nvidia-hopper", "matmul.start")."""

STARTS_S = {
    "matmul": 3e-6, "experts": 6e-6, "attention": 9e-6, "norm": 2.5e-6, "activation": 1.9e-6, "rope": 2.4e-6,
    "route": 4e-6, "permute": 3e-6, "lookup": 2e-6, "sample": 5e-6,
}  # fmt: skip
USUAL: Mapping[str, float] = {
    **{f"{kind}.start": start_s for kind, start_s in STARTS_S.items()},
    "matmul.memory": 0.8, "experts.memory": 0.8, "attention.memory": 0.8,
    "matmul.compute": 0.65, "experts.compute": 0.4, "attention.compute": 0.35,
    "attention.stream": 0.2, "rounding": 3e-6,
    "step": 250e-6, "row": 10e-6, "kernel": 0.3e-6, "call": 1.5e-6, "stall": 0.9, "dispatch": 5e-6,
}  # fmt: skip
"""Constants of most profiles; what is not listed keeps 0.8 of peak and bandwidth."""
FIXED = 0.8


@frozen
class Measured:
    """A measured figure, what its prediction is the sum of, and whose constants these have."""

    kernels: str
    software: str
    parts: tuple[Makeup, ...]
    measured_s: float


@frozen(eq=False)
class Rows:
    """Measured figures as arrays: of parts, and of their kernels."""

    rows: Sequence[Measured]
    constants: tuple[Constant, ...] = field(init=False)

    @constants.default
    def _used(self) -> tuple[Constant, ...]:
        used: dict[Constant, None] = {}
        for row in self.rows:
            for part in row.parts:
                for kernel, _ in part.kernels:
                    names = [f"{kernel.kind}.{what}" for what in ("start", "memory", "compute", "stream")]
                    names += ["rounding"] if kernel.rounds else []
                    names = [n for n in names if kernel.streams or not n.endswith("stream")]
                    used.update(dict.fromkeys((row.kernels, name) for name in names if name in USUAL))
            if row.software != "ideal":
                host = (
                    "step",
                    "row",
                    "call",
                    "stall",
                    "dispatch" if software_named(row.software).dispatch_ps else "kernel",
                )
                used.update(dict.fromkeys((row.software, name) for name in host))
        return tuple(used)

    @cached_property
    def usual(self) -> NDArray[np.float64]:
        """The logarithms from which the constants start."""
        return np.log([USUAL[name] for _, name in self.constants])

    @cached_property
    def freedom(self) -> NDArray[np.float64]:
        """How far the logarithms may be from there."""
        return np.array([WIDE if name in VARIED else FREEDOM for _, name in self.constants])

    @cached_property
    def _arrays(self) -> _Arrays:
        number = {constant: i for i, constant in enumerate(self.constants)}
        none, fixed, whole = len(number), len(number) + 1, len(number) + 2
        kernels: list[tuple[float, ...]] = []
        parts: list[tuple[float, ...]] = []
        for i, row in enumerate(self.rows):
            for part in row.parts:
                host = [
                    number.get((row.software, name), none) for name in ("step", "row", "call", "kernel", "dispatch")
                ]
                for k, count in part.kernels:
                    start, memory, compute = (
                        number.get((row.kernels, f"{k.kind}.{what}"), default)
                        for what, default in (("start", none), ("memory", fixed), ("compute", fixed))
                    )
                    stream = number.get((row.kernels, f"{k.kind}.stream"), whole) if k.streams else whole
                    rounding = number.get((row.kernels, "rounding"), none) if k.rounds else none
                    kernels.append((len(parts), i, count, k.compute_s, k.memory_s, max(k.streams, 1), part.chips,
                                    start, rounding, host[3], compute, memory, stream, host[4]))  # fmt: skip
                stall = number.get((row.software, "stall"), whole) if part.stalls else whole
                parts.append((i, *part.rest, part.chips, *host[:3], host[4], stall))
        measured = np.log([row.measured_s for row in self.rows])
        return _Arrays(np.array(kernels).T, np.array(parts).T, measured)

    def errors(self, logs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log(predicted / measured) of every row under constants with these logarithms."""
        return self._play(logs)[0]

    def slopes(self, logs: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the errors, and how they change with every logarithm: [row, constant]."""
        return self._play(logs, slopes=True)

    def _play(
        self, logs: NDArray[np.float64], *, slopes: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        n, n_rows = len(self.constants), len(self.rows)
        values = np.concatenate([np.minimum(np.exp(logs), self._most), [0.0, FIXED, 1.0]])
        movable = np.concatenate([np.exp(logs) < self._most, [False] * 3])
        part, row, count, compute_s, memory_s, streams, chips, *at = self._arrays.kernels
        start, rounding, extra, compute, memory, stream, dispatch = (index.astype(int) for index in at)
        by_stream = values[stream] * streams < values[memory]
        reached = np.where(by_stream, values[stream] * streams, values[memory])
        busy_s, streaming_s = compute_s / values[compute], memory_s / reached
        own_s = values[start] + values[rounding] + values[extra] + np.maximum(busy_s, streaming_s)
        floor_s = values[dispatch] * chips
        waits = floor_s > own_s
        of_row, n_steps, host_rows, calls, rest_s, hosted, *at = self._arrays.parts
        of_row = of_row.astype(int)
        step, per_row, call, started, stall = (index.astype(int) for index in at)
        host_s = (
            n_steps * values[step] + host_rows * values[per_row] + calls * (values[call] + hosted * values[started])
        )
        sums_s = np.bincount(part.astype(int), count * np.where(waits, floor_s, own_s), len(of_row)) + host_s + rest_s
        total_s = np.maximum(np.bincount(of_row, sums_s * values[stall], n_rows), 1e-9)
        errors = np.log(total_s) - self._arrays.measured
        if not slopes:
            return errors, errors
        found = np.zeros(n_rows * (n + 3))

        def add(rows: NDArray[np.float64], index: NDArray[np.int64], times_s: NDArray[np.float64]) -> None:
            nonlocal found
            found += np.bincount(rows.astype(int) * (n + 3) + index, times_s, len(found))

        weight = count * values[stall][part.astype(int)]
        runs, computes = weight * ~waits, busy_s > streaming_s
        for index in (start, rounding, extra):
            add(row, index, runs * values[index])
        add(row, compute, -runs * computes * busy_s)
        add(row, memory, -runs * ~computes * ~by_stream * streaming_s)
        add(row, stream, -runs * ~computes * by_stream * streaming_s)
        add(row, dispatch, weight * waits * floor_s)
        for index, many in ((step, n_steps), (per_row, host_rows), (call, calls), (started, calls * hosted)):
            add(of_row, index, many * values[index] * values[stall])
        add(of_row, stall, sums_s * values[stall])
        return errors, (found.reshape(n_rows, n + 3) * movable)[:, :n] / total_s[:, None]

    @cached_property
    def _most(self) -> NDArray[np.float64]:
        """The most that constants may be."""
        most = {"memory": MOST, "compute": MOST, "stream": 1.0, "stall": 1.0}
        return np.array([most.get(name.rpartition(".")[2], np.inf) for _, name in self.constants])


class _Arrays(NamedTuple):
    """kernels, parts: a row each for what `Rows._play` takes out of them; measured: the logarithms."""

    kernels: NDArray[np.float64]
    parts: NDArray[np.float64]
    measured: NDArray[np.float64]


def fitted(
    rows: Rows, weights: NDArray[np.float64] | None = None, start: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return the logarithms of the constants that fit best (weight 0 holds a row out).

    Descends from `start`, or else from the usual constants, and from slow starts of products, of which one explains
    what the other does too.
    """
    weights = np.ones(len(rows.rows)) if weights is None else weights
    slow = np.array([name == "matmul.start" for _, name in rows.constants])
    starts = [rows.usual + slow * np.log(factor) for factor in (1, 10)] if start is None else [start]
    return min((_descend(rows, weights, one) for one in starts), key=lambda pair: pair[0])[1]


def _descend(rows: Rows, weights: NDArray[np.float64], logs: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the least cost that is reached from here by damped Gauss-Newton steps, and where."""
    usual = rows.usual

    def cost(logs: NDArray[np.float64]) -> float:
        far = np.log1p((rows.errors(logs) / SPREAD) ** 2)
        return float((weights * far).sum() + (((logs - usual) / rows.freedom) ** 2).sum())

    now, damping = cost(logs), 1.0
    for _ in range(N_STEPS):
        errors, slopes = rows.slopes(logs)
        trust = weights / (SPREAD**2 + errors**2)
        left = slopes.T @ (trust[:, None] * slopes) + np.diag(1 / rows.freedom**2)
        right = slopes.T @ (trust * errors) + (logs - usual) / rows.freedom**2
        while damping < 1e6:
            tried = logs - np.linalg.solve(left + damping * np.diag(np.diag(left)), right)
            new = cost(tried)
            if new < now:
                break
            damping *= 4
        else:
            break
        better, logs, now, damping = now - new, tried, new, damping / 4
        if better < 1e-4 * now:
            break
    return now, logs
