"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import CoercionError, Parameter, Token


def whole_number(_type: object, tokens: Sequence[Token]) -> int:
    """Return an integer; the library's own conversion rounds 1.5 to 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise CoercionError(token=tokens[0], target_type=int) from None


Overrides = Annotated[
    tuple[str, ...],
    Parameter(name="--set", help="Override a key of the spec, e.g. workload.batch=4; may be repeated.",
              negative=(), consume_multiple=False),
]  # fmt: skip
Ideal = Annotated[
    bool, Parameter(help="Charge no overheads: links, kernels and software reach all they could.", negative=())
]
Backend = Annotated[Literal["local", "ray"], Parameter(help="Where the chips live.")]
RayAddress = Annotated[
    str | None, Parameter(help="The Ray cluster, auto or HOST:PORT; by default a private Ray on this machine.")
]
ChipsPerActor = Annotated[
    int | None,
    Parameter(
        help="Chips that share one Ray actor; by default one, or more where memory is short.", converter=whole_number
    ),
]
Trace = Annotated[
    Path | None, Parameter(help="Write the timeline for ui.perfetto.dev; FILE.gz is packed.", name="--trace")
]
AsJson = Annotated[bool, Parameter(name="--json", help="Print one JSON document on stdout.", negative=())]
