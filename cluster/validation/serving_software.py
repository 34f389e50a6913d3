"""Which profile of serving software a row was measured with, by what any row may carry; never by who published it.

1. The engine, by the column `software`; any other engine is taken for the usual one on the chip.
2. How old it is: a version there; else a date that the row names anywhere; else the engine's newest, or, where
   `by_release`, the release of the newest of its chip and model and `LAG_MONTHS` more. It is never older than these.
3. The profile of that engine, chip and age (`ENGINES`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from cluster.validation.model_names import plain_name
from cluster.validation.rows import DecodeRow

Month = tuple[int, int]
"""(year, month)"""
Version = tuple[int, ...]

LAG_MONTHS = 2
"""How long after the release of a chip or model it is usually measured: an estimate, which decides where dates miss."""
TODAY: Month = (9999, 1)
"""Of software that runs what this table does not know."""


@frozen
class Age:
    """The profile of software from a version or month on; `until` the next entry."""

    profile: str
    version: Version = ()
    month: Month = (0, 1)


@frozen
class Engine:
    """An engine by its name on chips of a family; its ages, oldest first.

    versions: those in a row count its own releases. by_release: without version or date it is as old as what it runs;
    else it is the newest.
    """

    name: re.Pattern[str]
    chips: re.Pattern[str]
    ages: tuple[Age, ...]
    versions: bool
    by_release: bool


def _engine(name: str, chips: str, *ages: Age, versions: bool = True, by_release: bool = True) -> Engine:
    return Engine(re.compile(name, re.IGNORECASE), re.compile(chips, re.IGNORECASE), ages, versions, by_release)


NVIDIA, AMD, TENSTORRENT = (
    r"\b(A100|G?H[128]00|G?B[23]00)",
    r"\bMI\d",
    r"Wormhole|Blackhole|Grayskull|Tenstorrent|\bn[13][05]0|\bT3[0K]|\bp1[05]0",
)
VLLM_0_6, TRTLLM_0_13, TRACED = (2024, 9), (2024, 9), (2025, 5)
"""vLLM 0.6 took the host's work off the step (blog.vllm.ai, 2024-09-05); that TensorRT-LLM's host does since
0.13 (of that month) is an estimate. That tt-metal's demos replay traces since v0.58 is an estimate: in its README
the same Falcon 40B makes 5.3 tokens/s/user with v0.57 and 11.9 with v0.59, Falcon 7B on a Galaxy 4.8, then 12.5."""

ENGINES: tuple[Engine, ...] = (
    # whatever serves requests, tt-metal decodes; its makers measure their demos again with every release,
    # whose versions are not those of a server before them
    _engine("vllm", TENSTORRENT, Age("tt-metal-2024"), Age("tt-metal", (), TRACED), versions=False, by_release=False),
    _engine("", TENSTORRENT, Age("tt-metal-2024"), Age("tt-metal", (0, 58), TRACED), by_release=False),
    _engine("fastertransformer", "", Age("fastertransformer")),
    _engine("gpt-fast", "", Age("gpt-fast")),
    _engine("neuronx", "", Age("neuronx")),
    _engine("deepspeed", r"\bGaudi", Age("deepspeed")),
    _engine(r"(?:trt|tensorrt)[-_ ]?llm", NVIDIA, Age("trtllm-2024"), Age("trtllm", (0, 13), TRTLLM_0_13)),
    _engine(r"\bnim\b", NVIDIA, Age("trtllm-2024"), Age("trtllm", (1, 1), TRTLLM_0_13)),
    _engine("sglang", f"{NVIDIA}|{AMD}", Age("sglang")),
    _engine("vllm", AMD, Age("vllm-2024-rocm"), Age("vllm", (0, 6), VLLM_0_6)),
    _engine("", r"\bTrainium|\bInferentia|\btrn\d|\binf2", Age("neuronx")),
    _engine("", r"\bGaudi", Age("deepspeed")),
    _engine("", AMD, Age("vllm-2024-rocm"), Age("vllm", (), VLLM_0_6), versions=False),
    _engine("vllm", "", Age("vllm-2024"), Age("vllm", (0, 6), VLLM_0_6)),
    _engine("", "", Age("vllm-2024"), Age("vllm", (), VLLM_0_6), versions=False),
)
"""By engine and chip, the first that matches; the last ones are for engines that are not known."""

RELEASES: tuple[tuple[re.Pattern[str], Month], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), month)
    for pattern, month in (
        (r"\bA100|MI2\d0", (2021, 11)),
        (r"\bGaudi2", (2022, 5)),
        (r"\bG?H100\b", (2022, 9)),
        (r"\bGH200|\bMI300|Wormhole", (2023, 12)),
        (r"\bH200\b", (2024, 7)),
        (r"\bG?B[23]00\b|MI325|Blackhole", (2024, 12)),
        (r"Falcon|GPT-\d+B|Megatron|Bloom|OPT-|GPT-?J", (2023, 5)),
        (r"Llama-2|CodeLlama", (2023, 7)),
        (r"Mistral-7B", (2023, 9)),
        (r"Mixtral-8x7B|Mamba", (2023, 12)),
        (r"Qwen1\.5|gemma-7b|Mixtral-8x22B|Llama-3-", (2024, 4)),
        (r"Qwen2-", (2024, 6)),
        (r"Llama-3\.1|gemma-2", (2024, 7)),
        (r"Llama-3\.2|Qwen2\.5", (2024, 9)),
    )
)
"""When chips and models came out (their makers' announcements); what is newer than these needs no row."""

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DATES = re.compile(
    rf"(?<![\w.])(?P<year>20[12]\d)-?(?P<month>0[1-9]|1[0-2])(?:-?(?:0[1-9]|[12]\d|3[01]))(?!\w)"
    rf"|\b(?P<name>{'|'.join(MONTHS)})[a-z]* (?P<named_year>20[12]\d)\b",
    re.IGNORECASE,
)
"""2024-09-05, 20240905, September 2024."""


def software_of(row: DecodeRow) -> str:
    """Return the name of the profile."""
    if row.metric.endswith("device_only"):
        return "ideal"
    chip = f"{row.chip} | {row.system}"
    engine = next(one for one in ENGINES if one.name.search(row.software) and one.chips.search(chip))
    released = _released(row)
    version = _version(row.software) if engine.versions else None
    if version is not None:
        known = sum(age.version <= version for age in engine.ages) - 1
    else:
        late = _after(released, LAG_MONTHS) if engine.by_release else TODAY
        month = max(_named(f"{row.date} {row.software} {row.notes} {row.source}"), default=late)
        known = sum(age.month <= month for age in engine.ages) - 1
    return engine.ages[max(known, sum(age.month <= released for age in engine.ages) - 1)].profile


def _version(text: str) -> Version | None:
    """Return the version that a text names.

    >>> _version("vLLM 0.10.0 (ROCm)"), _version("tt-metal demo v0.56.0-rc6"), _version("TensorRT-LLM")
    ((0, 10), (0, 56), None)
    """
    found = re.search(r"(?<![\d.])v?(\d+)\.(\d+)", text)
    return None if found is None else (int(found[1]), int(found[2]))


def _released(row: DecodeRow) -> Month:
    """Return when the newest of chip and model came out."""
    found = ([month for pattern, month in RELEASES if pattern.search(text)]
             for text in (f"{row.chip} {row.system}", plain_name(row.model)))  # fmt: skip
    return max(max(months, default=TODAY) for months in found)


def _after(month: Month, n_months: int) -> Month:
    """Return the month so many later.

    >>> _after((2024, 11), 3)
    (2025, 2)
    """
    count = month[0] * 12 + month[1] - 1 + n_months
    return count // 12, count % 12 + 1


def _named(text: str) -> Iterator[Month]:
    """Yield the months that a text names.

    >>> list(_named("README.md (~May 2024), 2025-11-03, 20240905, @10a00843, 8743252811"))
    [(2024, 5), (2025, 11), (2024, 9)]
    """
    for found in DATES.finditer(text):
        if found["year"]:
            yield int(found["year"]), int(found["month"])
        else:
            yield int(found["named_year"]), MONTHS.index(found["name"].lower()) + 1
