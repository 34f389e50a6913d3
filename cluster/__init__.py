"""What happens: chips, backends, the timeline, results and the command."""

from __future__ import annotations

from cluster.launch import Cluster, RunResult, launch

__all__ = ["Cluster", "RunResult", "launch"]
