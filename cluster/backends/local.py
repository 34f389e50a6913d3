"""All chips in this process: no server, starts at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from attrs import field, frozen
from threadpoolctl import threadpool_limits

from cluster.backends.base import Outcome, Program, Setting, run_host
from cluster.backends.processes import keep_freed_memory, n_cores
from cluster.checkpoints import OnRestart
from cluster.chip import Emit
from cluster.host import Host
from cluster.roles import run_representatives
from cluster.selection import Choose, Chooser
from workloads.roles import Roles


@frozen
class LocalBackend:
    """Runs all chips as coroutines, in a fixed order; those that compute at the same time share the cores.

    One matrix product runs on one thread, as it does in the actors of a Ray run: with several, some BLAS libraries add
    in another order and the bits would differ.
    """

    setting: Setting
    choose: Choose = field(init=False)

    @choose.default
    def _default_choose(self) -> Choose:
        return Chooser(self.setting.system, self.setting.contention, self.setting.topology)

    def run(
        self, program: Program, args: Sequence[Any], emit: Emit, on_restart: OnRestart, roles: Roles | None = None
    ) -> list[Outcome]:
        """Run the program on every chip; without data, on one of every role. No chip is lost without the others."""
        del on_restart
        ranks, n_threads = range(self.setting.n_chips), n_cores()
        if self.setting.numerics == "shapes" and roles is not None:
            return [run_representatives(self.setting, program, args, emit, self.choose, roles)]
        if self.setting.numerics == "shapes":  # without data there is nothing to share
            return [run_host(self.setting, ranks, Host(), program, args, emit, self.choose)]
        keep_freed_memory()
        with threadpool_limits(limits=1), ThreadPoolExecutor(max(n_threads - 1, 1)) as threads:
            host = Host(threads=threads, n_threads=n_threads) if n_threads > 1 else Host()
            return [run_host(self.setting, ranks, host, program, args, emit, self.choose)]

    def close(self) -> None:
        """Nothing was started."""
