"""Read protobuf's text format into plain values, without a schema: fields keep their order and their lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import define, field, frozen

from topology.importers.base import Source

MOST_DEEP = 64
MOST_TOKENS = 1_000_000
_TOKEN = re.compile(
    r"(?P<space>[ \t\r\f\v]+|#[^\n]*)|(?P<newline>\n)|(?P<text>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')"
    r"|(?P<word>[A-Za-z_][\w.]*)|(?P<number>-?[0-9][\w.+-]*)|(?P<sign>[{}\[\]<>:,;])"
)


@frozen
class Field:
    """A field of a message: its name, its line, and a text, a number, a word or a message."""

    name: str
    line: int
    value: str | int | Message


@define
class Message:
    """The fields of a message, in order."""

    line: int
    fields: list[Field] = field(factory=list)

    def all(self, name: str) -> list[Field]:
        """Return the fields of a name."""
        return [found for found in self.fields if found.name == name]


@frozen
class _Token:
    kind: str
    text: str
    line: int


def parse(source: Source) -> Message:
    """Return the outermost message; raise ConfigError, with the line, if it is not of the form."""
    reader = _Reader(source, _tokens(source))
    return reader.message("", 1, 0)


def _tokens(source: Source) -> Iterator[_Token]:
    text, at, line, n = source.text, 0, 1, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        n += 1
        if match is None:
            raise source.error(line, f"{text[at : at + 20]!r} is not protobuf text format")
        if n > MOST_TOKENS:
            raise source.error(line, f"more than {MOST_TOKENS:,} words and signs")
        kind = match.lastgroup or ""
        if kind == "newline":
            line += 1
        elif kind != "space":
            yield _Token(kind, match[0], line)
        at = match.end()
    yield _Token("end", "", line)


@define
class _Reader:
    """Reads messages from tokens, one ahead."""

    source: Source
    tokens: Iterator[_Token]
    ahead: _Token = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ahead = next(self.tokens)

    def message(self, close: str, line: int, depth: int) -> Message:
        """Return the fields up to the closing sign."""
        if depth > MOST_DEEP:
            raise self.source.error(line, f"nested more than {MOST_DEEP} deep")
        message = Message(line)
        while not (self.ahead.text == close and self.ahead.kind in ("sign", "end")):
            name = self._take("word", "a field's name")
            if self.ahead.text == ":":
                self._next()
            message.fields += [Field(name.text, name.line, value) for value in self._values(depth)]
            if self.ahead.text in (",", ";"):
                self._next()
        if close:
            self._next()
        return message

    def _values(self, depth: int) -> list[str | int | Message]:
        if self.ahead.text != "[":
            return [self._value(depth)]
        self._next()
        values: list[str | int | Message] = []
        while self.ahead.text != "]":
            values.append(self._value(depth))
            if self.ahead.text == ",":
                self._next()
            elif self.ahead.text != "]":
                raise self._unexpected("a comma or ]")
        self._next()
        return values

    def _value(self, depth: int) -> str | int | Message:
        token = self.ahead
        if token.text in ("{", "<"):
            self._next()
            return self.message("}" if token.text == "{" else ">", token.line, depth + 1)
        if token.kind == "text":
            return self._next().text[1:-1]
        if token.kind == "number":
            if not re.fullmatch(r"-?[0-9]{1,9}", token.text):
                raise self._unexpected("a whole number of at most nine digits")
            return int(self._next().text)
        return self._take("word", "a value").text

    def _take(self, kind: str, what: str) -> _Token:
        if self.ahead.kind != kind:
            raise self._unexpected(what)
        return self._next()

    def _next(self) -> _Token:
        token = self.ahead
        if token.kind == "end":
            raise self._unexpected("more")
        self.ahead = next(self.tokens)
        return token

    def _unexpected(self, what: str) -> Exception:
        found = f"{self.ahead.text[:40]!r} stands here" if self.ahead.text else "the file ends"
        return self.source.error(self.ahead.line, f"{found}; accepted: {what}")
