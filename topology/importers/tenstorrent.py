"""What Tenstorrent's two formats leave unsaid: the rate and the latency of an Ethernet link, by architecture."""

from __future__ import annotations

from topology.importers.base import Figure

_WORMHOLE_RATE = "tenstorrent/tenstorrent.github.io:core/aibs/wormhole/index.md (100 Gb/s Ethernet, per direction)"
_BLACKHOLE_RATE = "tenstorrent/tenstorrent.github.io:core/aibs/blackhole/index.md (400 Gb/s Ethernet, per direction)"
_HOP = "tenstorrent/tt-metal:tech_reports/CCLs/CCL_bandwidth.md (forwarding by one more hop, 1D fabric)"
BANDWIDTH = {
    "wormhole": Figure(12.5e9, _WORMHOLE_RATE, "vendor"),
    "blackhole": Figure(50e9, _BLACKHOLE_RATE, "vendor"),
}
LATENCY = {"wormhole": Figure(711_000, _HOP, "measured"), "blackhole": Figure(515_000, _HOP, "measured")}


def architecture(word: str) -> str:
    """Return the architecture's plain name.

    >>> architecture("WORMHOLE_B0"), architecture("blackhole")
    ('wormhole', 'blackhole')
    """
    return word.lower().partition("_")[0]
