"""Write the page of the catalogue: every figure of every chip and system, with its confidence and source.

python docs/hardware.py docs/hardware.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.listing import columns, listing
from configs.catalogue_files import catalogue_entry

MOST_ITEMS = 16  # of a list that is shown in full; a longer one is a graph, which its file has

INTRODUCTION = """\
# Hardware

<!-- Written by docs/hardware.py from configs/catalogue: change the files there. -->

Every figure of the catalogue's chips and systems, as its file has it. Rates are dense, bandwidths per direction.
Confidence: `vendor` (a maker's page, slide, paper or code, or a table that quotes it), `measured` (by a third party),
`secondary` (press and other texts), `estimate` (ours; the source says how). In the table of the systems, `all` is the
least sure of all figures, and `graph` that of the graph and its bandwidths, latencies left out. What is unknown is left
out, and a run that needs it says so.
"""


def main(target: str) -> None:
    """Write the page."""
    Path(target).write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page: an overview and the figures of all chips, then of all systems."""
    found = listing()
    parts = [INTRODUCTION]
    for kind in ("chips", "systems"):
        parts.append(f"\n## {kind.capitalize()}\n\n{_overview(kind, found[kind])}")
        parts += [_section(kind, entry) for entry in found[kind]]
    return "".join(parts)


def _overview(kind: str, entries: Sequence[Mapping[str, Any]]) -> str:
    shown = columns(kind)
    rows = [[form(dict(entry)) for form in shown.values()] for entry in entries]
    for row in rows:
        row[0] = f"[{row[0]}](#{row[0].replace('.', '')})"
    return _table(list(shown), rows)


def _section(kind: str, entry: Mapping[str, Any]) -> str:
    """Return the heading, the figures and the sources of one chip or system."""
    file = catalogue_entry(kind, entry["name"])
    said = [file.get("description", ""), file.get("notes", "")]
    figures = [[f"`{path}`", value, confidence, source] for path, value, confidence, source in _figures(file)]
    table = _table(["figure", "value", "confidence", "source"], figures)
    sources = "".join(f"- {key}: {citation}\n" for key, citation in file.get("sources", {}).items())
    text = ". ".join(part[0].upper() + part[1:].rstrip(".") for part in said if part)
    return f"\n### {entry['name']}\n\n{text}.\n\n{table}\n{sources}"


def _figures(value: Any, path: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield (path, value, confidence, source) of every figure in a file."""
    if isinstance(value, dict) and "confidence" in value:
        yield path, _plain(value["value"]), value["confidence"], value["source"]
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _figures(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            name = item.get("name", i) if isinstance(item, dict) else i
            yield from _figures(item, f"{path}[{name}]")


def _plain(value: Any) -> str:
    if isinstance(value, list) and len(value) > MOST_ITEMS:
        return f"{len(value)} entries"
    if isinstance(value, list):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1])
