"""What stands in the column `metric` and is predicted, however it is spelled."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from attrs import frozen

Quantity = Literal["tpot_s", "e2e_s"]


@frozen
class Metric:
    """A metric that can be predicted: the quantity it is, and that from its value, the rows and the output's length."""

    quantity: Quantity
    seconds: Callable[[float, int, int], float]


STEP = r"^(?:tpot|itl|inter_token_latency|time_per_output_token|ms_per_output_token)"
RATE = r"^(?:output_|decode_|generation_)?(?:tokens|tok|tps|t)(?:_per_s|_s)?"
USER = r"_(?:per_)?(?:user|u|request)(?:_device_only)?$"
TOTAL = r"^(?:total_)?(?:output_)?(?:tokens_per_s|throughput)_(?:total|tokens_per_s)$|^total_output_tokens_per_s$"
FORMS: tuple[tuple[str, Quantity, Callable[[float, int, int], float]], ...] = (
    (rf"{STEP}(?:_ms)?$", "tpot_s", lambda ms, _rows, _length: ms * 1e-3),
    (rf"{STEP}_s$", "tpot_s", lambda s, _rows, _length: s),
    (rf"{STEP}_us$", "tpot_s", lambda us, _rows, _length: us * 1e-6),
    (RATE + USER, "tpot_s", lambda rate, _rows, _length: 1 / rate),
    (r"^e2e_latency_ms$", "e2e_s", lambda ms, _rows, _length: ms * 1e-3),
    (r"^e2e_latency_s$", "e2e_s", lambda s, _rows, _length: s),
    (TOTAL, "e2e_s", lambda rate, rows, length: rows * length / rate),
)
METRICS = tuple((re.compile(pattern), Metric(quantity, seconds)) for pattern, quantity, seconds in FORMS)


def metric_named(text: str) -> Metric | None:
    """Return the metric that a text names; None of what is not predicted. Means and medians count as the value.

    >>> [metric_named(text).quantity for text in ("Mean ITL (ms)", "tok/s/user", "output throughput tokens/s")]
    ['tpot_s', 'tpot_s', 'e2e_s']
    >>> metric_named("p99_tpot_ms"), metric_named("ttft_ms")
    (None, None)
    """
    plain = re.sub(r"[\s()\[\]-]+", "_", text.lower().replace("/s", "_per_s").replace("/", "_per_")).strip("_")
    plain = re.sub(r"^(?:mean|median|avg|average|p50)_|_(?:mean|median|avg|p50)(?=_|$)", "", plain)
    plain = re.sub(r"_sec(?:ond)?(?=_|$)", "_s", plain)
    return next((metric for pattern, metric in METRICS if pattern.search(plain)), None)
