"""All chips in this process: no server, starts at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from threadpoolctl import threadpool_limits

from cluster.backends.base import Outcome, Program, Setting, run_host
from cluster.chip import Emit
from cluster.host import Host


@frozen
class LocalBackend:
    """Runs all chips as coroutines, in a fixed order.

    Matrix products run on one thread, as they do in the actors of a Ray run: with several, some BLAS libraries add in
    another order and the bits would differ.
    """

    setting: Setting

    def run(self, program: Program, args: Sequence[Any], emit: Emit) -> list[Outcome]:
        """Run the program on every chip."""
        with threadpool_limits(limits=1):
            return [run_host(self.setting, range(self.setting.n_chips), Host(), program, args, emit)]

    def close(self) -> None:
        """Nothing was started."""
