"""Read the elements of an MSCCL XML file, and refuse what is not of that form.

    algo > gpu > tb (thread block) > step

The file is read as a stream (`configs.xml_source`): there is no tree; an element that is not one of the four at its
depth is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import define, field, frozen

from configs.errors import ConfigError
from configs.xml_source import Element, read_xml, stream_xml

NAMES = ("algo", "gpu", "tb", "step")
RECEIVES = frozenset({"r", "rrc", "rcs", "rrs", "rrcs"})
SENDS = frozenset({"s", "rcs", "rrs", "rrcs"})
TYPES = ("s", "r", "rrc", "rcs", "rrs", "rrcs", "cpy", "re", "nop")


@frozen
class Step:
    """An instruction of a thread block; `after` is the (thread block, step) of the same GPU that it waits for."""

    line: int
    type: str
    src: tuple[str, int]
    dst: tuple[str, int]
    count: int
    after: tuple[int, int] | None


@define
class ThreadBlock:
    """Steps that follow one another; it sends to `send` and receives from `recv` (-1: nobody) on channel `chan`."""

    line: int
    number: int
    send: int
    recv: int
    chan: int
    steps: list[Step] = field(factory=list)


@define
class Gpu:
    """The thread blocks of a rank by their id, and the chunks in each of its buffers."""

    line: int
    number: int
    n_chunks: Mapping[str, int]
    blocks: dict[int, ThreadBlock] = field(factory=dict)


@define
class Algo:
    """The whole file; `chunks_per_loop` is what a rank's larger buffer is cut into."""

    file: str
    name: str
    coll: str
    n_gpus: int
    chunks_per_loop: int
    in_place: bool
    root: int
    gpus: dict[int, Gpu] = field(factory=dict)

    def error(self, line: int, message: str) -> ConfigError:
        """Return the error for what stands in a line."""
        return ConfigError((f"{self.file}:{line}: {message}",))


def parse(path: str | Path) -> Algo:
    """Return what the file says; raise ConfigError, with file and line, if it is not of the form."""
    return _Reader(str(path)).read(read_xml(path, "an MSCCL algorithm in XML"))


@define
class _Reader:
    """Turns the stream of elements into an `Algo`."""

    file: str
    algo: Algo | None = None
    gpu: Gpu | None = None
    block: ThreadBlock | None = None

    def read(self, data: bytes) -> Algo:
        stream_xml(data, self.file, "MSCCL XML", start=self._start, end=lambda: None)
        assert self.algo is not None, "a document has an element"
        missing = next((g for g in range(self.algo.n_gpus) if g not in self.algo.gpus), None)
        if missing is not None:
            raise ConfigError((f"{self.file}: gpu {missing} is missing; ngpus is {self.algo.n_gpus}",))
        for gpu in self.algo.gpus.values():
            _check_waits(self.algo, gpu)
        return self.algo

    def _start(self, element: Element, depth: int) -> None:
        if depth == len(NAMES) or element.name != NAMES[depth]:
            expected = f"<{NAMES[depth]}>" if depth < len(NAMES) else "nothing inside a <step>"
            raise element.error(f"<{element.name[:40]}> stands here; accepted: {expected}")
        (self._algo, self._gpu, self._block, self._step)[depth](element)

    def _algo(self, a: Element) -> None:
        in_place = a.flag("inplace", 0) and not a.flag("outofplace", 0)
        root = a.integer("root", 0, default=0)
        n_gpus, chunks = a.integer("ngpus", 1), a.integer("nchunksperloop", 1)
        self.algo = Algo(self.file, a.text("name", "msccl"), a.text("coll"), n_gpus, chunks, in_place, root)

    def _gpu(self, a: Element) -> None:
        assert self.algo is not None
        number = a.integer("id", 0, self.algo.n_gpus - 1)
        n_chunks = {buffer: a.integer(f"{buffer}_chunks", 0) for buffer in "ios"}
        self.gpu = Gpu(a.line, number, n_chunks)
        if self.algo.gpus.setdefault(number, self.gpu) is not self.gpu:
            raise a.error(f"<gpu>: id: {number} is taken by the one in line {self.algo.gpus[number].line}")

    def _block(self, a: Element) -> None:
        assert self.algo is not None
        assert self.gpu is not None
        number, chan, most = a.integer("id", 0), a.integer("chan", -1), self.algo.n_gpus - 1
        self.block = ThreadBlock(a.line, number, a.integer("send", -1, most), a.integer("recv", -1, most), chan)
        if self.gpu.number in {self.block.send, self.block.recv}:
            raise a.error(f"<tb>: a thread block of gpu {self.gpu.number} exchanges with its own gpu")
        for other in self.gpu.blocks.values():
            same = [w for w in ("send", "recv") if getattr(other, w) == getattr(self.block, w) != -1]
            if other.number == number or (same and other.chan == chan):
                what = "the id" if other.number == number else f"{same[0]} and chan"
                raise a.error(f"<tb>: has {what} of the one in line {other.line}; accepted: each once in a gpu")
        self.gpu.blocks[number] = self.block

    def _step(self, a: Element) -> None:
        assert self.gpu is not None
        assert self.block is not None
        here = len(self.block.steps)
        if a.integer("s", 0) != here:
            raise a.error(f"<step>: s: {a.integer('s', 0)}; accepted: {here}, the next of its tb")
        kind, wait = a.choice("type", TYPES), a.integer("depid", -1)
        src, dst = a.choice("srcbuf", "ios"), a.choice("dstbuf", "ios")
        for types, peer in ((SENDS, "send"), (RECEIVES, "recv")):
            if kind in types and getattr(self.block, peer) < 0:
                raise a.error(f"<step>: type: {kind!r} in a tb whose {peer} is -1; accepted: the id of a gpu")
        a.flag("hasdep")
        after = (wait, a.integer("deps", 0)) if wait >= 0 else None
        count = a.integer("cnt", 0 if kind == "nop" else 1)
        places = (src, a.integer("srcoff", -1)), (dst, a.integer("dstoff", -1))
        self.block.steps.append(Step(a.line, kind, *places, count, after))


def _check_waits(algo: Algo, gpu: Gpu) -> None:
    """Refuse a step that waits for one that does not exist."""
    for block in gpu.blocks.values():
        for step in block.steps:
            if step.after is None:
                continue
            number, place = step.after
            if number not in gpu.blocks or place >= len(gpu.blocks[number].steps):
                raise algo.error(step.line, f"<step>: waits for step {place} of tb {number} of its gpu, which has none")
