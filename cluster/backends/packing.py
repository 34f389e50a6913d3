"""What is kept of a chip, as bytes: msgpack of plain values and arrays, so that nothing is ever unpickled."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from cluster.backends.control import MAX_MESSAGE_BYTES, pack_value, unpack_value
from cluster.backends.wire import number_format
from cluster.checkpoints import Kept, Traffic
from cluster.records import KINDS, Await, Collective, Record, Start, Trace
from configs.errors import ProgramError
from configs.units import format_size

MAX_KEPT_BYTES = MAX_MESSAGE_BYTES - (1 << 20)
"""With what goes along, it must fit into a message to the driver."""


def pack_record(record: Record) -> list[Any]:
    """Return a record in a form that msgpack takes: the number of its kind, then its fields."""
    if isinstance(record, Start | Await):
        return [KINDS.index(type(record)), pack_record(record.operation), *record[1:]]
    return [KINDS.index(type(record)), *(f.name if isinstance(f, np.dtype) else f for f in record)]


def unpack_record(packed: list[Any]) -> Record:
    """Undo `pack_record`.

    >>> from cluster.records import Send
    >>> unpack_record(pack_record(Start(Send(3, "on", 64))))
    Start(operation=Send(dst=3, tag='on', size_bytes=64))
    """
    kind: Any = KINDS[packed[0]]
    fields = dict(zip(kind._fields, map(_tuples, packed[1:]), strict=True))
    if "operation" in fields:
        fields["operation"] = unpack_record(packed[1])
    if kind is Collective:
        fields["dtype"] = number_format(fields["dtype"])
    record: Record = kind(**fields)
    return record


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def pack_kept(rank: int, kept: Kept) -> bytes:
    """Return what is kept of a chip; raise ProgramError for a state that cannot be."""
    records, trace = [*map(pack_record, kept.records)], kept.trace
    rest = [records, pack_value(trace.numbers), pack_value(trace.layers), kept.n_emitted, list(kept.sent)]
    try:
        packed: bytes = msgpack.packb([kept.step, kept.state, rank, *rest], default=pack_state)
    except (TypeError, ValueError, OverflowError) as error:
        accepted = "arrays, numbers, strings, bytes, None, and lists and dicts of these"
        raise ProgramError(
            f"chip {rank}: the state for step {kept.step} cannot be kept: {error}; accepted: {accepted}"
        ) from None
    if len(packed) > MAX_KEPT_BYTES:
        size, limit = format_size(len(packed)), format_size(MAX_KEPT_BYTES)
        raise ProgramError(
            f"chip {rank}: the state for step {kept.step} takes {size}; accepted: at most {limit} a chip"
        )
    return packed


def pack_state(value: Any) -> Any:
    """Return a part of a state that msgpack does not know in a form that it does."""
    packed = pack_value(value)
    if packed is value:
        raise TypeError(f"{type(value).__name__} is not plain")
    return packed


def pack_traffic(traffic: Traffic) -> list[Any]:
    """Return what a chip has communicated in a form that msgpack takes."""
    return [[(*key, n) for key, n in counts.items()] for counts in traffic]


def unpack_traffic(packed: list[Any]) -> Traffic:
    """Undo `pack_traffic`.

    >>> unpack_traffic(pack_traffic(Traffic({(0, 1, "x"): 2}, {("all", (0, 1)): 3})))
    Traffic(messages={(0, 1, 'x'): 2}, calls={('all', (0, 1)): 3})
    """
    messages, calls = packed
    return Traffic(
        {(src, dst, tag): n for src, dst, tag, n in messages},
        {(group, tuple(ranks)): n for group, ranks, n in calls},
    )


def unpack_kept(data: bytes) -> Kept:
    """Undo `pack_kept`; arrays of the state can be written."""
    step, state, rank, records, numbers, layers, n_emitted, sent = msgpack.unpackb(
        data, object_hook=unpack_value, strict_map_key=False
    )
    trace = Trace(rank, numbers, layers)
    return Kept(step, _writable(state), [*map(unpack_record, records)], trace, n_emitted, [*map(tuple, sent)])


def _writable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: _writable(item) for key, item in value.items()}
    return [*map(_writable, value)] if isinstance(value, list) else value
