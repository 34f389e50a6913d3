"""A timeline as a file for Perfetto (ui.perfetto.dev) and chrome://tracing.

The format is the Trace Event Format of Chromium, as JSON. Every chip is a process with a track for its program and
tracks for what goes on beside it; link utilisation is a process of counters. Slices are pairs of begin and end, not
complete events: viewers round to nanoseconds, and a rounded start plus a rounded duration may run into the next slice.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, TextIO, cast

import numpy as np

from cluster.records import Await, Collective, Compute, Receive, Record, Send
from cluster.timeline.accounts import NO_LAYER
from cluster.timeline.intervals import lanes
from cluster.timeline.loads import bins_ps, utilisation
from cluster.timeline.timeline import Timeline, operation_name

MOST_LINKS = 16
"""With a counter: the busiest."""
MOST_BINS = 1000
"""Of a counter."""
PROGRAM = 1
"""The number of a chip's program track; those of what goes on beside it follow."""


def write_trace(timeline: Timeline, path: str | Path, about: Mapping[str, Any] | None = None) -> None:
    """Write a timeline for Perfetto and chrome://tracing, packed by gzip if the name ends in .gz.

    The same timeline gives the same bytes. `about` is kept in the file as `otherData`. Raises OSError.
    """
    path = Path(path)
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(path.open("wb"))
        if path.suffix == ".gz":  # without name and time of day: the same bytes each time
            packed = gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0)
            file = cast("IO[bytes]", stack.enter_context(packed))
        _write(stack.enter_context(TextIOWrapper(file, encoding="ascii", newline="\n")), timeline, dict(about or {}))


def _write(file: TextIO, timeline: Timeline, about: Mapping[str, Any]) -> None:
    file.write('{"displayTimeUnit":"ns","otherData":' + json.dumps(about) + ',"traceEvents":[')
    separator = "\n"
    for line in trace_events(timeline):
        file.write(separator)
        file.write(line)
        separator = ",\n"
    file.write("\n]}\n")


def trace_events(timeline: Timeline) -> Iterator[str]:
    """Yield the events as JSON: chip after chip, track after track, each in the order of time; then the counters."""
    described = _descriptions(timeline)
    flow = _flows(timeline)
    n_chips = timeline.inputs.topology.n_chips
    order = np.argsort(timeline.chip, kind="stable")
    first = np.searchsorted(timeline.chip[order], np.arange(n_chips + 1))
    marks: dict[int, list[tuple[int, str]]] = {}
    for event, index in zip(timeline.marks, timeline.mark_index, strict=True):
        marks.setdefault(event.chip, []).append((event.end_ps, _instant(event.operation, index)))
    for chip in range(n_chips):
        number = order[first[chip] : first[chip + 1]]
        if not len(number) and chip not in marks:
            continue
        yield from _process(chip + 1, f"chip {chip}")
        beside = timeline.started[number]
        yield from _thread(chip + 1, PROGRAM, "program")
        yield from _track(timeline, number[~beside], described, flow, marks.get(chip, []), chip + 1, PROGRAM)
        started = number[beside]
        for i, lane in enumerate(lanes(timeline.start_ps[started], timeline.end_ps[started])):
            yield from _thread(chip + 1, PROGRAM + 1 + i, f"communication {i + 1}" if i else "communication")
            yield from _track(timeline, started[lane], described, flow, [], chip + 1, PROGRAM + 1 + i)
    yield from _counters(timeline, n_chips + 1)


def _us(time_ps: int) -> str:
    """Return a time in microseconds, exactly.

    >>> _us(12_000_000), _us(1_500_001), _us(7)
    ('12', '1.500001', '0.000007')
    """
    whole, rest = divmod(time_ps, 1_000_000)
    return f"{whole}.{rest:06d}".rstrip("0") if rest else str(whole)


def _track(
    timeline: Timeline,
    numbers: Iterable[int],
    described: Mapping[tuple[int, int], str],
    flow: Mapping[int, int],
    marks: list[tuple[int, str]],
    pid: int,
    tid: int,
) -> Iterator[str]:
    """Yield one track: begins and ends, ends of flows where a message arrives and begins where it leaves, and marks."""
    where, at = f'"pid":{pid},"tid":{tid}', 0
    for i in map(int, numbers):
        start, end = int(timeline.start_ps[i]), int(timeline.end_ps[i])
        while at < len(marks) and marks[at][0] <= start:
            yield f'{{"ph":"i","ts":{_us(marks[at][0])},{where},{marks[at][1]}}}'
            at += 1
        yield f'{{"ph":"B","ts":{_us(start)},{where},{described[int(timeline.record[i]), int(timeline.layer[i])]}}}'
        if i in flow:
            sends = isinstance(timeline.records[timeline.record[i]], Send)
            ph, ts = ('"s"', start) if sends else ('"f","bp":"e"', end)
            yield f'{{"ph":{ph},"ts":{_us(ts)},{where},"name":"message","cat":"message","id":{flow[i]}}}'
        yield f'{{"ph":"E","ts":{_us(end)},{where}}}'
    for time_ps, mark in marks[at:]:
        yield f'{{"ph":"i","ts":{_us(time_ps)},{where},{mark}}}'


def _flows(timeline: Timeline) -> dict[int, int]:
    """Return the number of the message that an event sends or receives: the k-th of (source, destination, tag)."""
    messages = np.array([isinstance(record, Send | Receive) for record in timeline.records], np.bool_)
    if not messages.any():
        return {}
    events = np.flatnonzero(messages[timeline.record])
    sent: dict[tuple[int, int, str], list[int]] = {}
    received: dict[tuple[int, int, str], list[int]] = {}
    for i in map(int, events):
        chip, record = int(timeline.chip[i]), timeline.records[timeline.record[i]]
        if isinstance(record, Send):
            sent.setdefault((chip, record.dst, record.tag), []).append(i)
        elif isinstance(record, Receive):
            received.setdefault((record.src, chip, record.tag), []).append(i)
    flow: dict[int, int] = {}
    for key, sends in sent.items():
        for send, receive in zip(sends, received[key], strict=True):
            flow[send] = flow[receive] = len(flow) // 2 + 1
    return flow


def _descriptions(timeline: Timeline) -> dict[tuple[int, int], str]:
    """Return the description of every (record, layer) that there is."""
    pairs = np.unique(np.stack([timeline.record, timeline.layer], axis=1), axis=0)
    return {(int(i), int(layer)): _described(timeline.records[i], int(layer)) for i, layer in pairs}


def _described(record: Record, layer: int) -> str:
    """Return name, category and arguments of an operation, as the inside of a JSON object."""
    operation = record.operation if isinstance(record, Await) else record
    category: str
    args: dict[str, Any]
    match operation:
        case Compute(bound=bound):
            category, args = bound, {"bound": bound}
        case Collective():
            category = "collective"
            args = {
                "algorithm": operation.algorithm, "group": operation.group, "n_ranks": len(operation.ranks),
                "size_bytes": operation.n_elements * operation.dtype.itemsize, "dtype": str(operation.dtype),
            }  # fmt: skip
        case Send(dst=dst, size_bytes=size_bytes):
            category, args = "message", {"dst": dst, "size_bytes": size_bytes}
        case Receive(src=src):
            category, args = "message", {"src": src}
        case _:
            raise AssertionError(f"{record} takes no time")
    category = "wait" if isinstance(record, Await) else category
    where = {} if layer == NO_LAYER else {"layer": layer}
    return _inside({"name": operation_name(record), "cat": category, "args": where | args})


def _instant(name: str, index: int) -> str:
    return _inside({"name": name, "cat": "mark", "s": "t", "args": {"index": index}})


def _inside(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"))[1:-1]


def _process(pid: int, name: str) -> Iterator[str]:
    """Name a process, and keep the processes in their order."""
    for key, args in (("process_name", {"name": name}), ("process_sort_index", {"sort_index": pid})):
        yield json.dumps({"ph": "M", "pid": pid, "tid": 0, "name": key, "args": args}, separators=(",", ":"))


def _thread(pid: int, tid: int, name: str) -> Iterator[str]:
    """Name a track, and keep the tracks of a process in their order."""
    for key, args in (("thread_name", {"name": name}), ("thread_sort_index", {"sort_index": tid})):
        yield json.dumps({"ph": "M", "pid": pid, "tid": tid, "name": key, "args": args}, separators=(",", ":"))


def _counters(timeline: Timeline, pid: int) -> Iterator[str]:
    """Yield the utilisation in percent of the busiest links, where it changes from bin to bin; 0 at the end."""
    names = [link.name for link in timeline.busiest_links(MOST_LINKS)]
    if not names:
        return
    yield from _process(pid, f"links (the {len(names)} busiest)" if len(timeline.links) > len(names) else "links")
    edges = bins_ps(timeline.total_ps, MOST_BINS).tolist()
    for name, row in zip(names, utilisation(timeline, names, MOST_BINS), strict=True):
        inside, before = f'"pid":{pid},"tid":0,"name":{json.dumps(name)}', None
        for time_ps, percent in zip(edges, [*np.round(row * 100, 3).tolist(), 0.0], strict=True):
            if percent != before:
                yield f'{{"ph":"C","ts":{_us(time_ps)},{inside},"args":{{"percent":{percent:g}}}}}'
            before = percent
