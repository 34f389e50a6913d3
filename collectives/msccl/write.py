"""Write a schedule as MSCCL XML.

Every GPU has a thread block for its local copies and sums (tb 0), one for each GPU that it sends to and one for each
that it receives from; the k-th message to the same GPU in a step goes over channel k. Every step waits for all that its
GPU did in the step before: that is what a schedule means, and more than MSCCL's runtime needs. The files have not been
run there; it has limits of its own (256 steps in a thread block, 32 thread blocks in a channel).

The input stays as it is: what a GPU changes is copied to the output first, or to scratch if it is none of the output.
Chunks that do not lie side by side are gathered in scratch before they are sent, and come apart where they arrive.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

from attrs import define, field

from collectives.operations import OPERATIONS
from collectives.schedule import RankStep, Schedule
from configs.errors import ConfigError

Place = tuple[str, int]
Run = tuple[Place, Place, int]
"""(source place, destination place, how many chunks side by side)"""


def write(schedule: Schedule, path: str | Path, root: int = 0) -> None:
    """Write the schedule to a file; `read` gives one that does the same messages in the same steps.

    Raises ConfigError where the file cannot be written.
    """
    try:
        with Path(path).open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in _lines(schedule, root))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError((f"{path}: cannot be written: {why}; accepted: a file in a folder that can be",)) from None


def _lines(schedule: Schedule, root: int) -> Iterable[str]:
    operation, n = OPERATIONS[schedule.op], schedule.n_ranks
    if operation.detail == "pairs":
        raise ConfigError((f"{schedule.op}: has no form in MSCCL XML; accepted: one of the other operations",))
    if schedule.helpers:
        raise ConfigError(
            (f"{schedule.algorithm}: switches that add have no form in MSCCL XML; accepted: another one",)
        )
    n_loop = schedule.n_chunks // (n if operation.parts == "pairs" else 1)
    t = schedule.transfers
    n_channels = max([1, *Counter(zip(t.step.tolist(), t.src.tolist(), t.dst.tolist(), strict=True)).values()])
    size = f'nchannels="{n_channels}" nchunksperloop="{n_loop}" ngpus="{n}" coll="{schedule.op.replace("_", "")}"'
    rooted = f' root="{root}"' if root else ""
    uses = f'inplace="0" outofplace="1"{rooted} minBytes="0" maxBytes="0"'
    yield f'<algo name={quoteattr(schedule.algorithm)} proto="Simple" {size} {uses}>'
    steps = _steps_of_ranks(schedule)
    for rank in range(n):
        yield from _Gpu(schedule, rank, root).lines(schedule.plans[rank], steps[rank])
    yield "</algo>"


def _steps_of_ranks(schedule: Schedule) -> list[list[int]]:
    """Return the number of every step of every rank's plan."""
    found: list[set[int]] = [set() for _ in range(schedule.n_ranks)]
    t = schedule.transfers
    for step, src, dst in zip(t.step.tolist(), t.src.tolist(), t.dst.tolist(), strict=True):
        found[src].add(step)
        found[dst].add(step)
    for move in schedule.local:
        found[move.rank].add(move.step)
    return [sorted(steps) for steps in found]


@define(eq=False)
class _Op:
    """An instruction; `after` are those of the same GPU that it waits for."""

    block: _Block
    index: int
    type: str
    src: Place
    dst: Place
    count: int
    after: list[_Op]
    awaited: bool = False


@define(eq=False)
class _Block:
    """A thread block; each of its rows of XML is an instruction, or a wait for a further one."""

    number: int
    send: int
    recv: int
    chan: int
    rows: list[_Op] = field(factory=list)

    def add(self, kind: str, src: Place, dst: Place, count: int, after: Iterable[_Op], idle: int = 0) -> _Op:
        """Add an instruction; before it come its waits but the last, and then, after all waits, so many idle steps."""
        waits = [op for op in dict.fromkeys(after) if op.block is not self]
        for op in waits:
            op.awaited = True
        for op in waits if idle else waits[:-1]:
            self._nop([op])
        for _ in range(idle):
            self._nop([])
        self.rows.append(_Op(self, len(self.rows), kind, src, dst, count, waits[-1:]))
        return self.rows[-1]

    def _nop(self, after: list[_Op]) -> None:
        self.rows.append(_Op(self, len(self.rows), "nop", ("i", 0), ("o", 0), 0, after))

    def lines(self) -> Iterable[str]:
        """Yield the thread block as XML."""
        yield f'    <tb id="{self.number}" send="{self.send}" recv="{self.recv}" chan="{self.chan}">'
        for op in self.rows:
            depid, deps = (op.after[0].block.number, op.after[0].index) if op.after else (-1, -1)
            src, dst = f'srcbuf="{op.src[0]}" srcoff="{op.src[1]}"', f'dstbuf="{op.dst[0]}" dstoff="{op.dst[1]}"'
            waits = f'depid="{depid}" deps="{deps}" hasdep="{int(op.awaited)}"'
            yield f'      <step s="{op.index}" type="{op.type}" {src} {dst} cnt="{op.count}" {waits}/>'
        yield "    </tb>"


@define(eq=False, init=False)
class _Gpu:
    """One rank's part: where its cells lie, and its thread blocks."""

    rank: int
    n_chunks: tuple[int, int]
    n_scratch: int
    most_scratch: int
    places: dict[int, Place]
    copies: list[tuple[Place, Place]]
    blocks: dict[tuple[str, int, int], _Block]

    def __init__(self, schedule: Schedule, rank: int, root: int) -> None:
        operation, n, k = OPERATIONS[schedule.op], schedule.n_ranks, schedule.n_chunks
        inputs = [c for c in range(k) if operation.starts(n, k, root, rank, c)]
        outputs = [c for c in range(k) if operation.ends(n, k, root, rank, c)]
        plan = schedule.plans[rank]
        written = {c for step in plan for _, ids, _ in step.receives for c in ids} | {
            to for step in plan for _, to, _ in step.local
        }
        self.rank, self.n_chunks, self.n_scratch = rank, (len(inputs), len(outputs)), 0
        self.places = {c: ("o", x) for x, c in enumerate(outputs)}
        self.copies = []
        for x, c in enumerate(inputs):
            if c in self.places or c in written:
                self.copies.append((("i", x), self._place(c)))
            else:
                self.places[c] = ("i", x)
        for c in sorted(written):
            self._place(c)
        self.most_scratch = self.n_scratch
        self.blocks = {("local", -1, 0): _Block(0, -1, -1, 0)}

    def _place(self, cell: int) -> Place:
        """Return where a cell lies: in scratch, if nowhere yet."""
        if cell not in self.places:
            self.places[cell] = ("s", self.n_scratch)
            self.n_scratch += 1
        return self.places[cell]

    def _block(self, kind: str, peer: int, used: Counter[tuple[str, int]]) -> _Block:
        """Return the thread block for a message to or from a GPU; `used` counts those of the same step."""
        send, recv = (peer, -1) if kind == "send" else (-1, peer)
        chan, used[kind, peer] = used[kind, peer], used[kind, peer] + 1
        return self.blocks.setdefault((kind, peer, chan), _Block(len(self.blocks), send, recv, chan))

    def lines(self, plan: Sequence[RankStep], steps: Sequence[int]) -> Iterable[str]:
        """Yield the GPU as XML."""
        done = [op for run in _runs(self.copies) for op in [self._local("cpy", run, [])]]
        last = -1
        for step, what in zip(steps, plan, strict=True):
            done = self._step(what, done, idle=step - 1 - last) or done
            last = step
        i_chunks, o_chunks = self.n_chunks
        yield f'  <gpu id="{self.rank}" i_chunks="{i_chunks}" o_chunks="{o_chunks}" s_chunks="{self.most_scratch}">'
        for block in self.blocks.values():
            if block.rows or len(self.blocks) == 1:
                yield from block.lines()
        yield "  </gpu>"

    def _local(self, kind: str, run: Run, after: Iterable[_Op]) -> _Op:
        return self.blocks["local", -1, 0].add(kind, *run, after)

    def _step(self, what: RankStep, before: list[_Op], idle: int) -> list[_Op]:
        """Add what the rank does in one step, after `before`; return its instructions."""
        free, used = self.n_scratch, Counter[tuple[str, int]]()
        ops: list[_Op] = []
        readers: dict[int, list[_Op]] = defaultdict(list)
        writers: dict[int, list[_Op]] = defaultdict(list)
        for dst, cells in what.sends:
            first, gathered, free = self._side_by_side(cells, free)
            after = [self._local("cpy", run, before) for run in gathered] or before
            block = self._block("send", dst, used)
            waits = [*after[-1:], *before] if gathered else after
            ops.append(block.add("s", first, first, len(cells), waits, idle))
            for cell in cells:
                readers[cell].append(ops[-1])
        for src, cells, reduce in what.receives:
            first, scattered, free = self._side_by_side(cells, free)
            guards = [op for cell in cells for op in (*readers[cell], *writers[cell])]
            block = self._block("recv", src, used)
            kind = "rrc" if reduce and not scattered else "r"
            done = block.add(kind, first, first, len(cells), [*before, *guards])
            ops.append(done)
            for there, here, count in scattered:
                done = self._local("re" if reduce else "cpy", (here, there, count), [*before, ops[-1], *guards])
            ops += [done] * (done is not ops[-1])
            for cell in cells:
                writers[cell].append(done)
        self.most_scratch = max(self.most_scratch, free)
        after = [*ops] or before
        for src, to, reduce in what.local:
            done = self._local("re" if reduce else "cpy", (self._place(src), self._place(to), 1), after)
            ops.append(done)
        return [op for op in ops if op.block.rows[-1] is op]

    def _side_by_side(self, cells: Sequence[int], free: int) -> tuple[Place, list[Run], int]:
        """Return where a message's cells lie side by side, how they get there, and the next free chunk of scratch."""
        places = [self.places[cell] for cell in cells]
        if len(_runs([(place, place) for place in places])) == 1:
            return places[0], [], free
        together: list[Place] = [("s", free + x) for x in range(len(cells))]
        return together[0], _runs(list(zip(places, together, strict=True))), free + len(cells)


def _runs(pairs: Sequence[tuple[Place, Place]]) -> list[Run]:
    """Join pairs of places that follow one another in both buffers.

    >>> _runs([(("i", 0), ("o", 4)), (("i", 1), ("o", 5)), (("i", 3), ("o", 6))])
    [(('i', 0), ('o', 4), 2), (('i', 3), ('o', 6), 1)]
    """
    runs: list[Run] = []
    for src, dst in pairs:
        if runs:
            a, b, count = runs[-1]
            if (a[0], a[1] + count) == src and (b[0], b[1] + count) == dst:
                runs[-1] = (a, b, count + 1)
                continue
        runs.append((src, dst, 1))
    return runs
