"""What of a system is dead."""

from __future__ import annotations

from attrs import field, frozen

from configs.fields import at_least, between
from configs.spec.topology import MOST_LINKS


@frozen
class LinkFault:
    """Dead links between two neighbours, as `chip3-chip4`: so many of the parallel ones, by default all."""

    link: str
    count: int | None = field(default=None, metadata=between(1, MOST_LINKS))

    @classmethod
    def of(cls, given: str | tuple[int, int] | LinkFault) -> LinkFault:
        """Return a fault that is written as a name or a pair of chips.

        >>> LinkFault.of((3, 4))
        LinkFault(link='chip3-chip4', count=None)
        """
        if isinstance(given, LinkFault):
            return given
        return cls(given if isinstance(given, str) else "-".join(f"chip{chip}" for chip in given))


@frozen
class FaultsSpec:
    """What is dead: links by the names of their ends (two numbers for two chips), chips and switches by number."""

    links: tuple[str | tuple[int, int] | LinkFault, ...] = ()
    chips: tuple[int, ...] = field(default=(), metadata=at_least(0))
    switches: tuple[int, ...] = field(default=(), metadata=at_least(0))
