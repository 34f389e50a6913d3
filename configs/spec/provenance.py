"""Where figures come from."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Confidence = Literal["vendor", "measured", "secondary", "estimate"]


@frozen
class Provenance:
    """Where a figure comes from and how sure it is."""

    source: str
    confidence: Confidence
