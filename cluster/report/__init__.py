"""Reports: a folder of `run --out` or `sweep --out` becomes one HTML file that needs nothing beside itself.

stored (what is in the folder) ─► timeline, links, times, roofline, memory, origins, points (figures) ─► page
"""

from __future__ import annotations

from cluster.report.write import Report, write_report

__all__ = ["Report", "write_report"]
