"""docs/parallelism.md says what runs: the shares of every tensor, and the collectives of every layout."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attrs import evolve

from configs.spec.dtype import DtypeSpec
from tests.workloads.double import run_job
from workloads.decode import DecodeJob, plan_rank
from workloads.huggingface import huggingface_model
from workloads.layout import Layout

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "parallelism.md").read_text()
N_ROWS = 4


def table(heading):
    """Return the cells of the table that begins with these columns."""
    lines = PAGE[PAGE.index(heading) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def job_of(name, layout):
    """Return a job of two tokens of four rows without data."""
    model = huggingface_model(ROOT / "tests" / "data" / "oracles" / name)
    return DecodeJob(model, layout, DtypeSpec(), (8,) * N_ROWS, 2)


def degree(words):
    """Return what a layout's key is given: a number, the sides of a grid, a word, or that it is on."""
    if len(words) > 1:
        return tuple(map(int, words[::2]))
    return True if not words else int(words[0]) if words[0].isdecimal() else words[0]


def words(cell):
    """Return the listed collectives."""
    return [word.strip() for word in cell.split(",") if word.strip()]


@pytest.mark.parametrize("row", table("| layout | model |"), ids=lambda row: f"{row[0]} {row[1]}")
def test_collectives(row):
    """The first rank takes part in the listed ones: in every layer, and outside, in the prefill and in a step."""
    given, name, in_layer, outside = row
    degrees = {word.split()[0]: degree(word.split()[1:]) for word in words(given)}
    job = job_of(name, Layout(**degrees))
    calls = run_job(job, real=False)[0].calls
    layers = {layer for layer, _ in calls if layer is not None}
    for layer in layers:
        assert [call for at, call in calls if at == layer] == 2 * words(in_layer), layer
    listed, found = words(outside), [call for at, call in calls if at is None]
    assert found == listed + (listed[:-1] if job.layout.pp > 1 else listed)  # after the last step no id comes back
    assert bool(layers) == bool(in_layer)


SHARES = [
    (re.findall(r"`([\w.]+)`", row[0]), dict(zip(("tp", "cp", "ep", "dp"), row[1:], strict=True)))
    for row in table("| tensor |")
]


def held(job, tensor):
    """Return the bytes of a tensor, over all layers, that the first rank holds."""
    names = re.compile(rf"(layers\.\d+\.)?{re.escape(tensor)}")
    return sum(shard.size_bytes for shard in plan_rank(job, 0) if names.fullmatch(shard.name))


@pytest.mark.parametrize(("tensors", "shares"), SHARES, ids=str)
def test_shares(tensors, shares):
    """With every degree that the table says, the first rank's part is halved, and else it stays."""
    for tensor in tensors:
        found = 0
        for name in ("llama-gqa", "mixtral", "deepseek-v3"):
            job = job_of(name, Layout())
            whole = held(job, tensor)
            found += whole
            for axis, share in shares.items():
                part = held(evolve(job, layout=evolve(job.layout, **{axis: 2})), tensor)
                assert part == (-(-whole // 2) if share == "1/n" else whole), (name, tensor, axis)
        assert found, tensor
