"""The table that `nvidia-smi topo -m` prints.

NV# is the number of NVLinks of a pair. Where every pair has as many, and more than a GPU has ports for one by one, they
go through NVSwitches, which the table does not show: they become one switch, which carries as much between any two.
PIX, PXB, PHB, NODE and SYS say which switch or bridge two devices have in common; they become a tree of switches where
NVLinks do not join all GPUs.
"""

from __future__ import annotations

import re
from itertools import combinations

from topology.importers.base import Edge, Found, Importer, Source, joins_all

MOST_PORTS = 18  # NVLinks of one GPU, Volta (6) to Blackwell (18)
LEVELS = ("PIX", "PXB", "PHB", "NODE", "SYS")  # from the nearest thing in common to the farthest
ALIKE = {"SOC": "SYS"}  # as older drivers say
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_DEVICE = re.compile(r"(GPU|NIC|mlx\d+_)(\d+)")


def read(source: Source) -> Found:
    """Return the GPUs and what joins each pair."""
    table = _table(source)
    n = len(table)
    notes = ["the table has no figures but the number of NVLinks"]
    nvlinks = {pair: int(table[pair[0]][pair[1]][2:]) for pair in combinations(range(n), 2) if _is_nvlink(table, pair)}
    names = tuple(f"GPU{k}" for k in range(n))
    counts = set(nvlinks.values())
    if len(nvlinks) == n * (n - 1) // 2 and len(counts) == 1 and (n - 1) * max(counts) > MOST_PORTS:
        notes.append(
            f"NV{max(counts)} among all {n} GPUs is taken for NVSwitches, as one switch of {max(counts)} links a GPU"
        )
        edges = [Edge((k, n), max(counts)) for k in range(n)]
        return Found((*names, "NVSwitches"), tuple(edges), 1, notes=tuple(notes))
    edges = [Edge(pair, count) for pair, count in nvlinks.items()]
    if joins_all(edges, n):
        notes.append("left out: PCIe, as NVLinks join all GPUs") if len(nvlinks) < n * (n - 1) // 2 else None
        return Found(names, tuple(edges), notes=tuple(notes))
    tree, switches = _tree(source, table)
    notes.append("NVLinks do not join all GPUs: PCIe switches, host bridges and sockets are part of the topology")
    return Found(names + tuple(switches), tuple(edges + tree), len(switches), notes=tuple(notes))


def _is_nvlink(table: list[list[str]], pair: tuple[int, int]) -> bool:
    return table[pair[0]][pair[1]].startswith("NV")


def _table(source: Source) -> list[list[str]]:
    """Return the cells among GPUs, row by row; raise ConfigError with the line of what is wrong."""
    lines = [_ESCAPE.sub("", line).split() for line in source.text.splitlines()]
    head = next((n for n, words in enumerate(lines) if words[:1] == ["GPU0"] and words[1:2] != ["X"]), None)
    if head is None:
        raise source.error(0, "has no line of columns GPU0 GPU1 …; accepted: the output of nvidia-smi topo -m")
    devices = [word for word in lines[head] if _DEVICE.fullmatch(word)]
    columns = [k for k, word in enumerate(devices) if word.startswith("GPU")]
    n = len(columns)
    if [devices[k] for k in columns] != [f"GPU{k}" for k in range(n)]:
        raise source.error(
            head + 1, f"the columns are {' '.join(devices)[:80]}; accepted: GPU0, GPU1 and so on, each once"
        )
    rows: dict[str, list[str]] = {}
    for number, words in enumerate(lines[head + 1 :], head + 2):
        if not words or not re.fullmatch(r"GPU\d+", words[0]):
            continue
        if words[0] in rows or len(words) <= columns[-1] + 1 or words[0] not in devices:
            accepted = f"one row for each of the {n} columns"
            raise source.error(number, f"{' '.join(words)[:60]}: is a row too many, or too short; accepted: {accepted}")
        rows[words[0]] = [ALIKE.get(words[1 + k], words[1 + k]) for k in columns]
        _check_cells(source, number, words[0], rows[words[0]])
    if len(rows) != n:
        raise source.error(head + 1, f"has {n} GPU columns and {len(rows)} GPU rows; accepted: as many")
    table = [rows[f"GPU{k}"] for k in range(n)]
    for a, b in combinations(range(n), 2):
        if table[a][b] != table[b][a]:
            raise source.error(
                0, f"GPU{a} to GPU{b} is {table[a][b]}, but back it is {table[b][a]}; accepted: the same"
            )
    return table


def _check_cells(source: Source, number: int, row: str, cells: list[str]) -> None:
    for k, cell in enumerate(cells):
        itself = row == f"GPU{k}"
        good = cell == "X" if itself else cell in LEVELS or re.fullmatch(r"NV[1-9][0-9]?", cell)
        if not good:
            accepted = "X" if itself else f"NV and a number, {', '.join(LEVELS)}"
            raise source.error(number, f"{row}: column GPU{k}: {cell[:20]!r}; accepted: {accepted}")


def _tree(source: Source, table: list[list[str]]) -> tuple[list[Edge], list[str]]:
    """Return the tree whose switches are what the GPUs have in common, from the nearest to the farthest."""
    n = len(table)
    top = {k: k for k in range(n)}  # the node that stands for a GPU and all it has been joined with
    edges: list[Edge] = []
    switches: list[str] = []
    for reach, level in enumerate(LEVELS):
        near = LEVELS[: reach + 1]
        groups: list[set[int]] = []
        for gpu in range(n):
            mine = {gpu} | {other for other in range(n) if table[gpu][other] in near or top[other] == top[gpu]}
            joined = [group for group in groups if group & mine]
            groups = [group for group in groups if not group & mine] + [mine.union(*joined)]
        for group in sorted(groups, key=min):
            below = sorted({top[gpu] for gpu in group})
            if len(below) > 1:
                switch = n + len(switches)
                switches.append(level)
                edges += [Edge((node, switch)) for node in below]
                top |= dict.fromkeys(group, switch)
    if len(set(top.values())) > 1:
        raise source.error(0, "no NVLink and no PCIe joins all GPUs")
    return edges, switches


NVIDIA_SMI = Importer(
    "the output of nvidia-smi topo -m", lambda source: source.has(r"^[^\n]*\bGPU0\b[^\n]*\sX\s"), read
)
