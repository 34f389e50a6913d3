"""The buffers of all GPUs: what lies where, from which step on, and how it moves.

Every place is a slot of the chunk in it; a chunk's home, its place in the input or else in the output, is slot 0. So a
GPU may hold several partial sums of a chunk. A message that cannot land at once where it is wanted lands in a slot of
its own, in transit, and moves on when all that uses the place before is done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from attrs import define, field, frozen

from collectives.msccl.parse import Algo, Step
from collectives.operations import OPERATIONS
from collectives.schedule import Local, Schedule, Transfer, by_step

TRANSIT = 2**40
"""Slots from here on are in transit; they get their numbers when all others are known."""

MOST_VERSIONS = 4096  # of a chunk, that a GPU gets in transit

Place = tuple[str, int]
"""(buffer, offset)"""
Cell = tuple[int, int]
"""(chunk, slot)"""


@define(eq=False)
class Value:
    """What a place holds: a chunk in a slot since the end of step `level`; the last steps that sent and used it."""

    chunk: int
    slot: int
    level: int = -1
    sent: int = -1
    used: int = -1
    added: bool = False
    """Whether it was last written by adding messages, in step `level`."""

    @property
    def cell(self) -> Cell:
        """The chunk and its slot."""
        return self.chunk, self.slot


@frozen(eq=False)
class Message:
    """What a GPU sent in a step of the schedule."""

    line: int
    step: int
    src: int
    cells: list[Cell]


@define(eq=False)
class Cells:
    """All places of all GPUs, and the schedule of what was done to them so far."""

    algo: Algo
    op: str
    n_chunks: int
    inputs: list[list[int]] = field(factory=list)
    outputs: list[list[int]] = field(factory=list)
    _places: dict[tuple[int, Place], Value] = field(factory=dict)
    _homes: dict[tuple[int, int], Place] = field(factory=dict)
    _slots: dict[tuple[int, int], dict[Place, int]] = field(factory=lambda: defaultdict(dict))
    _transit: dict[tuple[int, int], list[tuple[int, int, int]]] = field(factory=lambda: defaultdict(list))
    _transfers: list[tuple[int, int, int, list[Cell], bool]] = field(factory=list)
    _local: list[tuple[int, int, Cell, Cell, bool]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        operation, n, k, root = OPERATIONS[self.op], self.algo.n_gpus, self.n_chunks, self.algo.root
        for rank in range(n):
            self.inputs.append([c for c in range(k) if operation.starts(n, k, root, rank, c)])
            self.outputs.append([c for c in range(k) if operation.ends(n, k, root, rank, c)])
            for offset, chunk in enumerate(self.outputs[rank]):
                self._homes[rank, chunk] = self._real(rank, ("o", offset))
            for offset, chunk in enumerate(self.inputs[rank]):
                self._homes[rank, chunk] = place = self._real(rank, ("i", offset))
                self._places[rank, place] = Value(chunk, 0)

    def _real(self, rank: int, place: Place) -> Place:
        """Return where a place lies; in place, input and output overlap: the smaller is rank's part of the larger."""
        buffer, offset = place
        if not self.algo.in_place or buffer == "s":
            return place
        n_in, n_out = len(self.inputs[rank]), len(self.outputs[rank])
        small, n_small, n_large = ("i", n_in, n_out) if n_in <= n_out else ("o", n_out, n_in)
        part = n_small if n_small < n_large == n_small * self.algo.n_gpus else 0
        return ("o" if small == "i" else "i"), offset + (rank * part if buffer == small else 0)

    def places(self, rank: int, step: Step, first: Place) -> list[Place]:
        """Return the places of a step's chunks; they must be inside of the buffer."""
        buffer, offset = first
        declared = self.algo.gpus[rank].n_chunks[buffer]
        size = {"i": len(self.inputs[rank]), "o": len(self.outputs[rank]), "s": declared}[buffer]
        if self.algo.in_place and buffer != "s" and declared == 0:  # lies in the other one
            size = max(len(self.inputs[rank]), len(self.outputs[rank]))
        size = min(size, declared) if declared else size
        if offset < 0 or offset + step.count > size:
            what = f"chunks {offset} to {offset + step.count - 1} of buffer {buffer!r} of gpu {rank}"
            raise self.algo.error(step.line, f"<step>: {what}; it has {size}")
        return [self._real(rank, (buffer, offset + x)) for x in range(step.count)]

    def value(self, rank: int, step: Step, place: Place) -> Value:
        """Return what a place holds."""
        value = self._places.get((rank, place))
        if value is None:
            where = f"chunk {place[1]} of buffer {place[0]!r} of gpu {rank}"
            raise self.algo.error(step.line, f"<step>: type {step.type!r} reads {where}, which nothing has written")
        return value

    def send(self, rank: int, step: Step, before: int, places: Sequence[Place]) -> Message:
        """Send what is in the places, in the first step after `before` in which it can be."""
        values = [self.value(rank, step, place) for place in places]
        at = max([before, *(v.level for v in values)]) + 1
        for value in values:
            value.sent = max(value.sent, at)
        return Message(step.line, at, rank, [v.cell for v in values])

    def copy(self, rank: int, step: Step, before: int, src: Sequence[Place], dst: Sequence[Place], *, add: bool) -> int:
        """Copy or add places of a GPU to others; return the step after which it is done."""
        values = [self.value(rank, step, place) for place in src]
        level = self._settled(rank, dst, max([before, *(v.level for v in values)]))
        for value, place in zip(values, dst, strict=True):
            self._write(rank, step, level, value.cell, place, add=add)
            value.used = max(value.used, level)
        return level

    def receive(
        self, rank: int, step: Step, before: int, message: Message, src: Sequence[Place], dst: Sequence[Place]
    ) -> int:
        """Write what was received, added to `src` if there is one, to `dst`; return the step after which it is done."""
        own = [self.value(rank, step, place) for place in src]
        level = self._settled(rank, dst, max([before, message.step, *(v.level for v in own)]))
        if src in ([], dst) and self._land(rank, step, message, dst, add=bool(src)):
            return level
        arrived = [(chunk, self._in_transit(chunk, message, rank, level)) for chunk, _ in message.cells]
        self._transfer(message, rank, arrived, add=False)
        if src not in ([], dst):
            self.copy(rank, step, level, src, dst, add=False)
        for cell, place in zip(arrived, dst, strict=True):
            self._write(rank, step, level, cell, place, add=bool(src))
        return level

    def _settled(self, rank: int, places: Iterable[Place], level: int) -> int:
        """Return the first step, at or after `level`, after which the places may be written: all readers are done."""
        old = (self._places.get((rank, place)) for place in places)
        return max([level, *(max(v.level, v.sent, v.used) for v in old if v is not None)])

    def _slot(self, rank: int, chunk: int, place: Place) -> int:
        """Return the slot of a chunk in a place."""
        if self._homes.get((rank, chunk)) == place:
            return 0
        slots = self._slots[rank, chunk]
        return slots.setdefault(place, 1 + len(slots))

    def _write(self, rank: int, step: Step, level: int, source: Cell, place: Place, *, add: bool) -> None:
        """Copy a cell to a place of its rank, or add it to what is there, after step `level`."""
        value = self.value(rank, step, place) if add else Value(source[0], self._slot(rank, source[0], place))
        self._require_same(step, source[0], value, add=add)
        if value.cell != source:
            self._local.append((level, rank, source, value.cell, add))
        value.level, value.added = level, False
        self._places[rank, place] = value

    def _require_same(self, step: Step, chunk: int, value: Value, *, add: bool) -> None:
        if add and value.chunk != chunk:
            raise self.algo.error(step.line, f"<step>: type {step.type!r} adds chunk {chunk} to chunk {value.chunk}")

    def _land(self, rank: int, step: Step, message: Message, dst: Sequence[Place], *, add: bool) -> bool:
        """Let a message land where it is wanted, if the slots are the same there and nothing else uses them then."""
        at = message.step
        for (chunk, slot), place in zip(message.cells, dst, strict=True):
            old = self._places.get((rank, place))
            if old is not None:
                self._require_same(step, chunk, old, add=add)
                free = old.level < at or (add and old.added and old.level == at)
                if not free or old.sent > at or old.used >= at:
                    return False
            if self._slot(rank, chunk, place) != slot:
                return False
        self._transfer(message, rank, message.cells, add=add)
        for (chunk, slot), place in zip(message.cells, dst, strict=True):
            old = self._places.get((rank, place))
            value = old if add and old is not None else Value(chunk, slot)
            value.level, value.added = at, add
            self._places[rank, place] = value
        return True

    def _in_transit(self, chunk: int, message: Message, dst: int, level: int) -> int:
        """Return a slot that is free on both sides from before the message to the end of step `level`."""
        at = message.step
        wanted = ((message.src, at - 1, at), (dst, at, level))
        if len(self._transit[dst, chunk]) >= MOST_VERSIONS:
            what = f"chunk {chunk} comes to gpu {dst} in more than {MOST_VERSIONS} versions"
            raise self.algo.error(message.line, f"<step>: {what}; accepted: fewer")
        taken = {
            slot
            for rank, begin, end in wanted
            for slot, first, last in self._transit[rank, chunk]
            if first <= end and begin <= last
        }
        free = next(slot for slot in range(TRANSIT, TRANSIT + len(taken) + 1) if slot not in taken)
        for rank, begin, end in wanted:
            self._transit[rank, chunk].append((free, begin, end))
        return free

    def _transfer(self, message: Message, dst: int, cells: list[Cell], *, add: bool) -> None:
        """Add the message to the schedule, sent from these cells of the source."""
        for own, cell in zip(message.cells, cells, strict=True):
            if own != cell:
                self._local.append((message.step - 1, message.src, own, cell, False))
        self._transfers.append((message.step, message.src, dst, cells, add))

    def schedule(self, name: str) -> Schedule:
        """Return the schedule of all that was done; raise ConfigError where the output is not what was promised."""
        self._bring_home()
        n_slots = 1 + max((len(slots) for slots in self._slots.values()), default=0)
        in_transit = {slot for used in self._transit.values() for slot, _, _ in used}

        def number(cell: Cell) -> int:
            slot = cell[1] if cell[1] < TRANSIT else cell[1] - TRANSIT + n_slots
            return slot * self.n_chunks + cell[0]

        transfers = (Transfer(step, a, b, tuple(map(number, cells)), add) for step, a, b, cells, add in self._transfers)
        ordered = sorted(self._local, key=lambda item: item[0])
        local = tuple(Local(step, rank, number(a), number(b), add) for step, rank, a, b, add in ordered)
        return Schedule(self.op, name, self.algo.n_gpus, self.n_chunks, by_step(transfers),
                        n_slots=n_slots + len(in_transit), local=local)  # fmt: skip

    def _bring_home(self) -> None:
        """Bring the output's chunks to slot 0; raise ConfigError where another chunk or nothing is in their place."""
        end = max([-1, *(item[0] for item in self._transfers), *(item[0] for item in self._local)])
        for rank, chunks in enumerate(self.outputs):
            for offset, chunk in enumerate(chunks):
                value = self._places.get((rank, self._real(rank, ("o", offset))))
                if value is None or value.chunk != chunk:
                    what = "nothing" if value is None else f"chunk {value.chunk}"
                    message = f"gpu {rank} ends with {what} in chunk {offset} of its output, not with chunk {chunk}"
                    raise self.algo.error(self.algo.gpus[rank].line, f"{message} of the {self.algo.coll}")
                if value.slot:
                    self._local.append((end, rank, value.cell, (chunk, 0), False))
