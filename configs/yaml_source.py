"""Read YAML files, strictly.

Scalars follow the core schema of YAML 1.2, so that `on` is a word, `1e9` a number and `12:30` a text. Refused
are duplicate keys, tags, keys that are not words, aliases to an enclosing value, and documents that are huge
once their aliases are expanded.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import yaml
from attrs import define, field

from configs.errors import ConfigError
from configs.input_files import decode_utf8, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LARGEST_FILE_BYTES = 10 * 10**6
_MOST_VALUES = 2_000_000
_DEEPEST = 64
_DEEPEST_LINES = 2  # of values whose lines are kept
_KEY = None  # stands for a key among keys and indices
_INT = re.compile(r"[-+]?[0-9]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan"),
}  # fmt: skip
Lines = dict[tuple[Any, ...], int]
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_file(path: Path) -> str:
    """Return the text of a file; raises a ConfigError that says only what is wrong with the file."""
    return decode_utf8(read_bytes(path, "a YAML file", _LARGEST_FILE_BYTES))


def parse_yaml(text: str, label: str) -> Any:
    """Return the value of a YAML document; a ConfigError names `label` and the line.

    >>> parse_yaml("{on: 1e9, dims: [4, 8], t: 12:30}", "x.yaml")
    {'on': 1000000000.0, 'dims': [4, 8], 't': '12:30'}
    """
    return parse_foreign_yaml(text, label, any_keys=False)[0]


def parse_foreign_yaml(text: str, label: str, *, any_keys: bool = True) -> tuple[Any, Lines]:
    r"""Return the value of a YAML document of others, and the lines of its values, by their keys and indices.

    any_keys: keys may be numbers too; ours have words only.

    >>> parse_foreign_yaml("0: a\nlinks:\n  - [4, 8]", "x.yaml")
    ({0: 'a', 'links': [[4, 8]]}, {(0,): 1, ('links',): 2, ('links', 0): 3})
    """
    builder = _Builder(label, yaml.parse(text, _Loader), any_keys)
    try:
        return builder.document(), builder.lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError((f"{label}:{line}: YAML syntax: {error.problem or error.context}",)) from None
    except UnicodeEncodeError:  # lone surrogates: bytes of a command line that are not UTF-8
        raise ConfigError((f"{label}: is not UTF-8 text",)) from None
    except yaml.YAMLError as error:
        raise ConfigError((f"{label}: YAML syntax: {' '.join(str(error).split())}",)) from None


def scalar(text: str) -> Any:
    """Return the value of an unquoted scalar.

    >>> [scalar(t) for t in ("8", "0.5", "1e9", "yes", "true", "1_000", "711ns")]
    [8, 0.5, 1000000000.0, 'yes', True, '1_000', '711ns']
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


@define
class _Builder:
    """Build a value from parser events."""

    label: str
    events: Iterator[Any]
    any_keys: bool = False
    n_values: int = 0
    lines: Lines = field(factory=dict)
    anchors: dict[str, tuple[Any, int]] = field(factory=dict)

    def document(self) -> Any:
        next(self.events)  # the start of the stream
        start = next(self.events)
        if isinstance(start, yaml.StreamEndEvent):
            return None
        value = self.value(next(self.events), ())
        next(self.events)  # the end of the document
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise self.refusal(after, "a second document; accepted: one document per file")
        return value

    def value(self, event: Any, path: tuple[Any, ...]) -> Any:
        self.n_values += 1
        if self.n_values > _MOST_VALUES:
            raise self.refusal(event, f"more than {_MOST_VALUES} values, aliases expanded")
        if len(path) > _DEEPEST:
            raise self.refusal(event, f"nested more than {_DEEPEST} deep")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        if event.tag is not None:
            raise self.refusal(event, f"the tag {event.tag!r}; accepted: no tags (quote a text to keep it a text)")
        n_before = self.n_values
        value = self.untagged(event, path)
        if event.anchor:
            self.anchors[event.anchor] = (value, self.n_values - n_before)
        return value

    def untagged(self, event: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path)
        return scalar(event.value) if event.style in (None, "") else event.value

    def alias(self, event: Any) -> Any:
        if event.anchor not in self.anchors:
            raise self.refusal(event, f"the alias *{event.anchor} stands for no value before it")
        value, n_values = self.anchors[event.anchor]
        self.n_values += n_values
        if self.n_values > _MOST_VALUES:
            raise self.refusal(event, f"more than {_MOST_VALUES} values, aliases expanded")
        return copy.deepcopy(value)

    def sequence(self, path: tuple[Any, ...]) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            place = (*path, len(items))
            self.note(place, event)
            items.append(self.value(event, place))
        return items

    def mapping(self, path: tuple[Any, ...]) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        lines: dict[Any, int] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.value(event, (*path, _KEY))
            if not isinstance(key, str) and not (self.any_keys and isinstance(key, int | float)):
                raise self.refusal(event, f"the key {key!r:.40} is not a word")
            if key in mapping:
                raise self.refusal(event, f"the key {key!r} is given twice (first on line {lines[key]})")
            lines[key] = event.start_mark.line + 1
            self.note((*path, key), event)
            mapping[key] = self.value(next(self.events), (*path, key))
        return mapping

    def note(self, path: tuple[Any, ...], event: Any) -> None:
        if len(path) <= _DEEPEST_LINES:
            self.lines[path] = event.start_mark.line + 1

    def refusal(self, event: Any, why: str) -> ConfigError:
        return ConfigError((f"{self.label}:{event.start_mark.line + 1}: {why}",))
