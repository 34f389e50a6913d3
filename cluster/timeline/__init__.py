"""The time plane: traces become a graph of timed tasks, the engine plays it, the timeline is the result."""

from __future__ import annotations

from cluster.timeline.timeline import Breakdown, Event, LinkUse, Timeline, time_run
from cluster.timeline.trace_events import write_trace

__all__ = ["Breakdown", "Event", "LinkUse", "Timeline", "time_run", "write_trace"]
