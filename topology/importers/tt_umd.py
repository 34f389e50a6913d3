"""tt-umd's cluster descriptor: chips of a host and which Ethernet channels are joined.

Coordinates (`chips`: x, y, rack, shelf) decide the ranks where they make a grid of the edges, row-major; otherwise the
file's chip numbers do, in ascending order, or a walk round the ring that they form.
"""

from __future__ import annotations

import math
from typing import Any

from configs.problems import shown
from configs.yaml_source import Lines, parse_foreign_yaml
from topology.checks import MAX_CHIPS, reject
from topology.importers.base import Edge, Found, Importer, Source, join_parallel
from topology.importers.tenstorrent import BANDWIDTH, LATENCY, architecture

BOARDS = {
    "n150": "wormhole-n150",
    "n300": "wormhole-n300",
    "galaxy": "wormhole-galaxy-module",
    "ubb": "wormhole-galaxy-module",
    "ubb_wormhole": "wormhole-galaxy-module",
    "ubb_blackhole": "blackhole-galaxy-module",
    "p100": "blackhole-p100a",
    "p150": "blackhole-p150",
    "p300": "blackhole-p300c",
}
_ENDS = ("chip", "chan")


def read(source: Source) -> Found:
    """Return the chips and their Ethernet links."""
    document, lines = parse_foreign_yaml(source.text, source.file)
    if not isinstance(document, dict):
        raise source.error(0, f"holds {shown(document)}; accepted: a tt-umd cluster descriptor")
    archs = _archs(source, document, lines)
    pairs, n_remote = _connections(source, document, lines, archs)
    coords = _coordinates(source, document, lines, archs)
    dims = _dims(coords)
    order = sorted(archs, key=lambda chip: (coords[chip] if dims else (), chip))
    rank = {chip: k for k, chip in enumerate(order)}
    plain = {architecture(arch) for arch in archs.values()}
    one = plain.pop() if len(plain) == 1 else ""
    edges = [Edge((rank[a], rank[b]), 1, BANDWIDTH.get(one), LATENCY.get(one)) for a, b in pairs]
    notes = (f"left out: {n_remote} links to chips of other hosts",) if n_remote else ()
    return Found(
        names=tuple(f"chip {chip}" for chip in order),
        edges=join_parallel(edges),
        dims=dims,
        chip=_board(document) or {"wormhole": "wormhole-n300", "blackhole": "blackhole-p150"}.get(one, ""),
        keep_ranks=False,
        renumbered=order != sorted(archs),
        notes=notes,
    )


def _archs(source: Source, document: dict[Any, Any], lines: Lines) -> dict[int, str]:
    """Return each chip's architecture."""
    archs = document.get("arch")
    if not isinstance(archs, dict) or not 0 < len(archs) <= MAX_CHIPS:
        raise source.error(
            lines.get(("arch",), 0), f"arch: {shown(archs)}; accepted: a mapping of chips to architectures"
        )
    reject(
        f"{source.place(lines['arch', chip])}: arch.{chip}: {shown(arch)}; accepted: a number and a word"
        for chip, arch in archs.items()
        if type(chip) is not int or chip < 0 or not isinstance(arch, str)
    )
    return archs


def _connections(
    source: Source, document: dict[Any, Any], lines: Lines, archs: dict[int, str]
) -> tuple[list[tuple[int, int]], int]:
    """Return the chips that each connection joins, and how many lead out of the file."""
    key = "ethernet_connections"
    rows = document.get(key)
    if not isinstance(rows, list):
        raise source.error(lines.get((key,), 0), f"{key}: {shown(rows)}; accepted: a list of pairs of {{chip, chan}}")
    problems: list[str] = []
    taken: dict[tuple[int, int], int] = {}
    pairs = []
    for i, row in enumerate(rows):
        where = f"{source.place(lines.get((key, i), lines[key,]))}: {key}[{i}]"
        if not isinstance(row, list) or len(row) < 2 or not all(_is_end(end) for end in row[:2]):
            problems.append(f"{where}: {shown(row)}; accepted: two of {{chip: number, chan: number}}")
            continue
        for end in row[:2]:  # more may follow, such as whether routing is on
            if end["chip"] not in archs:
                problems.append(f"{where}: chip: {end['chip']} is not among the chips of `arch`")
            first = taken.setdefault((end["chip"], end["chan"]), i)
            if first != i:
                used = f"chip {end['chip']} has channel {end['chan']} in use by [{first}]"
                problems.append(f"{where}: {used}; accepted: each channel once")
        if row[0]["chip"] == row[1]["chip"]:
            problems.append(f"{where}: joins chip {row[0]['chip']} to itself")
        pairs.append((row[0]["chip"], row[1]["chip"]))
    reject(problems[:20])
    remote = document.get("ethernet_connections_to_remote_devices")
    return pairs, len(remote) if isinstance(remote, list) else 0


def _is_end(end: object) -> bool:
    return isinstance(end, dict) and all(type(end.get(key)) is int and end[key] >= 0 for key in _ENDS)


def _coordinates(
    source: Source, document: dict[Any, Any], lines: Lines, archs: dict[int, str]
) -> dict[int, tuple[int, ...]]:
    """Return the chips' coordinates if all have different ones, slowest axis first; else none."""
    given = document.get("chips")
    if not isinstance(given, dict) or not given:
        return {}
    for chip, place in given.items():
        good = isinstance(place, list) and len(place) == 4 and all(type(c) is int and 0 <= c < 10**6 for c in place)
        if not good or chip not in archs:
            line = lines.get(("chips", chip), lines["chips",])
            raise source.error(line, f"chips.{chip}: {shown(place)}; accepted: a chip of `arch`, and x, y, rack, shelf")
    coords: dict[int, tuple[int, ...]] = {chip: (p[3], p[2], p[0], p[1]) for chip, p in given.items()}
    return coords if set(coords) == set(archs) and len(set(coords.values())) == len(coords) else {}


def _dims(coords: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the lengths of the axes if the coordinates fill a grid; axes of one place are left out."""
    values = [{place[k] for place in coords.values()} for k in range(4)] if coords else []
    dims = tuple(len(found) for found in values if len(found) > 1)
    filled = all(len(found) == max(found) - min(found) + 1 for found in values)
    return dims if coords and filled and math.prod(dims) == len(coords) else ()


def _board(document: dict[Any, Any]) -> str:
    """Return the catalogue's name of the chip on the first board, or nothing."""
    boards = document.get("boards")
    for board in boards if isinstance(boards, list) else []:
        for entry in board if isinstance(board, list) else []:
            kind = entry.get("board_type") if isinstance(entry, dict) else None
            if isinstance(kind, str):
                return BOARDS.get(kind.lower(), "")
    return ""


TT_UMD = Importer("a tt-umd cluster descriptor", lambda source: source.has(r"^\s*ethernet_connections\s*:"), read)
