"""Turn an MSCCL algorithm into a schedule, by following its chunks from buffer to buffer.

Every GPU has an input (i), an output (o) and a scratch buffer (s) of chunks; in place, the smaller of i and o lies in
the larger. Thread blocks run at the same time, their steps one after the other; a step also waits for the step that
depid and deps name. A thread block's messages on its channel to one GPU arrive in the order in which they were sent;
sending does not wait for the receiver. With `dst` and `src` the places that the step names:

    s     send src                          cpy    dst = src
    r     dst = received                    re     dst = dst + src
    rrc   dst = src + received              nop    nothing (it only waits)
    rcs   dst = received, send it on        rrs    send src + received on
    rrcs  dst = src + received, send it on

Source: microsoft/msccl, src/graph (parser) and src/collectives/device/msccl_interpreter.h; the same in ROCm/rccl.

A message's step in the schedule is the first one after all that its thread block has done before it and waited for:
its earlier messages, and the steps in which what it waited for arrived. A nop that waits for nothing is an idle step
(the runtime leaves it out; `write` uses it so that a schedule keeps its steps). Where two thread blocks use a place and
neither waits for the other, what is followed here is one of the orders that the runtime may take.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from pathlib import Path

from attrs import define, field

from collectives.checker import ScheduleError, check
from collectives.msccl.cells import Cells, Message, Place
from collectives.msccl.parse import RECEIVES, SENDS, Algo, Step, ThreadBlock, parse
from collectives.operations import OPERATIONS
from collectives.schedule import Schedule
from configs.errors import ConfigError
from configs.problems import shown

MOST_CHUNKS = 2**23  # on all ranks together
MOST_MOVES = 2**22  # chunks that all steps together move
READS_SOURCE = frozenset({"s", "rrc", "rrs", "rrcs", "cpy", "re"})

COLLECTIVES = {name.replace("_", ""): name for name, operation in OPERATIONS.items() if operation.detail != "pairs"}
"""Our names by MSCCL's."""


def read(path: str | Path, name: str = "") -> Schedule:
    """Return the schedule of a file, proven; `name` is the algorithm's, by default the path.

    Raises ConfigError, with file and line, for what is not MSCCL XML, cannot end, or does not keep its operation's
    promise.
    """
    algo = parse(path)
    if algo.coll not in COLLECTIVES:
        raise ConfigError((f"{path}: coll: {shown(algo.coll)}; accepted: {', '.join(COLLECTIVES)}",))
    op = COLLECTIVES[algo.coll]
    n_chunks = algo.chunks_per_loop * (algo.n_gpus if OPERATIONS[op].parts == "pairs" else 1)
    _check_sizes(algo, op, n_chunks)
    schedule = _Interpreter(algo, Cells(algo, op, n_chunks)).run(name or str(path))
    try:
        check(schedule, algo.root)
    except ScheduleError as error:
        raise ConfigError((f"{path}: does not do an {algo.coll}: {error}",)) from None
    return schedule


def _check_sizes(algo: Algo, op: str, n_chunks: int) -> None:
    """Refuse numbers that cannot be right, or are more than anyone means."""
    part = OPERATIONS[op].n_parts(algo.n_gpus)
    if n_chunks % part or n_chunks * algo.n_gpus > MOST_CHUNKS:
        multiple = f"a multiple of {max(1, part * algo.chunks_per_loop // n_chunks)}"
        limit = f"{multiple}, the parts of an {algo.coll}, and at most {MOST_CHUNKS} chunks on all GPUs together"
        raise ConfigError((f"{algo.file}: nchunksperloop: {algo.chunks_per_loop}; accepted: {limit}",))
    if algo.root >= algo.n_gpus:
        raise ConfigError((f"{algo.file}: root: {algo.root}; accepted: 0 to {algo.n_gpus - 1}",))
    moves = sum(step.count for gpu in algo.gpus.values() for block in gpu.blocks.values() for step in block.steps)
    if moves > MOST_MOVES:
        raise ConfigError((f"{algo.file}: its steps move {moves} chunks; accepted: at most {MOST_MOVES}",))


@define(eq=False)
class _Running:
    """A thread block on its way; `levels` are the steps of the schedule after which what its steps did is there."""

    rank: int
    block: ThreadBlock
    levels: list[int] = field(factory=list)


Key = tuple[str, int, int, int]
"""What a thread block waits for: ("tb", rank, id, step), or ("message", source, destination, channel)."""


@define(eq=False)
class _Interpreter:
    """Follows all thread blocks at once; one that must wait is taken up again when what it waits for has happened."""

    algo: Algo
    cells: Cells
    _messages: dict[Key, deque[Message]] = field(factory=lambda: defaultdict(deque))
    _waiting: dict[Key, list[_Running]] = field(factory=lambda: defaultdict(list))
    _blocks: dict[tuple[int, int], _Running] = field(init=False)

    def __attrs_post_init__(self) -> None:
        gpus = sorted(self.algo.gpus.items())
        self._blocks = {(g, b): _Running(g, block) for g, gpu in gpus for b, block in sorted(gpu.blocks.items())}

    def run(self, name: str) -> Schedule:
        """Return the schedule of the algorithm."""
        ready = deque(self._blocks.values())
        while ready:
            ready.extend(self._go_on(ready.popleft()))
        self._refuse_the_stuck()
        return self.cells.schedule(name)

    def _go_on(self, running: _Running) -> Iterable[_Running]:
        """Let a thread block go on until it must wait; return those that waited for what it did."""
        rank, block, freed = running.rank, running.block, []
        while len(running.levels) < len(block.steps):
            step = block.steps[len(running.levels)]
            waits_for = self._waits_for(running, step)
            if waits_for is not None:
                self._waiting[waits_for].append(running)
                break
            running.levels.append(self._do(running, step))
            freed += self._waiting.pop(("tb", rank, block.number, len(running.levels) - 1), [])
            if step.type in SENDS:
                freed += self._waiting.pop(("message", rank, block.send, block.chan), [])
        return freed

    def _waits_for(self, running: _Running, step: Step) -> Key | None:
        """Return what a step must still wait for."""
        if step.after is not None and len(self._blocks[running.rank, step.after[0]].levels) <= step.after[1]:
            return "tb", running.rank, *step.after
        inbox = self._inbox(running)
        return inbox if step.type in RECEIVES and not self._messages[inbox] else None

    def _inbox(self, running: _Running) -> Key:
        return "message", running.block.recv, running.rank, running.block.chan

    def _do(self, running: _Running, step: Step) -> int:
        """Carry out a step; return the step of the schedule after which what it did is there."""
        rank, cells = running.rank, self.cells
        before = max([-1, *running.levels[-1:]])
        if step.after is not None:
            before = max(before, self._blocks[rank, step.after[0]].levels[step.after[1]])
        if step.type == "nop":
            return before + (step.after is None)
        src = cells.places(rank, step, step.src) if step.type in READS_SOURCE else []
        if step.type == "s":
            return self._send(running, step, before, src)
        dst = self._nowhere(running, step) if step.type == "rrs" else cells.places(rank, step, step.dst)
        if step.type in {"cpy", "re"}:
            return cells.copy(rank, step, before, src, dst, add=step.type == "re")
        message = self._messages[self._inbox(running)].popleft()
        if len(message.cells) != step.count:
            sent = f"the message sent in line {message.line} has {len(message.cells)}"
            raise self.algo.error(step.line, f"<step>: cnt: {step.count}; {sent}")
        before = cells.receive(rank, step, before, message, src, dst)
        return self._send(running, step, before, dst) if step.type in SENDS else before

    def _nowhere(self, running: _Running, step: Step) -> list[Place]:
        """Return places of no buffer, for what is only sent on."""
        return [(f"tb {running.block.number} step {len(running.levels)}", x) for x in range(step.count)]

    def _send(self, running: _Running, step: Step, before: int, places: list[Place]) -> int:
        block = running.block
        message = self.cells.send(running.rank, step, before, places)
        self._messages["message", running.rank, block.send, block.chan].append(message)
        return message.step

    def _refuse_the_stuck(self) -> None:
        """Raise ConfigError if a thread block did not come to its end, or a message was not received."""
        for (rank, number), running in self._blocks.items():
            here = len(running.levels)
            if here == len(running.block.steps):
                continue
            step = running.block.steps[here]
            waits_for = self._waits_for(running, step)
            what = f"a message of gpu {running.block.recv} on channel {running.block.chan}"
            if waits_for is not None and waits_for[0] == "tb":
                what = f"step {waits_for[3]} of tb {waits_for[2]}"
            waits = f"<step>: step {here} of tb {number} of gpu {rank} waits for ever for {what} (deadlock)"
            raise self.algo.error(step.line, waits)
        for (_, src, dst, chan), left in self._messages.items():
            if left:
                what = f"sends a message from gpu {src} to gpu {dst} on channel {chan} that is never received"
                raise self.algo.error(left[0].line, f"<step>: {what}")
