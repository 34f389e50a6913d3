"""Turn an MSCCL algorithm into a schedule, by following its chunks from buffer to buffer.

Every GPU has an input (i), an output (o) and a scratch buffer (s) of chunks; in place, the smaller of i and o lies in the
larger. Thread blocks run at the same time, their steps one after the other; a step also waits for the step that depid and
deps name. A thread block's messages on its channel to one GPU arrive in the order in which they were sent; sending does
not wait for the receiver. With `dst` and `src` the places that the step names:

    s     send src                          cpy    dst = src
    r     dst = received                    re     dst = dst + src
    rrc   dst = src + received              nop    nothing (it only waits)
    rcs   dst = received, send it on        rrs    send src + received on
    rrcs  dst = src + received, send it on

Source: microsoft/msccl, src/graph (parser) and src/collectives/device/msccl_interpreter.h; the same in ROCm/rccl.

A message's step in the schedule is the first one after all that its thread block has done before it and waited for: its
earlier messages, and the steps in which what it waited for arrived. A nop that waits for nothing is an idle step (the
runtime leaves it out; `write` uses it so that a schedule keeps its steps). Every place is a slot of the chunk in it, so a
GPU may hold several partial sums of a chunk.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from pathlib import Path

from attrs import define, field, frozen

from collectives.checker import ScheduleError, check
from collectives.msccl.parse import RECEIVES, SENDS, Algo, Step, ThreadBlock, parse
from collectives.operations import OPERATIONS
from collectives.schedule import Local, Schedule, Transfer, by_step
from configs.errors import ConfigError
from configs.problems import shown

MOST_CHUNKS = 2**23  # on all ranks together
MOST_MOVES = 2**23  # chunks that all steps together move
TRANSIT = 2**40  # slots from here on are numbered after the others when all are known

COLLECTIVES = {op.replace("_", ""): op for op in OPERATIONS}

Place = tuple[str, int]
"""(buffer, offset)"""
Cell = tuple[int, int]
"""(chunk, slot)"""


def read(path: str | Path, name: str = "") -> Schedule:
    """Return the schedule of a file, proven; `name` is the algorithm's, by default the path.

    Raises ConfigError, with file and line, for what is not MSCCL XML, cannot end, or does not keep its operation's promise.
    """
    algo = parse(path)
    if algo.coll not in COLLECTIVES:
        raise ConfigError((f"{path}: coll: {shown(algo.coll)}; accepted: {', '.join(COLLECTIVES)}",))
    operation = OPERATIONS[COLLECTIVES[algo.coll]]
    n_chunks = algo.chunks_per_loop * (algo.n_gpus if operation.parts == "pairs" else 1)
    if n_chunks % operation.n_parts(algo.n_gpus) or n_chunks * algo.n_gpus > MOST_CHUNKS:
        parts, most = operation.n_parts(algo.n_gpus) * algo.chunks_per_loop // n_chunks, MOST_CHUNKS // algo.n_gpus
        limit = f"a multiple of {max(1, parts)}, the parts of {algo.coll}, and at most {most} chunks"
        raise ConfigError((f"{path}: nchunksperloop: {algo.chunks_per_loop}; accepted: {limit}",))
    if algo.root >= algo.n_gpus:
        raise ConfigError((f"{path}: root: {algo.root}; accepted: 0 to {algo.n_gpus - 1}",))
    moves = sum(step.count for gpu in algo.gpus.values() for block in gpu.blocks.values() for step in block.steps)
    if moves > MOST_MOVES:
        raise ConfigError((f"{path}: its steps move {moves} chunks; accepted: at most {MOST_MOVES}",))
    schedule = _Interpreter(algo, operation.name, n_chunks).run(name or str(path))
    try:
        check(schedule, algo.root)
    except ScheduleError as error:
        raise ConfigError((f"{path}: does not do an {algo.coll}: {error}",)) from None
    return schedule


@define(eq=False)
class _Value:
    """What a place holds: a chunk in a slot since the end of step `level`; the last steps that sent and read it."""

    chunk: int
    slot: int
    level: int = -1
    sent: int = -1
    used: int = -1
    added: bool = False
    """Whether it was last written by adding messages, in step `level`."""


@frozen(eq=False)
class _Message:
    line: int
    step: int
    src: int
    cells: list[Cell]


@define(eq=False)
class _Running:
    """A thread block on its way; `levels` are the steps after which what its steps did is there."""

    rank: int
    block: ThreadBlock
    levels: list[int] = field(factory=list)

    @property
    def level(self) -> int:
        return self.levels[-1] if self.levels else -1


Key = tuple[str, int, int, int]
"""What a thread block waits for: ("tb", rank, id, step), or ("message", source, destination, channel)."""


@define(eq=False)
class _Interpreter:
    """The state of all GPUs while their steps are followed, and the schedule so far."""

    algo: Algo
    op: str
    n_chunks: int
    places: dict[tuple[int, Place], _Value] = field(factory=dict)
    transfers: list[Transfer] = field(factory=list)
    local: list[tuple[int, int, Cell, Cell, bool]] = field(factory=list)
    _homes: dict[tuple[int, int], Place] = field(factory=dict)
    _outputs: list[list[int]] = field(factory=list)
    _inputs: list[list[int]] = field(factory=list)
    _slots: dict[tuple[int, int], dict[Place, int]] = field(factory=lambda: defaultdict(dict))
    _transit: dict[tuple[int, int], list[tuple[int, int, int]]] = field(factory=lambda: defaultdict(list))
    _messages: dict[Key, deque[_Message]] = field(factory=lambda: defaultdict(deque))
    _waiting: dict[Key, list[_Running]] = field(factory=lambda: defaultdict(list))
    _blocks: dict[tuple[int, int], _Running] = field(factory=dict)

    def run(self, name: str) -> Schedule:
        """Return the schedule of the algorithm."""
        self._fill()
        self._blocks = {(g, b): _Running(g, block) for g, gpu in sorted(self.algo.gpus.items())
                        for b, block in sorted(gpu.blocks.items())}  # fmt: skip
        ready = deque(self._blocks.values())
        while ready:
            ready.extend(self._go_on(ready.popleft()))
        self._refuse_the_stuck()
        self._deliver()
        n_slots = 1 + max((len(slots) for slots in self._slots.values()), default=0)
        n_transit = 1 + max((t for used in self._transit.values() for t, _, _ in used), default=-1)

        def cell(of: Cell) -> int:
            slot = of[1] if of[1] < TRANSIT else of[1] - TRANSIT + n_slots
            return slot * self.n_chunks + of[0]

        transfers = (t._replace(chunks=tuple(cell(c) for c in t.chunks)) for t in self.transfers)  # type: ignore[arg-type]
        ordered = sorted(self.local, key=lambda item: item[0])
        local = tuple(Local(step, rank, cell(a), cell(b), add) for step, rank, a, b, add in ordered)
        return Schedule(self.op, name, self.algo.n_gpus, self.n_chunks, by_step(transfers), n_slots=n_slots + n_transit,
                        local=local)  # fmt: skip

    def _fill(self) -> None:
        """Put the input's chunks into their places, and find every chunk's home: the place whose slot is 0."""
        operation, n, k, root = OPERATIONS[self.op], self.algo.n_gpus, self.n_chunks, self.algo.root
        for rank in range(n):
            self._inputs.append([c for c in range(k) if operation.starts(n, k, root, rank, c)])
            self._outputs.append([c for c in range(k) if operation.ends(n, k, root, rank, c)])
            for offset, chunk in enumerate(self._outputs[rank]):
                self._homes[rank, chunk] = self._real(rank, ("o", offset))
            for offset, chunk in enumerate(self._inputs[rank]):
                self._homes[rank, chunk] = place = self._real(rank, ("i", offset))
                self.places[rank, place] = _Value(chunk, 0)

    def _real(self, rank: int, place: Place) -> Place:
        """Return where a place lies; in place, input and output overlap: the smaller is rank's part of the larger."""
        buffer, offset = place
        if not self.algo.in_place or buffer == "s":
            return place
        n_in, n_out = len(self._inputs[rank]), len(self._outputs[rank])
        small, n_small, n_large = ("i", n_in, n_out) if n_in <= n_out else ("o", n_out, n_in)
        part = n_small if n_small < n_large == n_small * self.algo.n_gpus else 0
        return ("o" if small == "i" else "i"), offset + (rank * part if buffer == small else 0)

    def _go_on(self, running: _Running) -> Iterable[_Running]:
        """Let a thread block go on until it must wait; return those that waited for what it did."""
        rank, block, freed = running.rank, running.block, []
        while len(running.levels) < len(block.steps):
            step = block.steps[len(running.levels)]
            before = running.level
            if step.after is not None:
                other = self._blocks[rank, step.after[0]]
                if len(other.levels) <= step.after[1]:
                    self._waiting["tb", rank, *step.after].append(running)
                    break
                before = max(before, other.levels[step.after[1]])
            message = None
            if step.type in RECEIVES:
                key = ("message", block.recv, rank, block.chan)
                if not self._messages[key]:
                    self._waiting[key].append(running)
                    break
                message = self._messages[key].popleft()
            running.levels.append(self._do(running, step, before, message))
            freed += self._waiting.pop(("tb", rank, block.number, len(running.levels) - 1), [])
            if step.type in SENDS:
                freed += self._waiting.pop(("message", rank, block.send, block.chan), [])
        return freed

    def _do(self, running: _Running, step: Step, before: int, message: _Message | None) -> int:
        """Carry out a step; return the step of the schedule after which what it did is there."""
        rank, block = running.rank, running.block
        if step.type == "nop":
            return before + (step.after is None)
        src = self._places(rank, step, step.src) if step.type in {"s", "rrc", "rrs", "rrcs", "cpy", "re"} else []
        dst = self._places(rank, step, step.dst) if step.type not in {"s", "rrs"} else []
        if step.type == "rrs":
            dst = [(f"tb {block.number} step {len(running.levels)}", x) for x in range(step.count)]
        if message is not None:
            if len(message.cells) != step.count:
                line = f"the message sent in line {message.line} has {len(message.cells)}"
                raise self.algo.error(step.line, f"<step>: cnt: {step.count}; {line}")
            before = max(before, message.step)
            before = self._receive(rank, step, before, message, src, dst)
        elif step.type in {"cpy", "re"}:
            add, values = step.type == "re", [self._value(rank, step, place) for place in src]
            before = max([before, *(v.level for v in values)])
            before = self._settled(rank, dst, before)
            for value, place in zip(values, dst, strict=True):
                self._write(rank, step, before, (value.chunk, value.slot), place, add=add)
                value.used = max(value.used, before)
        if step.type not in SENDS:
            return before
        values = [self._value(rank, step, place) for place in (dst if message is not None else src)]
        at = max([before, *(v.level for v in values)]) + 1
        for value in values:
            value.sent = max(value.sent, at)
        cells = [(v.chunk, v.slot) for v in values]
        self._messages["message", rank, block.send, block.chan].append(_Message(step.line, at, rank, cells))
        return at

    def _places(self, rank: int, step: Step, first: Place) -> list[Place]:
        """Return the places of a step's chunks; they must be inside of the buffer."""
        buffer, offset = first
        declared = self.algo.gpus[rank].n_chunks[buffer]
        size = {"i": len(self._inputs[rank]), "o": len(self._outputs[rank]), "s": declared}[buffer]
        if self.algo.in_place and buffer != "s":
            size = max(len(self._inputs[rank]), len(self._outputs[rank])) if declared == 0 else size
        size = min(size, declared) if declared else size
        if offset < 0 or offset + step.count > size:
            what = f"chunks {offset} to {offset + step.count - 1} of buffer {buffer!r} of gpu {rank}"
            raise self.algo.error(step.line, f"<step>: {what}; it has {size}")
        return [self._real(rank, (buffer, offset + x)) for x in range(step.count)]

    def _value(self, rank: int, step: Step, place: Place) -> _Value:
        value = self.places.get((rank, place))
        if value is None:
            where = f"chunk {place[1]} of buffer {place[0]!r} of gpu {rank}"
            raise self.algo.error(step.line, f"<step>: type {step.type!r} reads {where}, which nothing has written")
        return value

    def _settled(self, rank: int, places: Iterable[Place], level: int) -> int:
        """Return the first step, at or after `level`, after which the places may be written: all readers are done."""
        old = (self.places.get((rank, place)) for place in places)
        return max([level, *(max(v.level, v.sent, v.used) for v in old if v is not None)])

    def _slot(self, rank: int, chunk: int, place: Place) -> int:
        """Return the slot of a chunk in a place."""
        if self._homes.get((rank, chunk)) == place:
            return 0
        slots = self._slots[rank, chunk]
        return slots.setdefault(place, 1 + len(slots))

    def _write(self, rank: int, step: Step, level: int, source: Cell, place: Place, *, add: bool) -> None:
        """Copy a cell to a place of its rank, or add it to what is there, after step `level`."""
        value = self._value(rank, step, place) if add else _Value(source[0], self._slot(rank, source[0], place))
        self._require_same(step, source[0], value, add=add)
        if (value.chunk, value.slot) != source:
            self.local.append((level, rank, source, (value.chunk, value.slot), add))
        value.level, value.added = level, False
        self.places[rank, place] = value

    def _require_same(self, step: Step, chunk: int, value: _Value, *, add: bool) -> None:
        if add and value.chunk != chunk:
            raise self.algo.error(step.line, f"<step>: type {step.type!r} adds chunk {chunk} to chunk {value.chunk}")

    def _receive(
        self, rank: int, step: Step, level: int, message: _Message, src: list[Place], dst: list[Place]
    ) -> int:
        """Carry out the receiving half of a step; return the step of the schedule after which it is done."""
        adds = bool(src)
        own = [self._value(rank, step, place) for place in src]
        level = self._settled(rank, dst, max([level, *(v.level for v in own)]))
        if src == dst or not adds:
            landed = self._land(rank, step, message, dst, add=adds)
            if landed:
                return level
        arrived = [(chunk, self._in_transit(chunk, slot, message, rank, level)) for chunk, slot in message.cells]
        self._send(message, rank, arrived, add=False)
        for i, (cell, place) in enumerate(zip(arrived, dst, strict=True)):
            if adds and src != dst:
                self._require_same(step, cell[0], own[i], add=True)
                self._write(rank, step, level, (own[i].chunk, own[i].slot), place, add=False)
                own[i].used = max(own[i].used, level)
            self._write(rank, step, level, cell, place, add=adds)
        return level

    def _land(self, rank: int, step: Step, message: _Message, dst: list[Place], *, add: bool) -> bool:
        """Let a message land where it is wanted, if its slots are the same there and nothing else is done to them then."""
        at = message.step
        for (chunk, slot), place in zip(message.cells, dst, strict=True):
            old = self.places.get((rank, place))
            if old is not None:
                if add:
                    self._require_same(step, chunk, old, add=True)
                free = old.level < at or (add and old.added and old.level == at)
                if not free or old.sent > at or old.used >= at:
                    return False
            if self._slot(rank, chunk, place) != slot:
                return False
        self._send(message, rank, message.cells, add=add)
        for (chunk, slot), place in zip(message.cells, dst, strict=True):
            old = self.places.get((rank, place))
            value = old if add and old is not None else _Value(chunk, slot)
            value.level, value.added = at, add
            self.places[rank, place] = value
        return True

    def _in_transit(self, chunk: int, slot: int, message: _Message, dst: int, level: int) -> int:
        """Return a slot that is free on both sides from before the message to the end of step `level`."""
        del slot
        at = message.step
        wanted = ((message.src, at - 1, at), (dst, at, level))
        taken = {
            t
            for rank, begin, end in wanted
            for t, first, last in self._transit[rank, chunk]
            if first <= end and begin <= last
        }
        free = next(t for t in range(len(taken) + 1) if t not in taken)
        for rank, begin, end in wanted:
            self._transit[rank, chunk].append((free, begin, end))
        return TRANSIT + free

    def _send(self, message: _Message, dst: int, cells: list[Cell], *, add: bool) -> None:
        """Add the message to the schedule, sent from these cells of the source."""
        for own, cell in zip(message.cells, cells, strict=True):
            if own != cell:
                self.local.append((message.step - 1, message.src, own, cell, False))
        self.transfers.append(Transfer(message.step, message.src, dst, tuple(cells), add))  # type: ignore[arg-type]

    def _refuse_the_stuck(self) -> None:
        """Raise ConfigError if a thread block did not come to its end, or a message was not received."""
        for (rank, number), running in self._blocks.items():
            if len(running.levels) == len(running.block.steps):
                continue
            step = running.block.steps[len(running.levels)]
            waits = f"a message of gpu {running.block.recv} on channel {running.block.chan}"
            if step.after is not None and len(self._blocks[rank, step.after[0]].levels) <= step.after[1]:
                waits = f"step {step.after[1]} of tb {step.after[0]}"
            what = f"<step>: step {len(running.levels)} of tb {number} of gpu {rank} waits for ever for {waits}"
            raise self.algo.error(step.line, f"{what} (deadlock)")
        for (_, src, dst, chan), left in self._messages.items():
            if left:
                what = f"sends a message from gpu {src} to gpu {dst} on channel {chan} that is never received"
                raise self.algo.error(left[0].line, f"<step>: {what}")

    def _deliver(self) -> None:
        """Bring the output's chunks to slot 0; raise ConfigError where another chunk or nothing is in their place."""
        end = max([-1, *(t.step for t in self.transfers), *(item[0] for item in self.local)])
        for rank, outputs in enumerate(self._outputs):
            for offset, chunk in enumerate(outputs):
                value = self.places.get((rank, self._real(rank, ("o", offset))))
                if value is None or value.chunk != chunk:
                    what = "nothing" if value is None else f"chunk {value.chunk}"
                    message = f"gpu {rank} ends with {what} in chunk {offset} of its output, not with chunk {chunk}"
                    raise self.algo.error(self.algo.gpus[rank].line, f"{message} of the {self.algo.coll}")
                if value.slot:
                    self.local.append((end, rank, (chunk, value.slot), (chunk, 0), False))
