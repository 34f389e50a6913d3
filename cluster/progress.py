"""Progress on a standard error that is no terminal: a line at the start, and one every so often."""

from __future__ import annotations

import sys
import time

from attrs import define

EVERY_S = 30.0


@define
class Lines:
    """Lines that say how many of something are done; the first at once."""

    what: str
    every_s: float = EVERY_S
    _due_s: float = 0.0

    def __call__(self, done: int, of: int) -> None:
        """Write a line if one is due."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + self.every_s
            print(f"chipmesh: {done:,} of {of:,} {self.what}", file=sys.stderr, flush=True)  # noqa: T201
