"""What chips cost."""

from __future__ import annotations

from attrs import field, frozen

from configs.fields import above, between


@frozen
class CostSpec:
    """What a chip costs: rented by the hour, or bought and written off over some years with the electricity it draws.

    utilisation: the fraction of the time in which the chips generate tokens at the rate of the run.
    electricity_per_kwh_usd: of what the chips draw, times `pue` (power usage effectiveness) for what is around them.
    """

    price_per_chip_hour_usd: float | None = None
    price_usd: float | None = None
    years: float | None = field(default=None, metadata=above(0, 100))
    electricity_per_kwh_usd: float | None = None
    pue: float = field(default=1.0, metadata=between(1, 10))
    utilisation: float = field(default=1.0, metadata=above(0, 1))
