"""What a run's chips hand over while they run: tokens, logits, and that they are ready."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import define, field
from numpy.typing import NDArray

from workloads.decode import DecodeJob
from workloads.tokenizer import TextStream, Tokenizer

OnToken = Callable[[int, int, str], None]
"""(row, step, text that this token completes): called as tokens come."""


@define(eq=False)
class Collector:
    """Receives what the chips hand over while they run."""

    job: DecodeJob
    tokenizer: Tokenizer | None = None
    on_token: OnToken = lambda _row, _step, _text: None
    began_s: float = 0.0
    ready: int = 0
    ready_s: float = 0.0
    ids: dict[tuple[int, int], int] = field(factory=dict)
    logits: dict[tuple[int, int, int], Any] = field(factory=dict)
    stop_ids: tuple[int, ...] = ()
    _stopped: set[int] = field(factory=set)
    _streams: list[TextStream] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._streams = [self.tokenizer.stream() for _ in self.job.prompt_lengths] if self.tokenizer else []

    def __call__(self, rank: int, name: str, value: Any, index: int) -> None:
        """Take a value that a chip emits."""
        place = self.job.layout.place(rank)
        replica = self.job.layout.replica(place)
        if name == "ready":
            self.ready += 1
            self.ready_s = time.perf_counter() - self.began_s
        elif name == "logits":
            self.logits[replica, index, self.job.layout.index(place)] = value
        elif name == "tokens" and isinstance(value, np.ndarray):
            for row, token in zip(self.job.rows(replica), value.tolist(), strict=True):
                self.ids[row, index] = token
                self._show(row, index, token)

    def _show(self, row: int, step: int, token: int) -> None:
        """Show a token, unless its row has stopped."""
        if token in self.stop_ids:
            self._stopped.add(row)
        if row not in self._stopped:
            self.on_token(row, step, self._streams[row].feed(token) if self._streams else f" {token}")

    def output_ids(self) -> tuple[tuple[int, ...], ...]:
        """Return the generated ids, [batch][new_tokens]."""
        steps = range(self.job.new_tokens)
        return tuple(tuple(self.ids[row, s] for s in steps) for row in range(len(self.job.prompt_lengths)))

    def all_logits(self) -> NDArray[np.float32]:
        """Return the logits, [batch, new_tokens, vocab], put together from the shards of the vocabulary."""
        layout = self.job.layout
        replicas = []
        for replica in range(layout.n_replicas):
            steps = [
                np.concatenate([self.logits[replica, s, i] for i in range(layout.width)], axis=1)
                for s in range(self.job.new_tokens)
            ]
            replicas.append(np.stack(steps, axis=1))
        return np.concatenate(replicas).astype(np.float32)
