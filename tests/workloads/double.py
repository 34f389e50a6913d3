"""A stand-in for chips that keeps each kernel's work: values and shapes only, no time."""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict

import numpy as np

from configs.dtypes import DTYPES
from workloads.array import ShapeArray
from workloads.chip import Group, Tensor
from workloads.decode import decode
from workloads.layout import Place, split_evenly
from workloads.rounding import round_to


class Machine:
    """What the ranks share: mailboxes and meeting points."""

    def __init__(self, n_chips):
        self.n_chips = n_chips
        self.boxes = defaultdict(asyncio.Queue)
        self.meetings = {}


class DoubleChip:
    """A `workloads.chip.Chip` that records (kernel name, work), placed tensors, emissions, and calls by layer."""

    def __init__(self, machine, rank, *, real):
        self.machine, self.rank, self.real, self.n_chips = machine, rank, real, machine.n_chips
        self.trace, self.emitted, self.tensors, self.layer = [], {}, {}, None
        self.calls = []
        self._calls = defaultdict(int)

    def place(self, name, shape, dtype, values=None, **_):
        """Keep a tensor, checked against its announced shape."""
        if values is not None:
            assert values.shape == shape, (name, values.shape, shape)
            values = round_to(dtype, values)
        size_bytes = DTYPES[dtype].size_bytes(shape)
        self.tensors[name] = Tensor(name, shape, dtype, 0, size_bytes, values)
        return self.tensors[name]

    def apply(self, kernel, *operands, **params):
        """Run a kernel, checking its values against its inferred shape."""
        shape, dtype = kernel.infer(*operands, **params)
        if 0 in shape:
            return np.zeros(shape, dtype) if self.real else ShapeArray(shape, dtype)
        self.trace.append((kernel.name, kernel.work(*operands, **params)))
        if not self.real:
            return ShapeArray(shape, dtype)
        values = kernel.evaluate(*operands, **params)
        assert values.shape == shape, (kernel.name, values.shape, shape)
        return values.astype(dtype, copy=False)

    def group(self, name, ranks):
        """Return a group."""
        return Group(name, ranks)

    async def all_reduce(self, x, group):
        """Return the sum in group order."""
        self._note("all_reduce", group)
        parts = await self._meet(x, group)
        return sum(parts[1:], start=parts[0]) if self.real else x

    async def all_gather(self, x, group):
        """Return the concatenation in group order."""
        self._note("all_gather", group)
        parts = await self._meet(x, group)
        shape = (sum(part.shape[0] for part in parts), *x.shape[1:])
        return np.concatenate(parts) if self.real else ShapeArray(shape, x.dtype)

    async def reduce_scatter(self, x, group):
        """Return this member's even part of the sum."""
        self._note("reduce_scatter", group)
        parts = await self._meet(x, group)
        whole = sum(parts[1:], start=parts[0]) if self.real else x
        own = split_evenly(x.shape[0], len(group))[group.ranks.index(self.rank)]
        return whole[own.start : own.stop] if self.real else ShapeArray((len(own), *x.shape[1:]), x.dtype)

    async def all_to_all_v(self, x, rows, group):
        """Return the rows for this member, in group order."""
        self._note("all_to_all_v", group)
        me = group.ranks.index(self.rank)
        parts = await self._meet((x, rows), group)
        assert all(np.array_equal(table, rows) for _, table in parts)
        n = [table[me] for table in rows]
        if not self.real:
            return ShapeArray((sum(n), *x.shape[1:]), x.dtype)
        starts = [sum(table[:me]) for table in rows]
        return np.concatenate([part[s : s + k] for (part, _), s, k in zip(parts, starts, n, strict=True)])

    async def send(self, x, dst, tag=""):
        """Put an array into the receiver's mailbox."""
        self.calls.append((self.layer, "send pp"))
        self.machine.boxes[self.rank, dst, tag].put_nowait(x)

    async def recv(self, src, tag=""):
        """Wait for an array in the mailbox."""
        self.calls.append((self.layer, "recv pp"))
        return await self.machine.boxes[src, self.rank, tag].get()

    def start(self, operation):
        """Let an operation go on beside the program."""
        return asyncio.ensure_future(operation)

    def resume(self, step, state):
        """Begin at the start."""
        return step, state

    def checkpoint(self, step, state, sent=()):
        """Keep nothing."""

    def emit(self, name, value=None, index=0):
        """Keep a value."""
        self.emitted[name, index] = value

    def _note(self, op, group):
        """Remember a collective: in which layer, and among which ranks."""
        self.calls.append((self.layer, f"{op} {group.name.partition('.')[0]}"))

    async def _meet(self, x, group):
        self._calls[group.name] += 1
        arrived, complete = self.machine.meetings.setdefault(
            (group.name, self._calls[group.name]), ({}, asyncio.Event())
        )
        arrived[self.rank] = x
        if len(arrived) == len(group):
            complete.set()
        await complete.wait()
        return [arrived[rank] for rank in group.ranks]


def run_job(job, *, real=True):
    """Decode a job on as many chips as its layout asks for; return the chips."""

    async def main():
        machine = Machine(job.layout.n_ranks)
        chips = [DoubleChip(machine, rank, real=real) for rank in range(job.layout.n_ranks)]
        await asyncio.wait_for(asyncio.gather(*map(functools.partial(decode, job=job), chips)), 300)
        return chips

    return asyncio.run(main())


def last_stages(layout):
    """Return the first rank of every replica's last stage."""
    return [layout.rank(Place(dp, layout.pp - 1, 0, ep)) for dp in range(layout.dp) for ep in range(layout.ep)]


def tokens_of(job, chips):
    """Return the ids, [batch, new_tokens]."""
    first = [chips[rank] for rank in last_stages(job.layout)]
    return np.concatenate([np.stack([chip.emitted["tokens", i] for i in range(job.new_tokens)], 1) for chip in first])


def logits_of(job, chips):
    """Return the logits, [batch, new_tokens, vocab]."""
    replicas = []
    for first in last_stages(job.layout):
        shards = [
            np.stack([chip.emitted["logits", i] for i in range(job.new_tokens)], 1)
            for chip in (chips[rank] for rank in job.layout.shard_group(first).ranks)
        ]
        replicas.append(np.concatenate(shards, axis=2))
    return np.concatenate(replicas)
