"""What happens: chips, backends, the timeline, results and the command.

    from cluster import launch
    with launch("wormhole-galaxy") as cluster:
        result = cluster.run(program)

    from cluster import sweep
    for point in sweep("layouts.yaml", out="layouts"):
        print(point.values, point.row["tpot_s"])

The names below are imported on first use: actors import this package too, and start faster without the rest.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Cluster", "RunResult", "SweepPoint", "SweepResults", "launch", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cluster' has no attribute {name!r}")
    if name in ("SweepPoint", "SweepResults", "sweep"):
        from cluster import sweeps  # noqa: PLC0415  see above

        return getattr(sweeps, name)
    from cluster import session  # noqa: PLC0415

    return getattr(session, name)
