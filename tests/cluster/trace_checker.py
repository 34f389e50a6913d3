"""A strict reader of the Trace Event Format, for the phases that we write; times are exact."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

FIELDS = {
    "M": {"name", "args"},
    "B": {"ts", "name", "cat", "args"},
    "E": {"ts"},
    "i": {"ts", "name", "cat", "s", "args"},
    "s": {"ts", "name", "cat", "id"},
    "f": {"ts", "name", "cat", "id", "bp"},
    "C": {"ts", "name", "args"},
}
"""Of every phase, besides ph, pid and tid."""
METADATA = {
    "process_name": "name",
    "process_sort_index": "sort_index",
    "thread_name": "name",
    "thread_sort_index": "sort_index",
}


class Slice(NamedTuple):
    """A slice of a track, in ps."""

    process: str
    thread: str
    name: str
    start_ps: int
    end_ps: int
    category: str
    args: dict


class Flow(NamedTuple):
    """An arrow from one slice to another."""

    source: Slice
    target: Slice
    start_ps: int
    end_ps: int


class Read(NamedTuple):
    """What a file holds: slices, instants (process, name, ps, args), flows, and counters as (ps, value)."""

    slices: list[Slice]
    instants: list[tuple[str, str, int, dict]]
    flows: list[Flow]
    counters: dict[str, list[tuple[int, float]]]
    about: dict


def read(path: Path) -> Read:
    """Return what a file holds; fail for whatever a viewer could complain about."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("ascii")
    document = json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse)
    assert set(document) == {"displayTimeUnit", "otherData", "traceEvents"}
    assert document["displayTimeUnit"] in {"ms", "ns"}
    names: dict[tuple, str] = {}
    for event in document["traceEvents"]:
        extra = FIELDS[event["ph"]]
        assert set(event) == {"ph", "pid", "tid"} | extra, event
        assert event["pid"] > 0
        assert event["tid"] >= 0
        if event["ph"] == "M":
            assert set(event["args"]) == {METADATA[event["name"]]}
            key = (event["name"], event["pid"], event["tid"])
            assert key not in names, key
            names[key] = event["args"][METADATA[event["name"]]]
    return _play(document["traceEvents"], names, document["otherData"])


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def _ps(event: dict) -> int:
    time_ps = event["ts"] * 1_000_000
    assert time_ps == int(time_ps) >= 0, event
    return int(time_ps)


def _play(events: list[dict], names: dict[tuple, str], about: dict) -> Read:
    """Play the events track by track, in the order of the file: there, time never runs backwards."""
    slices, instants, counters = [], [], defaultdict(list)
    now, open_ = defaultdict(int), {}
    ends: dict[str, dict] = {"s": {}, "f": {}}
    for event in events:
        if event["ph"] == "M":
            continue
        process, time_ps = names["process_name", event["pid"], 0], _ps(event)
        track = (event["pid"], event["tid"], event["name"] if event["ph"] == "C" else "")
        assert now[track] <= time_ps, event
        now[track] = time_ps
        if event["ph"] == "C":
            [value] = event["args"].values()
            assert value >= 0
            counters[event["name"]].append((time_ps, float(value)))
            continue
        thread = names["thread_name", event["pid"], event["tid"]]
        if event["ph"] == "B":
            assert track not in open_, "slices of one track follow one another"
            open_[track] = (len(slices), event, time_ps)
            slices.append(None)
        elif event["ph"] == "E":
            place, begin, start_ps = open_.pop(track)
            slices[place] = Slice(process, thread, begin["name"], start_ps, time_ps, begin["cat"], begin["args"])
        elif event["ph"] == "i":
            assert event["s"] == "t"
            instants.append((process, event["name"], time_ps, event["args"]))
        else:
            assert event.get("bp", "e") == "e"
            assert event["id"] not in ends[event["ph"]], "an arrow has one begin and one end"
            ends[event["ph"]][event["id"]] = (open_[track][0], time_ps, (event["name"], event["cat"]))
    assert not open_
    assert set(ends["s"]) == set(ends["f"])
    flows = []
    for number, (place, start_ps, kind) in ends["s"].items():
        to, end_ps, same = ends["f"][number]
        assert kind == same
        assert start_ps <= end_ps
        flows.append(Flow(slices[place], slices[to], start_ps, end_ps))
    for samples in counters.values():
        times = [time_ps for time_ps, _ in samples]
        assert times == sorted(set(times)), "a counter has one value at a time"
    return Read(slices, instants, flows, dict(counters), about)
