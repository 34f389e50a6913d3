"""Small MSCCL files, written from tables."""

from __future__ import annotations

from pathlib import Path

ALGO = {"proto": "Simple", "nchannels": 1, "inplace": 0, "outofplace": 1, "minBytes": 0, "maxBytes": 0}


def element(name: str, attributes: dict, inside: str | None = None) -> str:
    """Return an element as XML."""
    text = " ".join(f'{key}="{value}"' for key, value in attributes.items() if value is not None)
    return f"<{name} {text}/>\n" if inside is None else f"<{name} {text}>\n{inside}</{name}>\n"


def step(place: int, kind: str, src: str = "i0", dst: str = "o0", cnt: int = 1, after=(-1, -1), **changes) -> str:
    """Return a step; places are written as buffer and offset (i3), `after` is (thread block, step)."""
    known = {
        "s": place, "type": kind, "srcbuf": src[0], "srcoff": src[1:], "dstbuf": dst[0], "dstoff": dst[1:],
        "cnt": cnt, "depid": after[0], "deps": after[1], "hasdep": 0,
    }  # fmt: skip
    return element("step", known | changes)


def block(number: int, steps: list, send: int = -1, recv: int = -1, chan: int = 0, **changes) -> str:
    """Return a thread block of steps, each (kind, src, dst, cnt, after) or finished XML."""
    rows = (row if isinstance(row, str) else step(place, *row) for place, row in enumerate(steps))
    return element("tb", {"id": number, "send": send, "recv": recv, "chan": chan} | changes, "".join(rows))


def algo(coll: str, gpus: list[str], *, chunks: int, sizes: tuple = (8, 8, 8), **changes) -> str:
    """Return a file whose GPUs hold these thread blocks, with buffers of these sizes."""
    inside = "".join(
        element("gpu", {"id": g, **dict(zip(("i_chunks", "o_chunks", "s_chunks"), sizes, strict=True))}, text)
        for g, text in enumerate(gpus)
    )
    head = {"name": "test", "coll": coll, "ngpus": len(gpus), "nchunksperloop": chunks}
    return element("algo", ALGO | head | changes, inside)


def two_ranks(change=lambda text: text) -> str:
    """Return the all-gather of two GPUs, changed."""
    gpus = [
        block(0, [("cpy", "i0", f"o{g}")])
        + block(1, [("s", "i0", f"o{g}")], send=1 - g)
        + block(2, [("r", "i0", f"o{1 - g}")], recv=1 - g)
        for g in range(2)
    ]
    return change(algo("allgather", gpus, chunks=2, sizes=(1, 2, 0)))


def all_pairs(n: int, *, in_place: bool = True) -> str:
    """Return an all-reduce in the manner of MSCCL's all-pairs: all parts to their owners' scratch, sums, all back.

    GPU g adds up chunk g; thread block k exchanges with GPU (g + k + 1) % n, and 0 waits for all by nops.
    """
    out = "i" if in_place else "o"
    gpus = []
    for g in range(n):
        peers = [(g + k + 1) % n for k in range(n - 1)]
        first = [("nop", "i0", "o0", 0, (k + 1, 1)) for k in range(1, n - 2)]
        sums = [("re", f"s{k}", f"{out}{g}", 1, (1, 1) if k == 0 and n > 2 else (-1, -1)) for k in range(n - 1)]
        copy = [] if in_place else [("cpy", f"i{g}", f"o{g}")]
        wait = [("nop", "i0", "o0", 0, (n - 1, 1))]
        text = block(0, [*copy, *first, *wait, *sums])
        last = (0, len(copy) + len(first) + n - 1)
        for k, p in enumerate(peers):
            rows = [
                ("s", f"i{p}", "s0"),
                ("r", "i0", f"s{k}"),
                ("s", f"{out}{g}", f"{out}{g}", 1, last),
                ("r", f"{out}{p}", f"{out}{p}"),
            ]
            text += block(k + 1, rows, send=p, recv=p)
        gpus.append(text)
    return algo("allreduce", gpus, chunks=n, sizes=(n, 0 if in_place else n, n - 1), inplace=int(in_place),
                outofplace=int(not in_place))  # fmt: skip


def save(folder: Path, text: str, name: str = "algorithm.xml") -> Path:
    """Write a file."""
    path = folder / name
    path.write_text(text)
    return path
