"""What happens: chips, backends, the timeline, results and the command.

    from cluster import launch
    with launch("wormhole-galaxy") as cluster:
        result = cluster.run(program)

The names below are imported on first use: actors import this package too, and start faster without the rest.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Cluster", "RunResult", "launch"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cluster' has no attribute {name!r}")
    from cluster import session  # noqa: PLC0415  see above

    return getattr(session, name)
