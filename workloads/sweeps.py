"""Sweep files: many experiments from one, each with some of its keys changed.

    base: t3000-llama-3.1-70b                      # an experiment: a name, a path, or inline
    grid: {parallel.tp: [1, 2, 4, 8], workload.batch: {log: [1, 64], n: 7}}     # every combination
    zip: {system: [dgx-h100, wormhole-t3000], dtype.weights: [bf16, bfp8]}      # side by side
    list: [{workload.prompt_tokens: 100}, {workload.prompt_tokens: 1000, seed: 1}]          # as written
    where: ["tp * pp == n_chips"]

The points are the product of grid, zip and list, in that order, the last one fastest. An axis is a list of values or
{log: [low, high], n: N}, {linear: [low, high], n: N}, {random: [low, high], n: N, seed: S}: numbers, or texts with one
unit ("1us"); between whole numbers there are only whole numbers, each once. Paths are from the file's folder.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen

from configs.errors import ConfigError
from configs.overrides import parse_override
from configs.problems import Keys, Place, Problems, shown, unknown
from configs.yaml_source import parse_yaml, read_file
from workloads.conditions import Condition

MOST_POINTS = 1_000_000
MOST_VALUES = 100_000
KEYS = ("base", "grid", "zip", "list", "where", "name", "description")
SPEC_NAMES = ("tp", "pp", "dp", "ep", "cp", "batch", "n_chips", "n_ranks")
"""What conditions may ask of a point beside its own keys."""

_LARGEST = 1e30
_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\D*)")
_LAST = re.compile(r"[^.]+$")

Axes = Mapping[str, tuple[Any, ...]]
Point = Mapping[str, Any]
"""Dotted keys of an experiment, and the values that they get."""


@frozen
class Sweep:
    """A sweep as its file says it; `base` is an experiment as `load_experiment` takes it, from `folder`."""

    name: str
    base: Any
    folder: Path
    grid: Axes = field(factory=dict)
    side_by_side: Axes = field(factory=dict)
    listed: tuple[Point, ...] = ()
    where: tuple[Condition, ...] = ()

    @property
    def n_points(self) -> int:
        """Number of points, before any is left out by `where`."""
        n_side_by_side = max(map(len, self.side_by_side.values()), default=1)
        return math.prod(map(len, self.grid.values())) * n_side_by_side * max(1, len(self.listed))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that points change."""
        return tuple(dict.fromkeys((*self.grid, *self.side_by_side, *(key for point in self.listed for key in point))))

    def points(self) -> Iterator[Point]:
        """Yield all points, those that `where` leaves out included.

        >>> list(Sweep("s", "b", Path(), {"a": (1, 2)}, {"b": (3, 4), "c": (5, 6)}).points())[:2]
        [{'a': 1, 'b': 3, 'c': 5}, {'a': 1, 'b': 4, 'c': 6}]
        """
        together = list(zip(*self.side_by_side.values(), strict=True)) or [()]
        for values, beside, written in itertools.product(
            itertools.product(*self.grid.values()), together, self.listed or ({},)
        ):
            grid = dict(zip(self.grid, values, strict=True))
            yield {**grid, **dict(zip(self.side_by_side, beside, strict=True)), **written}


def overrides(point: Point) -> tuple[str, ...]:
    """Return a point as `--set` texts, the general before the particular: a system before its links.

    >>> overrides({"system.topology.dims[0]": 4, "system": "wormhole-galaxy"})
    ('system="wormhole-galaxy"', 'system.topology.dims[0]=4')
    """
    keys = sorted(point, key=lambda key: len(keys_of(key)))
    return tuple(f"{key}={json.dumps(point[key], ensure_ascii=False)}" for key in keys)


def keys_of(key: str) -> Keys:
    """Return the parts of a dotted key.

    >>> keys_of("system.topology.dims[0]")
    ('system', 'topology', 'dims', 0)
    """
    return parse_override(f"{key}=0").keys


def names_of(keys: Iterable[str]) -> dict[str, str]:
    """Return the key of every name that conditions may use: whole keys, and their last parts where only one has it.

    >>> names_of(["parallel.tp", "dtype.weights", "model.weights"])["tp"]
    'parallel.tp'
    """
    keys = tuple(keys)
    last = [str(_LAST.findall(key)[0]) for key in keys]
    short = {name: key for name, key in zip(last, keys, strict=True) if last.count(name) == 1}
    return short | {key: key for key in keys}


def read_sweep(source: str | Path | Mapping[str, Any]) -> Sweep:
    """Return the sweep of a file, or of a mapping; raises ConfigError with everything that is wrong with it."""
    if isinstance(source, Mapping):
        return _Reader(Problems(), Place("sweep")).sweep(source, "inline", Path())
    path = Path(source)
    file = str(path)
    try:
        document = parse_yaml(read_file(path), file)
    except ConfigError as error:
        raise ConfigError(tuple(p if p.startswith(file) else f"{file}: {p}" for p in error.problems)) from None
    if not isinstance(document, dict):
        raise ConfigError((f"{file}: {shown(document)} is not a mapping; accepted: the keys {', '.join(KEYS)}",))
    return _Reader(Problems(), Place(file)).sweep(document, path.stem, path.parent)


@frozen
class _Reader:
    problems: Problems
    top: Place

    def sweep(self, document: Mapping[str, Any], name: str, folder: Path) -> Sweep:
        for key in document:
            if key not in KEYS:
                self.problems.add(self.top.child(key), unknown(key, "a key of a sweep", KEYS))
        if not isinstance(document.get("base"), str | dict):
            what = "missing" if "base" not in document else f"{shown(document['base'])} is not an experiment"
            self.problems.add(self.top.child("base"), f"{what}; accepted: an experiment: a name, a path, or a mapping")
        sweep = Sweep(
            str(document.get("name", name)),
            document.get("base"),
            folder.absolute(),
            self.axes("grid", document.get("grid", {})),
            self.axes("zip", document.get("zip", {})),
            self.listed(document.get("list", [])),
            self.conditions(document.get("where", [])),
        )
        self.problems.raise_if_any()
        self.check(sweep)
        self.problems.raise_if_any()
        return sweep

    def axes(self, section: str, value: Any) -> dict[str, tuple[Any, ...]]:
        place = self.top.child(section)
        if not isinstance(value, dict):
            self.problems.add(place, f"{shown(value)} is not a mapping; accepted: dotted keys, each with its values")
            return {}
        return {key: self.values(axis, place.child(key)) for key, axis in value.items() if self.is_key(key, place)}

    def is_key(self, key: str, place: Place) -> bool:
        try:
            keys_of(key)
        except ConfigError:
            accepted = "a dotted key of an experiment, such as system.topology.dims[0]"
            self.problems.add(place, f"{shown(key)} is not a key; accepted: {accepted}")
            return False
        return True

    def values(self, axis: Any, place: Place) -> tuple[Any, ...]:
        if isinstance(axis, list) and axis:
            return tuple(axis)
        kinds = [kind for kind in SPACINGS if isinstance(axis, dict) and kind in axis]
        if len(kinds) != 1 or axis.keys() - {kinds[0], "n", *(("seed",) if kinds[0] == "random" else ())}:
            accepted = "a list of values, or {log: [low, high], n: 7}, also linear and random (with a seed)"
            self.problems.add(place, f"{shown(axis)} is not an axis; accepted: {accepted}")
            return ()
        try:
            return spaced(kinds[0], axis[kinds[0]], axis.get("n"), axis.get("seed", 0))
        except ConfigError as error:
            self.problems.add(place, str(error))
            return ()

    def listed(self, value: Any) -> tuple[Point, ...]:
        place = self.top.child("list")
        if not isinstance(value, list) or not all(isinstance(point, dict) and point for point in value):
            accepted = "mappings of dotted keys to values"
            self.problems.add(place, f"{shown(value)} is not a list of points; accepted: {accepted}")
            return ()
        fine = [self.is_key(key, place.child(i)) for i, point in enumerate(value) for key in point]
        return tuple(value) if all(fine) else ()

    def conditions(self, value: Any) -> tuple[Condition, ...]:
        found = []
        for i, text in enumerate(value if isinstance(value, list) else [value]):
            try:
                found.append(Condition.parse(text))
            except ConfigError as error:
                self.problems.add(self.top.child("where").child(i), str(error))
        return tuple(found)

    def check(self, sweep: Sweep) -> None:
        """Note what is wrong between the sections."""
        lengths = {key: len(values) for key, values in sweep.side_by_side.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{key} has {n}" for key, n in lengths.items())
            self.problems.add(self.top.child("zip"), f"{listed}; accepted: as many values for every key")
        sections = (sweep.grid, sweep.side_by_side, dict.fromkeys(key for point in sweep.listed for key in point))
        for first, second in itertools.combinations(sections, 2):
            for key in sorted(first.keys() & second.keys()):
                self.problems.add(self.top, f"{key} is in two of grid, zip and list; accepted: in one")
        if not any(sections):
            self.problems.add(self.top, "has no points; accepted: at least one of grid, zip and list")
        if sweep.n_points > MOST_POINTS:
            self.problems.add(self.top, f"{sweep.n_points:,} points; accepted: at most {MOST_POINTS:,}")
        for i, condition in enumerate(sweep.where):
            try:
                condition.check_names((*names_of(sweep.keys), *SPEC_NAMES))
            except ConfigError as error:
                self.problems.add(self.top.child("where").child(i), str(error))


def spaced(spacing: str, ends: Any, n: Any, seed: Any = 0) -> tuple[Any, ...]:
    """Return `n` values between two, both included unless they are drawn at random.

    >>> spaced("log", [1, 64], 7), spaced("linear", ["1us", "2us"], 3)
    ((1, 2, 4, 8, 16, 32, 64), ('1us', '1.5us', '2us'))
    """
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST_VALUES:
        raise ConfigError((f"n: {shown(n)} is not a number of values; accepted: 1 to {MOST_VALUES:,}",))
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError((f"seed: {shown(seed)} is not a seed; accepted: an integer ≥ 0",))
    (low, high), unit, whole = _ends(spacing, ends)
    if spacing == "log" and low <= 0:
        raise ConfigError((f"log: {shown(ends)} begins at or below zero; accepted: positive ends",))
    if spacing == "random" and whole:
        low, high = low - 0.5, high + 0.5  # the ends are drawn as often as what is between them
    numbers = SPACINGS[spacing](low, high, n, seed)
    if whole:
        return tuple(dict.fromkeys(round(x) for x in numbers))
    texts = dict.fromkeys(f"{x:.12g}" for x in numbers)
    return tuple(f"{text}{unit}" if unit else float(text) for text in texts)


def _ends(spacing: str, ends: Any) -> tuple[tuple[float, float], str, bool]:
    """Return (low, high), their unit, and whether they are whole numbers."""
    if isinstance(ends, list) and len(ends) == 2:
        found = [_QUANTITY.fullmatch(end) if isinstance(end, str) else None for end in ends]
        if found[0] and found[1] and found[0][2] == found[1][2] != "":
            unit, numbers = found[0][2], [float(found[0][1]), float(found[1][1])]
        else:
            unit, numbers = "", [end for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
        if len(numbers) == 2 and -_LARGEST < numbers[0] <= numbers[1] < _LARGEST:
            return (numbers[0], numbers[1]), unit, all(isinstance(x, int) for x in numbers)
    accepted = "[low, high], two numbers or two texts with the same unit, the low one first"
    raise ConfigError((f"{spacing}: {shown(ends)}; accepted: {accepted}",))


def _log(low: float, high: float, n: int, _seed: int) -> Iterable[float]:
    values: list[float] = np.geomspace(float(low), float(high), n).tolist()
    return values


def _linear(low: float, high: float, n: int, _seed: int) -> Iterable[float]:
    values: list[float] = np.linspace(float(low), float(high), n).tolist()
    return values


def _random(low: float, high: float, n: int, seed: int) -> Iterable[float]:
    drawn: list[float] = np.random.default_rng(seed).uniform(low, high, n).tolist()
    return drawn


SPACINGS: Mapping[str, Callable[[float, float, int, int], Iterable[float]]] = {
    "log": _log,
    "linear": _linear,
    "random": _random,
}
