"""The keys of a model's metadata, read with care: what is wrong with them is noted, and raised all at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from configs.errors import ConfigError

T = TypeVar("T")

REQUIRED: Final = object()


class Keys:
    """Typed access to keys, each after `prefix`; a key that is null counts as absent."""

    def __init__(self, get: Callable[[str], Any], prefix: str = "") -> None:
        self._get, self._prefix = get, prefix
        self.problems: list[str] = []

    def has(self, key: str) -> bool:
        """Return whether there is such a key."""
        return self._get(self._prefix + key) is not None

    def integer(self, *keys: str, default: Any = REQUIRED) -> Any:
        """Return the whole number under the first of these keys that is there."""
        return self._value(keys, default, int, "a whole number", 1)

    def number(self, *keys: str, default: Any = REQUIRED) -> Any:
        """Return the number under the first of these keys that is there."""
        value = self._value(keys, default, (int, float), "a number", 1.0)
        return float(value) if isinstance(value, int) else value

    def flag(self, *keys: str, default: Any = REQUIRED) -> Any:
        """Return the truth value under the first of these keys that is there."""
        return self._value(keys, default, bool, "true or false", False)

    def text(self, *keys: str, default: Any = REQUIRED) -> Any:
        """Return the text under the first of these keys that is there."""
        return self._value(keys, default, str, "text", "")

    def section(self, key: str) -> Keys:
        """Return the keys of a mapping, empty if there is none; its problems are noted here."""
        mapping = self._get(self._prefix + key)
        if mapping is not None and not isinstance(mapping, dict):
            self.problems.append(f"{self._prefix}{key}: {mapping!r} is not a mapping")
        inside = Keys((mapping if isinstance(mapping, dict) else {}).get)
        inside.problems = self.problems
        return inside

    def accept(self, key: str, value: object, *accepted: object) -> None:
        """Note that a key has a value which is not supported, unless it is one of those."""
        if value not in accepted:
            words = ", ".join(map(str, accepted))
            self.problems.append(f"{self._prefix}{key}: {value!r} is not supported; accepted: {words}")

    def build(self, cls: Callable[..., T], **values: Any) -> T:
        """Return `cls(**values)`, unless problems were noted."""
        if self.problems:
            raise ConfigError(tuple(self.problems))
        return cls(**values)

    def list_of(self, key: str, kind: type) -> list[Any]:
        """Return the list under this key, empty if there is none."""
        value = self._get(self._prefix + key)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, kind) for item in value)):
            self.problems.append(f"{self._prefix}{key}: {value!r} is not a list of {kind.__name__}")
            return []
        return value or []

    def try_build(self, cls: Callable[..., T], **values: Any) -> T | None:
        """Return `cls(**values)`; None, noting why, if problems were noted or it refuses the values."""
        if self.problems:
            return None
        try:
            return cls(**values)
        except ConfigError as error:
            self.problems.extend(error.problems)
            return None

    def _value(self, keys: tuple[str, ...], default: Any, kind: Any, noun: str, placeholder: Any) -> Any:
        for key in keys:
            value = self._get(self._prefix + key)
            if value is None:
                continue
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                self.problems.append(f"{self._prefix}{key}: {value!r} is not {noun}")
                return placeholder
            return value
        if default is REQUIRED:
            self.problems.append(f"{self._prefix}{keys[0]} is missing")
            return placeholder
        return default
