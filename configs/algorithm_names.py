"""How algorithms are named: `ring`, `ring:channels=4` with parameters, or the path of an MSCCL XML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from configs.problems import unknown

if TYPE_CHECKING:
    from collections.abc import Collection

    from configs.fields import Bounds

AUTO = "auto"
PROTOCOL = "protocol"
"""The parameter that names a protocol of the system's communication library, whatever the algorithm."""
Offered = Mapping[str, Mapping[str, "Bounds | tuple[str, ...]"]]
"""The algorithms of an operation, each with its parameters and what they may be."""


def is_algorithm_file(name: str) -> bool:
    """Return whether an algorithm is named by the path of an MSCCL XML file.

    >>> is_algorithm_file("ring"), is_algorithm_file("mine.xml")
    (False, True)
    """
    return name.endswith(".xml") or "/" in name


def split_name(text: str) -> tuple[str, dict[str, int | str]]:
    """Return the name of an algorithm and its parameters, as they are written; whole numbers become numbers.

    >>> split_name("ring:channels=4")
    ('ring', {'channels': 4})
    """
    name, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",")] if rest else []
    return name, {key: int(value) if value.isdecimal() else value for key, _, value in pairs}


def base_name(text: str) -> str:
    """Return the name of an algorithm without its parameters.

    >>> base_name("ring:channels=4")
    'ring'
    """
    return text if is_algorithm_file(text) else text.partition(":")[0]


def with_protocol(text: str, protocol: str) -> str:
    """Return the name of an algorithm under a protocol.

    >>> with_protocol("ring:channels=4", "LL"), with_protocol("ring", "LL")
    ('ring:channels=4,protocol=LL', 'ring:protocol=LL')
    """
    return f"{text}{',' if ':' in text else ':'}{PROTOCOL}={protocol}"


def algorithm_problem(text: str, op: str, offered: Offered, also: Collection[str] = (AUTO,)) -> str | None:
    """Say what is wrong with the name of an algorithm for `op`, or return None; `also` are further words.

    >>> from configs.fields import Bounds
    >>> algorithm_problem("ring:channels=99", "all_reduce", {"ring": {"channels": Bounds(1, 32)}})
    "'ring:channels=99': channels is 99; accepted: a whole number ≥ 1 and ≤ 32"
    """
    if text in also or is_algorithm_file(text):
        return None
    name, values = split_name(text)
    protocol = {PROTOCOL: (str(values[PROTOCOL]),)} if PROTOCOL in values else {}
    offered = {key: {**row, **protocol} for key, row in offered.items()}
    if name not in offered:
        return unknown(name, f"an algorithm of {op}", (*also, *offered))
    written = text.partition(":")[2].split(",") if ":" in text else []
    if len(written) != len(values) or not all("=" in part for part in written):
        return f"{text!r}; accepted: {name}:parameter=value, with commas between several"
    for key, value in values.items():
        if key not in offered[name]:
            return f"{text!r}: {unknown(key, f'a parameter of {name}', tuple(offered[name]))}"
        accepted = offered[name][key]
        if isinstance(accepted, tuple):
            if value not in accepted:
                return f"{text!r}: {key} is {value!r}; accepted: {', '.join(accepted)}"
        elif not isinstance(value, int) or not accepted.admit(value):
            return f"{text!r}: {key} is {value}; accepted: a whole number {accepted}"
    return None
