"""Read XML files, strictly: as a stream of elements, without a document type, and so without any entity of its own.

Refused are also files that are too large, nested too deeply, or not XML at all; messages name file and line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from xml.parsers import expat

from attrs import define, field, frozen

from configs.errors import ConfigError
from configs.input_files import read_bytes
from configs.problems import shown

MOST_BYTES = 2**26
MOST_DEEP = 64


@frozen
class Element:
    """The start of an element: its name, its attributes and where it stands."""

    file: str
    line: int
    name: str
    values: Mapping[str, str]

    def text(self, key: str, default: str | None = None) -> str:
        """Return an attribute as it stands."""
        value = self.values.get(key, default)
        if value is None:
            raise self.error(f"<{self.name}>: {key} is missing")
        return value

    def integer(self, key: str, least: int, most: int = 10**9, default: int | None = None) -> int:
        """Return a whole number."""
        value = self.text(key, None if default is None else str(default))
        number = int(value) if re.fullmatch(r"-?[0-9]{1,9}", value) else None
        if number is None or not least <= number <= most:
            limit = f"{least} to {most}" if most < 10**9 else f"a whole number ≥ {least}"
            raise self.error(f"<{self.name}>: {key}: {shown(value)}; accepted: {limit}")
        return number

    def flag(self, key: str, default: int | None = None) -> bool:
        """Return 0 or 1 as a bool."""
        return bool(self.integer(key, 0, 1, default))

    def choice(self, key: str, choices: Collection[str]) -> str:
        """Return one of these words."""
        value = self.text(key)
        if value not in tuple(choices):
            raise self.error(f"<{self.name}>: {key}: {shown(value)}; accepted: {', '.join(choices)}")
        return value

    def error(self, message: str) -> ConfigError:
        """Return the error for what stands in this element's line."""
        return ConfigError((f"{self.file}:{self.line}: {message}",))


def read_xml(path: str | Path, what: str) -> bytes:
    """Return the bytes of a file that is not too large; `what` names the form that is accepted."""
    try:
        return read_bytes(Path(path), what, MOST_BYTES)
    except ConfigError as error:
        raise ConfigError((f"{path}: {error}",)) from None


def stream_xml(
    data: bytes, file: str, what: str, *, start: Callable[[Element, int], None], end: Callable[[], None]
) -> None:
    """Call `start(element, depth)` and `end()` for every element in turn; the outermost has depth 0."""
    _Stream(file, what, start, end).feed(data)


@define
class _Stream:
    file: str
    what: str
    start: Callable[[Element, int], None]
    end: Callable[[], None]
    depth: int = 0
    parser: Any = field(factory=expat.ParserCreate)

    def feed(self, data: bytes) -> None:
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._doctype
        try:
            self.parser.Parse(data, True)
        except expat.ExpatError as error:
            why = expat.errors.messages[error.code]
            raise ConfigError((f"{self.file}:{error.lineno}: is not XML: {why}; accepted: {self.what}",)) from None
        except (ValueError, LookupError) as error:
            raise ConfigError((f"{self.file}: is not XML: {error}; accepted: {self.what}",)) from None

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        element = Element(self.file, int(self.parser.CurrentLineNumber), name, attributes)
        if self.depth == MOST_DEEP:
            raise element.error(f"nested more than {MOST_DEEP} deep; accepted: {self.what}")
        self.start(element, self.depth)
        self.depth += 1

    def _end(self, _name: str) -> None:
        self.depth -= 1
        self.end()

    def _doctype(self, *_: object) -> None:
        where = f"{self.file}:{self.parser.CurrentLineNumber}"
        raise ConfigError((f"{where}: a document type; accepted: plain elements, without a DTD or entities",))
