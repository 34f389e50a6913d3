"""What the kinds of topology check about their parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from configs.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from configs.spec.topology import LinkSpec

MAX_CHIPS = 250_000
MAX_EDGES = 1_000_000  # about 500 MB with all that is printed of them
MAX_LANES = 1_000_000  # parallel links of one edge


def reject(problems: Iterable[str]) -> None:
    """Raise ConfigError with all problems, if there are any."""
    found = tuple(problems)
    if found:
        raise ConfigError(found)


def link_problems(link: LinkSpec) -> list[str]:
    """Return what is wrong with a link."""
    problems = []
    if not 0 < link.bandwidth_bytes_per_s < math.inf:
        problems.append(f"link.bandwidth: must be above zero, got {link.bandwidth_bytes_per_s}")
    if link.latency_ps < 0:
        problems.append(f"link.latency: must not be negative, got {link.latency_ps} ps")
    if link.count > MAX_LANES:
        problems.append(f"link.count: at most {MAX_LANES:,} links, got {link.count:,}")
    if link.count < 1:
        problems.append(f"link.count: must be at least 1, got {link.count}")
    return problems


def size_problems(key: str, n_chips: int, n_edges: int) -> list[str]:
    """Return whether the parameter `key` asks for none or for too many chips or edges."""
    if n_chips < 1:
        return [f"{key}: at least one chip is needed, got {n_chips}"]
    if n_chips > MAX_CHIPS:
        return [f"{key}: at most {MAX_CHIPS:,} chips, got {n_chips:,}"]
    if n_edges > MAX_EDGES:
        return [f"{key}: at most {MAX_EDGES:,} edges, got {n_edges:,}"]
    return []
