"""MSCCL XML: algorithms for microsoft/msccl and ROCm's RCCL are read into schedules, and schedules written in that form.

Read: `parse` (the file's elements), `interpret` (what they do to chunks). Written: `write`.
"""

from __future__ import annotations

from collectives.msccl.interpret import read
from collectives.msccl.write import write

__all__ = ["read", "write"]
