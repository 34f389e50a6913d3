"""Read the elements of an MSCCL XML file, and refuse what is not of that form.

    algo > gpu > tb (thread block) > step

The file is read as a stream: there is no tree; a document type, and with it every entity, is refused, and so is an
element that is not one of the four at its depth.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from xml.parsers import expat

from attrs import define, field, frozen

from configs.errors import ConfigError
from configs.problems import shown

MOST_BYTES = 2**26
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
    reader = _Reader(str(path))
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError((f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}",)) from None
    if len(data) > MOST_BYTES:
        raise ConfigError((f"{path}: is larger than {MOST_BYTES >> 20} MiB; accepted: an MSCCL algorithm in XML",))
    return reader.read(data)


@define
class _Reader:
    """Turns expat's events into an `Algo`."""

    file: str
    algo: Algo | None = None
    gpu: Gpu | None = None
    block: ThreadBlock | None = None
    depth: int = 0
    parser: Any = field(factory=expat.ParserCreate)

    def read(self, data: bytes) -> Algo:
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._doctype
        try:
            self.parser.Parse(data, True)
        except expat.ExpatError as error:
            why = expat.errors.messages[error.code]
            raise ConfigError((f"{self.file}:{error.lineno}: is not XML: {why}; accepted: MSCCL XML",)) from None
        except (ValueError, LookupError) as error:
            raise ConfigError((f"{self.file}: is not XML: {error}; accepted: MSCCL XML",)) from None
        assert self.algo is not None, "a document has an element"
        missing = next((g for g in range(self.algo.n_gpus) if g not in self.algo.gpus), None)
        if missing is not None:
            raise ConfigError((f"{self.file}: gpu {missing} is missing; ngpus is {self.algo.n_gpus}",))
        for gpu in self.algo.gpus.values():
            _check_waits(self.algo, gpu)
        return self.algo

    def _doctype(self, *_: object) -> None:
        raise self._error("a document type; accepted: plain elements, without a DTD or entities")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self.depth == len(NAMES) or name != NAMES[self.depth]:
            expected = f"<{NAMES[self.depth]}>" if self.depth < len(NAMES) else "nothing inside a <step>"
            raise self._error(f"<{name[:40]}> stands here; accepted: {expected}")
        (self._algo, self._gpu, self._block, self._step)[self.depth](_Attributes(self, name, attributes))
        self.depth += 1

    def _end(self, _name: str) -> None:
        self.depth -= 1

    def _algo(self, a: _Attributes) -> None:
        in_place = a.flag("inplace", 0) and not a.flag("outofplace", 0)
        root = a.integer("root", 0, default=0)
        n_gpus, chunks = a.integer("ngpus", 1), a.integer("nchunksperloop", 1)
        self.algo = Algo(self.file, a.text("name", "msccl"), a.text("coll"), n_gpus, chunks, in_place, root)

    def _gpu(self, a: _Attributes) -> None:
        assert self.algo is not None
        number = a.integer("id", 0, self.algo.n_gpus - 1)
        n_chunks = {buffer: a.integer(f"{buffer}_chunks", 0) for buffer in "ios"}
        self.gpu = Gpu(self.line, number, n_chunks)
        if self.algo.gpus.setdefault(number, self.gpu) is not self.gpu:
            raise self._error(f"<gpu>: id: {number} is taken by the one in line {self.algo.gpus[number].line}")

    def _block(self, a: _Attributes) -> None:
        assert self.algo is not None
        assert self.gpu is not None
        number, chan, most = a.integer("id", 0), a.integer("chan", -1), self.algo.n_gpus - 1
        self.block = ThreadBlock(self.line, number, a.integer("send", -1, most), a.integer("recv", -1, most), chan)
        if self.gpu.number in {self.block.send, self.block.recv}:
            raise self._error(f"<tb>: a thread block of gpu {self.gpu.number} exchanges with its own gpu")
        for other in self.gpu.blocks.values():
            same = [w for w in ("send", "recv") if getattr(other, w) == getattr(self.block, w) != -1]
            if other.number == number or (same and other.chan == chan):
                what = "the id" if other.number == number else f"{same[0]} and chan"
                raise self._error(f"<tb>: has {what} of the one in line {other.line}; accepted: each once in a gpu")
        self.gpu.blocks[number] = self.block

    def _step(self, a: _Attributes) -> None:
        assert self.gpu is not None
        assert self.block is not None
        here = len(self.block.steps)
        if a.integer("s", 0) != here:
            raise self._error(f"<step>: s: {a.integer('s', 0)}; accepted: {here}, the next of its tb")
        kind, wait = a.choice("type", TYPES), a.integer("depid", -1)
        src, dst = a.choice("srcbuf", "ios"), a.choice("dstbuf", "ios")
        for types, peer in ((SENDS, "send"), (RECEIVES, "recv")):
            if kind in types and getattr(self.block, peer) < 0:
                raise self._error(f"<step>: type: {kind!r} in a tb whose {peer} is -1; accepted: the id of a gpu")
        a.flag("hasdep")
        after = (wait, a.integer("deps", 0)) if wait >= 0 else None
        count = a.integer("cnt", 0 if kind == "nop" else 1)
        places = (src, a.integer("srcoff", -1)), (dst, a.integer("dstoff", -1))
        self.block.steps.append(Step(self.line, kind, *places, count, after))

    @property
    def line(self) -> int:
        """The line that is being read."""
        return int(self.parser.CurrentLineNumber)

    def _error(self, message: str) -> ConfigError:
        return ConfigError((f"{self.file}:{self.line}: {message}",))


@frozen
class _Attributes:
    """The attributes of one element."""

    reader: _Reader
    element: str
    values: Mapping[str, str]

    def text(self, key: str, default: str | None = None) -> str:
        """Return an attribute as it stands."""
        value = self.values.get(key, default)
        if value is None:
            raise self._error(f"<{self.element}>: {key} is missing")
        return value

    def integer(self, key: str, least: int, most: int = 10**9, default: int | None = None) -> int:
        """Return a whole number."""
        value = self.text(key, None if default is None else str(default))
        number = int(value) if re.fullmatch(r"-?[0-9]{1,9}", value) else None
        if number is None or not least <= number <= most:
            limit = f"{least} to {most}" if most < 10**9 else f"a whole number ≥ {least}"
            raise self._error(f"<{self.element}>: {key}: {shown(value)}; accepted: {limit}")
        return number

    def flag(self, key: str, default: int | None = None) -> bool:
        """Return 0 or 1 as a bool."""
        return bool(self.integer(key, 0, 1, default))

    def choice(self, key: str, choices: Collection[str]) -> str:
        """Return one of these words."""
        value = self.text(key)
        if value not in tuple(choices):
            raise self._error(f"<{self.element}>: {key}: {shown(value)}; accepted: {', '.join(choices)}")
        return value

    def _error(self, message: str) -> ConfigError:
        return self.reader._error(message)  # noqa: SLF001  its other half


def _check_waits(algo: Algo, gpu: Gpu) -> None:
    """Refuse a step that waits for one that does not exist."""
    for block in gpu.blocks.values():
        for step in block.steps:
            if step.after is None:
                continue
            number, place = step.after
            if number not in gpu.blocks or place >= len(gpu.blocks[number].steps):
                raise algo.error(step.line, f"<step>: waits for step {place} of tb {number} of its gpu, which has none")
