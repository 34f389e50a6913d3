"""Collect what is wrong with the input, each problem with its place."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from configs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Keys = tuple[str | int, ...]

_LONGEST_VALUE = 60
_LONGEST_TEXT = 200
_MOST_CHOICES = 16
_MOST_NEAR = 4
_SHORTEST_PART = 4


@frozen
class Place:
    """Where a value stands.

    file, keys: the file and the keys that lead to the value there.
    top: the keys from the top of the whole tree, which goes on from file to file.
    depth: how many of `top` lead to the top of this file.
    """

    file: str
    keys: Keys = ()
    top: Keys = ()
    depth: int = 0

    def child(self, key: str | int) -> Place:
        """Return the place of a value inside this one."""
        return Place(self.file, (*self.keys, key), (*self.top, key), self.depth)

    def enter(self, file: str) -> Place:
        """Return this place as the top of another file."""
        return Place(file, (), self.top, len(self.top))


@define
class Problems:
    """The problems found so far, in order; `overridden` holds the text of `--set` by the keys it sets."""

    found: list[str] = field(factory=list)
    overridden: dict[Keys, str] = field(factory=dict)

    def add(self, place: Place, message: str) -> None:
        """Note a problem with the value at a place."""
        self.found.append(f"{self._name(place)}: {message}")

    def override(self, keys: Keys, text: str) -> None:
        """Note that a `--set` gave the value under these keys, and all values inside it."""
        for inner in [known for known in self.overridden if known[: len(keys)] == keys]:
            del self.overridden[inner]
        self.overridden[keys] = text

    def override_at(self, place: Place) -> str | None:
        """Return the `--set` that gave the value at a place, if one did."""
        longest_first = range(len(place.top), place.depth, -1)
        return next((self.overridden[place.top[:n]] for n in longest_first if place.top[:n] in self.overridden), None)

    def raise_if_any(self) -> None:
        """Raise all problems found as one `ConfigError`."""
        if self.found:
            raise ConfigError(tuple(dict.fromkeys(self.found)))

    def _name(self, place: Place) -> str:
        override = self.override_at(place)
        file, keys = (place.file, place.keys) if override is None else (f"--set {shortened(override)}", place.top)
        return f"{file}: {dotted(keys)}" if keys else file


def dotted(keys: Keys) -> str:
    """Write keys as a path.

    >>> dotted(("memory", 1, "bandwidth"))
    'memory[1].bandwidth'
    """
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return path.removeprefix(".")


def shortened(text: str) -> str:
    """Return the text of a `--set`, cut when it is very long.

    >>> shortened("seed=1"), len(shortened("seed=" + "9" * 1000))
    ('seed=1', 201)
    """
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


def shown(value: object) -> str:
    """Show a value, shortened when long.

    >>> shown("four"), shown(True), shown({}), shown(None)
    ("'four'", 'true', 'an empty mapping', 'nothing')
    """
    words = {
        "True": "true",
        "False": "false",
        "None": "nothing",
        "{}": "an empty mapping",
        "[]": "an empty list",
    }
    text = repr(value[:_LONGEST_VALUE] if isinstance(value, str | list) else value)
    too_long = len(text) > _LONGEST_VALUE or (isinstance(value, str | list) and len(value) > _LONGEST_VALUE)
    return text[:_LONGEST_VALUE] + "…" if too_long else words.get(text, text)


def suggestion(given: str, choices: Iterable[str]) -> str:
    """Return a suggestion: the choices that hold what is given, a few of them, else the nearest, or nothing.

    >>> suggestion("bandwith", ["latency", "bandwidth"]), suggestion("x", ["latency"])
    ("; did you mean 'bandwidth'?", '')
    >>> suggestion("llama-3", ["llama-2-7b", "llama-3-8b", "t3000-llama-3"])
    "; did you mean 'llama-3-8b' or 't3000-llama-3'?"
    """
    choices = list(choices)
    longer = sorted((c for c in choices if len(given) >= _SHORTEST_PART and given in c), key=len)[:_MOST_NEAR]
    near = longer or difflib.get_close_matches(given, choices, n=1)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def unknown(given: object, what: str, choices: Collection[str]) -> str:
    """Say that a word is not among the choices, and which are.

    >>> unknown("meshh", "a topology kind", ["mesh", "torus"])
    "'meshh' is not a topology kind; accepted: mesh, torus; did you mean 'mesh'?"
    """
    listed = ", ".join(list(choices)[:_MOST_CHOICES]) or "none"
    more = f", … ({len(choices)} in all)" if len(choices) > _MOST_CHOICES else ""
    near = suggestion(str(given)[:_LONGEST_VALUE], choices)
    return f"{shown(given)} is not {what}; accepted: {listed}{more}{near}"
