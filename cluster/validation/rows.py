"""Read measured figures: CSV files with a row per figure, of collectives or of decoding, decided by their header."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs
from attrs import field, frozen

from configs.catalogue_files import label, measured_paths
from configs.errors import ConfigError
from configs.input_files import decode_utf8, read_bytes
from configs.problems import shown, suggestion

MOST_BYTES = 2**28
ACCEPTED = "a CSV file with a header"
MISSING = ("", "-", "--", "n/a", "na", "none", "null", "?")
"""What stands in cells of numbers that are not stated."""


@frozen
class CollectiveRow:
    """A measured collective or message; what is not stated is None or empty.

    message_convention says what `message_bytes` counts: docs/fidelity.md has the words.
    """

    id: str
    system: str
    topology: str
    n_chips: int
    n_nodes: int | None
    collective: str
    algorithm_or_note: str
    dtype: str
    message_bytes: int | None
    message_convention: str
    time_us: float | None
    source: str = ""
    quality: str = ""
    line: int = field(default=0, eq=False)


@frozen
class DecodeRow:
    """A measured figure of a model that decodes; what is not stated is None or empty."""

    id: str
    system: str
    chip: str
    n_chips: int | None
    model: str
    weights_dtype: str
    kv_dtype: str
    tp: int | None
    pp: int | None
    ep: int | None
    dp: int | None
    batch_total: int | None
    input_len: int | None
    output_len: int | None
    metric: str
    value: float | None
    software: str = ""
    source: str = ""
    quality: str = ""
    notes: str = ""
    date: str = ""
    """Of the measurement or its software, as in 2024-09-05."""
    line: int = field(default=0, eq=False)


Row = CollectiveRow | DecodeRow
ROWS: tuple[type[Row], ...] = (CollectiveRow, DecodeRow)


def read_rows(paths: Sequence[Path] = ()) -> list[Row]:
    """Return the rows of these files; without any, those of the catalogue. Raises ConfigError with all problems."""
    rows: list[Row] = []
    problems: list[str] = []
    for path in paths or measured_paths():
        try:
            text = decode_utf8(read_bytes(path, ACCEPTED, MOST_BYTES))
        except ConfigError as error:
            problems += [f"{label(path)}: {problem}" for problem in error.problems]
            continue
        found = _read(text, label(path), problems)
        rows += found
    if problems:
        raise ConfigError(tuple(problems))
    return rows


def _read(text: str, file: str, problems: list[str]) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    seen: dict[str, int] = {}
    try:
        header = [cell.strip() for cell in next((cells for cells in reader if _filled(cells)), [])]
        kind = _kind(header, file, problems)
        if kind is None:
            return []
        for cells in reader:
            line = reader.line_num
            if not _filled(cells):
                continue
            if len(cells) != len(header):
                problems.append(f"{file}: line {line}: has {len(cells)} cells; accepted: {len(header)}, as the header")
                continue
            row = _row(kind, dict(zip(header, cells, strict=True)), line, f"{file}: line {line}", problems)
            if row is not None and seen.setdefault(row.id, line) != line:
                problems.append(f"{file}: line {line}: id: {shown(row.id)} stands in line {seen[row.id]} already")
            rows += [row] if row is not None else []
    except csv.Error as error:
        problems.append(f"{file}: line {reader.line_num}: {error}; accepted: {ACCEPTED}")
    if not rows and not problems:
        problems.append(f"{file}: has no rows; accepted: at least one")
    return rows


def _filled(cells: Sequence[str]) -> bool:
    return any(cell.strip() for cell in cells)


def _kind(header: Sequence[str], file: str, problems: list[str]) -> type[Row] | None:
    """Return the class whose required columns the header has most of, None if some are missing."""
    kinds = {cls: [a.name for a in attrs.fields(cls) if a.default is attrs.NOTHING] for cls in ROWS}
    cls = max(ROWS, key=lambda one: len(set(kinds[one]) & set(header)) / len(kinds[one]))
    missing = [name for name in kinds[cls] if name not in header]
    if len(missing) == len(kinds[cls]):
        accepted = "; or ".join(", ".join(names) for names in kinds.values())
        problems.append(f"{file}: line 1: no column is known; accepted: cells between commas, with columns {accepted}")
        return None
    twice = sorted({name for name in header if header.count(name) > 1})
    problems += [f"{file}: line 1: {name}: column missing{suggestion(name, header)}" for name in missing]
    problems += [f"{file}: line 1: {name}: column stands there twice" for name in twice]
    return None if missing or twice else cls


def _row(kind: type[Row], cells: Mapping[str, str], line: int, where: str, problems: list[str]) -> Row | None:
    hints, values, n_before = get_type_hints(kind), {}, len(problems)
    for attribute in attrs.fields(kind):
        name = attribute.name
        if name not in cells:
            continue
        try:
            values[name] = _parsed(hints[name], cells[name].strip())
        except ConfigError as error:
            problems.append(f"{where}: {name}: {error}")
    return None if len(problems) > n_before else kind(**values, line=line)


def _parsed(hint: Any, text: str) -> Any:
    """Return the value of a cell: text, or a number, which may be missing where the hint allows None.

    >>> _parsed(int | None, "n/a"), _parsed(int, "8.0"), _parsed(float | None, "1.5")
    (None, 8, 1.5)
    """
    kinds = get_args(hint) or (hint,)
    if str in kinds:
        return text
    if text.lower() in MISSING and type(None) in kinds:
        return None
    parse: Callable[[str], float] = _whole if int in kinds else float
    noun = "a whole number > 0" if int in kinds else "a number > 0"
    try:
        number = parse(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError((f"{shown(text)} is not {noun}",))
    return number


def _whole(text: str) -> int:
    """Return a whole number, which tables may have kept as 8.0 or 1e3.

    >>> _whole("8"), _whole("8.0"), _whole("1e3")
    (8, 8, 1000)
    """
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if not number.is_integer():
        raise ValueError
    return int(number)
