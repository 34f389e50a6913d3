"""The command `list`."""

from __future__ import annotations

from typing import Literal

from cluster.commands.options import AsJson
from cluster.commands.output import console_of, print_json


def list_(
    kind: Literal["chips", "systems", "models", "experiments", "algorithms"] | None = None,
    /,
    *,
    json_: AsJson = False,
) -> None:
    """List what the catalogue holds."""
    from cluster.listing import listing, print_listing

    if json_:
        print_json(listing(kind))
    else:
        print_listing(console_of(), listing(kind))
