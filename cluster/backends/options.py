"""What a user may say of the Ray backend; nothing here imports Ray."""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import field, frozen

from configs.errors import ConfigError

START_DEADLINE_S = 180.0


def _silent(_text: str) -> None:
    """Drop what nobody wants to read."""


@frozen
class RayOptions:
    """Where the actors go and how they start.

    address: "auto" or HOST:PORT of a cluster of which this machine is a node; None: a private Ray on this machine.
    chips_per_actor: None: one, or as many more as it takes to fit into memory.
    groups: of chips that talk most, kept on one node; chips that are in none follow in their order.
    chip_bytes: what a chip's shard takes on the host.  on_status: told how far the start is.
    """

    address: str | None = None
    chips_per_actor: int | None = None
    groups: tuple[tuple[int, ...], ...] = ()
    chip_bytes: int = 0
    start_deadline_s: float = START_DEADLINE_S
    on_status: Callable[[str], None] = field(default=_silent, eq=False)

    def all_groups(self, n_chips: int) -> list[tuple[int, ...]]:
        """Return groups that cover every chip."""
        grouped = {rank for group in self.groups for rank in group}
        return [*self.groups, *((rank,) for rank in range(n_chips) if rank not in grouped)]


def address_problem(address: str) -> str | None:
    """Say what is wrong with the address of a cluster.

    >>> address_problem("10.0.0.1:6379"), address_problem("ray://10.0.0.1:10001")
    (None, "'ray://10.0.0.1:10001'; accepted: auto, or HOST:PORT of the head; this machine must be one of the nodes")
    """
    host, _, port = address.rpartition(":")
    if address == "auto" or (re.fullmatch(r"[\w.:\[\]-]+", host) and "://" not in host and port.isdecimal()):
        return None
    return f"{address!r}; accepted: auto, or HOST:PORT of the head; this machine must be one of the nodes"


def check_options(options: RayOptions, backend: str) -> None:
    """Raise ConfigError for what is no option, or has no meaning for this backend."""
    problems = []
    if options.chips_per_actor is not None and options.chips_per_actor < 1:
        problems.append(f"--chips-per-actor: {options.chips_per_actor}; accepted: an integer ≥ 1")
    if options.address is not None and backend != "ray":
        problems.append(f"--ray-address: the backend is {backend!r}; accepted: together with --backend ray")
    elif options.address is not None and (problem := address_problem(options.address)) is not None:
        problems.append(f"--ray-address: {problem}")
    if options.start_deadline_s <= 0:
        problems.append(f"start_deadline_s: {options.start_deadline_s:g}; accepted: seconds > 0")
    if problems:
        raise ConfigError(tuple(problems))
