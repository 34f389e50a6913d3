"""Prove that a schedule does what its operation promises, on symbolic chunks.

A chunk on a rank is the set of ranks whose data it contains (a bit mask). The proof is complete: it looks at every
rank, chunk and step, not at sampled values.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from collectives.operations import OPERATIONS, Detail
from collectives.schedule import Local, Schedule, Transfer


class ScheduleError(ValueError):
    """A schedule breaks a rule of its operation; the message names the transfer, or the rank and chunk."""


def check(schedule: Schedule, detail: Detail = 0) -> None:
    """Raise ScheduleError unless every rank ends with exactly the chunks that the operation promises.

    Also refused: sending a chunk that the rank does not hold, adding the same rank's data twice, adding to nothing
    (but in a helper), and two writes to one chunk of one rank in the same step unless all of them add.
    """
    operation = OPERATIONS[schedule.op]
    n, k = schedule.n_ranks, schedule.n_chunks
    if k % operation.n_parts(n):
        raise ScheduleError(f"{schedule.algorithm}: {k} chunks are not a multiple of {operation.n_parts(n)} parts")
    held: list[dict[int, int]] = [
        {c: 1 << r for c in range(k) if operation.starts(n, k, detail, r, c)} for r in range(n)
    ]
    held += [{} for _ in schedule.helpers]
    transfers = {step: list(group) for step, group in groupby(schedule.transfers, key=lambda t: t.step)}
    local = {step: list(group) for step, group in groupby(schedule.local, key=lambda t: t.step)}
    for step in sorted(transfers.keys() | local.keys()):
        _advance(schedule.algorithm, n, held, transfers.get(step, []))
        for t in local.get(step, []):
            _move(schedule.algorithm, held[t.rank], t)
    for message in _missing(schedule, detail, held):
        raise ScheduleError(message)


def _advance(algorithm: str, n_ranks: int, held: list[dict[int, int]], transfers: list[Transfer]) -> None:
    """Apply one step: all sends read the state before it."""
    messages = []
    for t in transfers:
        absent = [c for c in t.chunks if c not in held[t.src]]
        if absent:
            raise ScheduleError(f"{algorithm}: {t}: rank {t.src} does not hold chunk {absent[0]}")
        messages.append([held[t.src][c] for c in t.chunks])
    written: dict[tuple[int, int], bool] = {}
    for t, masks in zip(transfers, messages, strict=True):
        for chunk, mask in zip(t.chunks, masks, strict=True):
            if (t.dst, chunk) in written and not (t.reduce and written[t.dst, chunk]):
                raise ScheduleError(f"{algorithm}: {t}: chunk {chunk} of rank {t.dst} is written twice in a step")
            written[t.dst, chunk] = t.reduce
            nothing = 0 if t.dst >= n_ranks else None
            held[t.dst][chunk] = _merged(algorithm, t, chunk, held[t.dst].get(chunk, nothing), mask)


def _move(algorithm: str, held: dict[int, int], t: Local) -> None:
    """Apply a local operation to what its rank holds."""
    if t.src not in held:
        raise ScheduleError(f"{algorithm}: {t}: rank {t.rank} does not hold chunk {t.src}")
    if t.reduce and t.dst not in held:
        raise ScheduleError(f"{algorithm}: {t}: rank {t.rank} has no chunk {t.dst} to add to")
    if t.reduce and held[t.src] & held[t.dst]:
        raise ScheduleError(f"{algorithm}: {t}: chunk {t.dst} of rank {t.rank} would hold a rank's data twice")
    held[t.dst] = held[t.src] | (held[t.dst] if t.reduce else 0)


def _merged(algorithm: str, t: Transfer, chunk: int, own: int | None, mask: int) -> int:
    """Return the set of ranks in the chunk after the transfer."""
    if not t.reduce:
        return mask
    if own is None:
        raise ScheduleError(f"{algorithm}: {t}: rank {t.dst} has no chunk {chunk} to add to")
    if own & mask:
        raise ScheduleError(f"{algorithm}: {t}: chunk {chunk} of rank {t.dst} would hold a rank's data twice")
    return own | mask


def _missing(schedule: Schedule, detail: Detail, held: list[dict[int, int]]) -> Iterator[str]:
    """Yield what the final state lacks."""
    operation = OPERATIONS[schedule.op]
    n, k = schedule.n_ranks, schedule.n_chunks
    for rank in range(n):
        for chunk in range(k):
            if not operation.ends(n, k, detail, rank, chunk):
                continue
            origins = [r for r in range(n) if operation.starts(n, k, detail, r, chunk)]
            wanted = sum(1 << r for r in origins)
            if held[rank].get(chunk, 0) != wanted:
                yield (
                    f"{schedule.algorithm}: rank {rank} ends with chunk {chunk} holding the data of "
                    f"{_ranks(held[rank].get(chunk, 0))}, not of {_ranks(wanted)}"
                )


def _ranks(mask: int) -> list[int]:
    return [r for r in range(mask.bit_length()) if mask >> r & 1]
