"""Say that the timeline's functions are being compiled: it takes long, and happens once after an installation."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from numba.core import event

PACKAGE = __name__.rpartition(".")[0]


class _Listener(event.Listener):  # type: ignore[misc]  # numba has no types
    """Is told of functions that are compiled, not of those that are found compiled."""

    def on_start(self, told: Any) -> None:
        """Say so for the first function of this package."""
        if told.data["dispatcher"].py_func.__module__.startswith(PACKAGE):
            say()

    def on_end(self, told: Any) -> None:
        """Say nothing."""


@cache
def say() -> None:
    """Write the line, once in a process."""
    text = "compiling the timeline engine, once after an installation: some 15 s …"
    print(f"chipmesh: {text}", file=sys.stderr, flush=True)  # noqa: T201


@cache
def announce() -> None:
    """Let compilation be told from now on."""
    event.register("numba:compile", _Listener())
