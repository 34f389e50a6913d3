"""What serving software adds."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from configs.fields import at_least, between
from configs.spec.provenance import Provenance


@frozen
class SoftwareSpec:
    """What the serving software adds to every step and call; `ideal` adds nothing.

    step_ps, row_ps: the chips wait for the host so long before every step, and for every row of it: what of scheduling,
    sampling and handing out tokens does not go on beside the chips' work.
    kernel_ps, call_ps: more time between kernels, and before collectives, than the libraries' own.
    stall: the fraction of a prefill's time for which rows that are decoding stand still, where both share the chips.
    dispatch_ps: what the host takes to start a kernel where no graph or trace does it: none takes less on the chip.
    one_host: one process starts the kernels of all chips, and the steps of all replicas, in turn.
    kernels: profiles of kernels that it has in place of a chip's: {amd-cdna3: amd-cdna3-2024}.
    """

    name: str = "ideal"
    step_ps: int = field(default=0, metadata=at_least(0))
    row_ps: int = field(default=0, metadata=at_least(0))
    kernel_ps: int = field(default=0, metadata=at_least(0))
    call_ps: int = field(default=0, metadata=at_least(0))
    stall: float = field(default=1.0, metadata=between(0, 1))
    dispatch_ps: int = field(default=0, metadata=at_least(0))
    one_host: bool = False
    kernels: Mapping[str, str] = field(factory=dict)
    description: str = field(default="", eq=False)
    provenance: Mapping[str, Provenance] = field(factory=dict, eq=False)
