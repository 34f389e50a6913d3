"""Take figures apart: `{value: 74TFLOPS, source: docs, confidence: vendor}` is a value and its origin.

Any value may be written so, also a whole section: the provenance then covers all that is in it. `source` is a
key of the table `sources:` at the top of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from attrs import frozen

from configs.problems import Keys, Place, Problems, dotted, unknown
from configs.spec.provenance import Confidence, Provenance

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONFIDENCES = get_args(Confidence)
_FIGURE_KEYS = ("value", "source", "confidence")


@frozen
class FigureReader:
    """Replace figures by their values; what is learnt of their origin goes into `provenance`."""

    sources: Mapping[str, str]
    problems: Problems
    provenance: dict[str, Provenance]

    def plain(self, value: Any, place: Place, keys: Keys = ()) -> Any:
        """Return the value with all figures in it replaced; `keys` lead to it in its document."""
        if isinstance(value, dict) and "value" in value:
            self._note(value, place, keys)
            return self.plain(value["value"], place, keys)
        if isinstance(value, dict):
            return {key: self.plain(item, place.child(key), (*keys, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(item, place.child(i), (*keys, i)) for i, item in enumerate(value)]
        return value

    def _note(self, figure: Mapping[str, Any], place: Place, keys: Keys) -> None:
        n_before = len(self.problems.found)
        for key in figure:
            if key not in _FIGURE_KEYS:
                self.problems.add(place.child(key), unknown(key, "a key of a figure", _FIGURE_KEYS))
        source, confidence = figure.get("source"), figure.get("confidence")
        if source not in tuple(self.sources):
            self.problems.add(place.child("source"), unknown(source, "a key of 'sources'", tuple(self.sources)))
        if confidence not in _CONFIDENCES:
            self.problems.add(place.child("confidence"), unknown(confidence, "a confidence", _CONFIDENCES))
        if len(self.problems.found) == n_before:
            self.provenance[dotted(keys)] = Provenance(self.sources[figure["source"]], figure["confidence"])


def read_sources(value: Any, place: Place, problems: Problems) -> dict[str, str]:
    """Return the table of sources: short names and full citations."""
    if not isinstance(value, dict):
        problems.add(place, "is not a mapping; accepted: short names and full citations")
        return {}
    for key, citation in value.items():
        if not isinstance(citation, str) or not citation.strip():
            problems.add(place.child(key), "is not text; accepted: a full citation")
    return {key: str(citation) for key, citation in value.items()}
