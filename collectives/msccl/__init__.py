"""MSCCL XML: algorithms for microsoft/msccl and ROCm's RCCL become schedules, and schedules are written in that form.

Reading: `parse` (the file's elements), `interpret` (the thread blocks), `cells` (the buffers). Writing: `write`.
"""

from __future__ import annotations

from collectives.msccl.interpret import COLLECTIVES, read
from collectives.msccl.write import write

__all__ = ["COLLECTIVES", "read", "write"]
