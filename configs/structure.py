"""Turn plain mappings into frozen spec classes, and note every problem on the way.

Generic over attrs classes: what a field accepts follows from its type, name and metadata (`configs.fields`).
A class may refuse its fields by raising ValueError.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from attrs import frozen

from configs.errors import ConfigError
from configs.fields import ANYTHING, Accepts, Field, fields_of
from configs.problems import Keys, Place, Problems, shown, suggestion, unknown
from configs.resolve import FAILED, Document

Rule = Callable[[Any], Iterable[tuple[Keys, str]]]
Hook = Callable[["Structurer", Any, Place], Any]

_PATH = re.compile(r"\w+(\[\d+\])*(\.\w+(\[\d+\])*)*")
_PART = re.compile(r"\[(\d+)\]|(\w+)")
_TOO_LARGE = 2.0**63
_NOUNS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


@frozen
class Structurer:
    """Structure values by type.

    hooks: how to structure types whose class depends on the value.
    words: for a class, words that stand for a whole object of it.
    rules: for a class, what must hold between its fields, as (keys, message) of what does not.
    """

    problems: Problems
    hooks: Mapping[Any, Hook]
    words: Mapping[type, Mapping[str, Any]]
    rules: Mapping[type, Rule]

    def structure(self, hint: Any, value: Any, place: Place, accepts: Accepts = ANYTHING) -> Any:
        """Return the value as an object of the type `hint`, or FAILED."""
        if value is FAILED or hint is Any:
            return value
        if hint in self.hooks:
            return self.hooks[hint](self, value, place)
        if attrs.has(hint):
            return self._object(hint, value, place)
        if get_origin(hint) in (Union, UnionType):
            return self._union(hint, value, place, accepts)
        if get_origin(hint) is tuple:
            return self._tuple(hint, value, place, accepts)
        if isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Mapping):
            return self._mapping(hint, value, place, accepts)
        return self._leaf(hint, value, place, accepts)

    def structure_class(self, cls: type, value: Any, place: Place, hints: Mapping[str, Any] | None = None) -> Any:
        """Return an object of an attrs class from a mapping; `hints` replaces the types of some fields."""
        if not isinstance(value, Mapping):
            return self.refuse(place, value, "a mapping", self._describe(cls, ANYTHING))
        inside = value.enter(place) if isinstance(value, Document) else place
        fields = {field.key: field for field in fields_of(cls)}
        self._note_unknown_keys(value, fields, inside)
        given = {key: self._field(fields[key], value, inside, hints or {}) for key in fields if key in value}
        missing = [field for key, field in fields.items() if field.required and key not in value]
        for field in missing:
            self.problems.add(
                inside.child(field.key), f"missing; accepted: {self._describe(field.hint, field.accepts)}"
            )
        if missing or any(item is FAILED for item in given.values()):
            return FAILED
        arguments = {fields[key].argument: item for key, item in given.items()}
        if isinstance(value, Document) and "provenance" in attrs.fields_dict(cls):
            arguments["provenance"] = value.provenance
        return self._build(cls, arguments, inside)

    def refuse(self, place: Place, value: Any, noun: str, accepted: str) -> Any:
        """Note that a value is not what it should be; return FAILED."""
        self.problems.add(place, f"{shown(value)} is not {noun}; accepted: {accepted}")
        return FAILED

    def _note_unknown_keys(self, value: Mapping[str, Any], fields: Mapping[str, Field], inside: Place) -> None:
        for key in value:
            if key not in fields:
                keys = ", ".join(fields)
                self.problems.add(inside.child(key), f"unknown key; accepted: {keys}{suggestion(str(key), fields)}")

    def _field(self, field: Field, value: Mapping[str, Any], inside: Place, hints: Mapping[str, Any]) -> Any:
        hint = hints.get(field.key, field.hint)
        return self.structure(hint, value[field.key], inside.child(field.key), field.accepts)

    def _build(self, cls: type, arguments: dict[str, Any], inside: Place) -> Any:
        broken: list[tuple[Keys, str]] = []
        result = FAILED
        try:
            result = cls(**arguments)
            broken += self.rules[cls](result) if cls in self.rules else ()
        except ConfigError as error:
            broken += [_split(problem, cls) for problem in error.problems]
        except (ValueError, TypeError) as error:
            broken.append(((), str(error.args[0] if error.args else error)))
        for keys, message in broken:
            self.problems.add(functools.reduce(Place.child, keys, inside), message)
        return FAILED if broken else result

    def _object(self, cls: type, value: Any, place: Place) -> Any:
        if isinstance(value, cls):
            return value
        if isinstance(value, str) and value in self.words.get(cls, {}):
            return self.words[cls][value]
        return self.structure_class(cls, value, place)

    def _union(self, hint: Any, value: Any, place: Place, accepts: Accepts) -> Any:
        members = [member for member in get_args(hint) if member is not NoneType]
        if value is None and NoneType in get_args(hint):
            return None
        shape = "mapping" if isinstance(value, Mapping) else "list" if isinstance(value, list | tuple) else "value"
        alike = [member for member in members if shape != "value" and _shape(member) == shape]
        if len(members) == 1 or len(alike) == 1:
            return self.structure((alike or members)[0], value, place, accepts)
        for member in members:
            trial = attrs.evolve(self, problems=Problems())
            result = trial.structure(member, value, place, accepts)
            if result is not FAILED:
                return result
        described = self._describe(hint, accepts)
        return self.refuse(place, value, "one of these", described)

    def _tuple(self, hint: Any, value: Any, place: Place, accepts: Accepts) -> Any:
        hints = get_args(hint)
        if not isinstance(value, list | tuple):
            return self.refuse(place, value, "a list", self._describe(hint, accepts))
        if hints[-1] is ...:
            hints = (hints[0],) * len(value)
        if len(hints) != len(value):
            return self.refuse(place, value, f"a list of {len(hints)}", self._describe(hint, accepts))
        items = [
            self.structure(h, item, place.child(i), accepts)
            for i, (h, item) in enumerate(zip(hints, value, strict=True))
        ]
        return FAILED if any(item is FAILED for item in items) else tuple(items)

    def _mapping(self, hint: Any, value: Any, place: Place, accepts: Accepts) -> Any:
        if not isinstance(value, Mapping):
            return self.refuse(place, value, "a mapping", self._describe(hint, accepts))
        result, (_, item_hint) = {}, get_args(hint)
        for key, item in value.items():
            if accepts.key_choices and key not in accepts.key_choices:
                self.problems.add(place.child(key), unknown(key, "a key here", accepts.key_choices))
            result[key] = self.structure(item_hint, item, place.child(key), accepts)
        return FAILED if any(item is FAILED for item in result.values()) else result

    def _leaf(self, hint: Any, value: Any, place: Place, accepts: Accepts) -> Any:
        if accepts.quantity is not None:
            return self._quantity(value, place, accepts)
        choices = get_args(hint) if get_origin(hint) is Literal else accepts.choices
        if choices:
            return value if value in list(choices) else self._not_among(value, choices, place)
        if not _is_a(hint, value):
            return self.refuse(place, value, _NOUNS[hint], self._describe(hint, accepts))
        if hint in (int, float) and not (accepts.bounds.admit(value) and abs(value) < _TOO_LARGE):
            limit = "" if not accepts.bounds.admit(value) else f", below {_TOO_LARGE:g}"
            self.problems.add(
                place, f"{shown(value)} is out of range; accepted: {self._describe(hint, accepts)}{limit}"
            )
            return FAILED
        return float(value) if hint is float else value

    def _quantity(self, value: Any, place: Place, accepts: Accepts) -> Any:
        assert accepts.quantity is not None
        dimension, parse = accepts.quantity
        try:
            number = parse(value)
        except ConfigError as error:
            self.problems.add(place, str(error))
            return FAILED
        if not accepts.bounds.admit(number):
            self.problems.add(place, f"{shown(value)} is out of range; accepted: {dimension.name} {accepts.bounds}")
            return FAILED
        return number

    def _not_among(self, value: Any, choices: tuple[str, ...], place: Place) -> Any:
        self.problems.add(place, unknown(value, "a choice", choices))
        return FAILED

    def _describe(self, hint: Any, accepts: Accepts) -> str:
        """Say what a type accepts."""
        if accepts.quantity is not None and hint in (int, float):
            return accepts.quantity[0].accepted
        if get_origin(hint) is Literal or (accepts.choices and hint is str):
            return ", ".join(get_args(hint) or accepts.choices)
        if get_origin(hint) in (Union, UnionType):
            return " or ".join(self._describe(member, accepts) for member in get_args(hint) if member is not NoneType)
        if get_origin(hint) is tuple:
            n = "" if get_args(hint)[-1] is ... else f"{len(get_args(hint))} times "
            return f"a list of {n}{self._describe(get_args(hint)[0], accepts)}"
        if attrs.has(hint):
            words = "".join(f"{word}, or " for word in self.words.get(hint, {}))
            return f"{words}a mapping with the keys {', '.join(field.key for field in fields_of(hint))}"
        nouns = {int: "an integer", float: "a number", str: "text (in quotes if it looks like a number)"}
        bounds = f" {accepts.bounds}" if hint in (int, float) and str(accepts.bounds) else ""
        return f"{nouns.get(hint, _NOUNS.get(hint, 'a mapping'))}{bounds}"


@functools.cache
def _shape(hint: Any) -> str:
    """Tell the types of mappings, of lists and of single values apart.

    >>> _shape(dict), _shape(tuple[int, ...]), _shape(int)
    ('mapping', 'list', 'value')
    """
    cls = get_origin(hint) or hint
    if attrs.has(cls) or (isinstance(cls, type) and issubclass(cls, Mapping)):
        return "mapping"
    return "list" if isinstance(cls, type) and issubclass(cls, list | tuple) else "value"


def _is_a(hint: Any, value: Any) -> bool:
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if hint is float:
        return isinstance(value, int | float) and abs(value) < _TOO_LARGE  # neither infinite nor NaN
    return isinstance(value, hint)


def _split(problem: str, cls: type) -> tuple[Keys, str]:
    """Tell the keys from the message, where a class names the field that it refuses.

    >>> from configs.spec.topology import LinkSpec
    >>> _split("count: 0 is too few", LinkSpec), _split("latency: and count: odd", int)
    ((('count',), '0 is too few'), ((), 'latency: and count: odd'))
    """
    path, colon, message = problem.partition(": ")
    keys: Keys = tuple(int(i) if i else name for i, name in _PART.findall(path))
    known = {field.key for field in fields_of(cls)} if attrs.has(cls) else set()
    return (keys, message) if colon and _PATH.fullmatch(path) and keys[0] in known else ((), problem)
